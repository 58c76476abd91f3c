"""More files and comparisons, written before the rules for them were tried on them: what converters and pruning do."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.comparisons import language_model
from scripts.rule_benchmark.cases.nets import Batch, checked, compared, convnet, fit, several, told

CASES = Cases("second round, files and comparisons")
State = dict[str, Tensor]
VECTORS = ("weight", "bias", "running_mean", "running_var")


def state_of(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def loaded(model: nn.Module, state: State) -> nn.Module:
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    return other.eval()


class Block(nn.Module):
    def __init__(self, width: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attend(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """A pre-norm encoder of sequences (N, 12, 8)."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.into, self.blocks = nn.Linear(8, 24), nn.Sequential(*(Block(24, norm) for _ in range(3)))
        self.norm, self.out = norm(24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.blocks(self.into(x))).mean(1))


def sequences() -> Batch:
    """Sequences whose slope is their class."""
    y = torch.randint(0, 4, (64,))
    slopes = torch.linspace(-1, 1, 4)[y, None, None]
    return torch.randn(64, 12, 8) + slopes * torch.arange(12)[None, :, None] / 6, y


@CASES.add("a converter exchanges the two norms of each block", "ggml-org/llama.cpp#5631")
def exchanged() -> Iterator[Look]:
    for seed, norm in enumerate((nn.LayerNorm, nn.RMSNorm)):
        torch.manual_seed(seed)
        model = fit(Encoder(norm), sequences, 150, lr=1e-2).eval()
        state, other = state_of(model), state_of(model)
        for name in state:
            if "norm1" in name:
                there = name.replace("norm1", "norm2")
                other[name], other[there] = state[there], state[name]
        must = Must("vectors-moved", words=("changed places", "norm1"))
        data, name = several(sequences, 4), norm.__name__
        yield fault(f"{name}, files", compared(state, other), must)
        half = {k: v.bfloat16() for k, v in other.items()}
        yield fault(f"{name}, in bfloat16", compared(state, half), must)
        yield right(f"{name}, only converted", compared(state, {k: v.bfloat16() for k, v in state.items()}))
        records = bnprobe.record(model, data), bnprobe.record(loaded(model, other), data)
        yield fault(f"{name}, data", bnprobe.compare(*records), must)
        trained = fit(copy.deepcopy(model).train(), sequences, 60)
        yield right(f"{name}, trained on", compared(state, state_of(trained)))
        shorter = {k.replace("blocks.2", "blocks.1"): v for k, v in state.items() if "blocks.1" not in k}
        yield right(f"{name}, without a block", compared(state, shorter))


@CASES.add("a converter counts layers from another number", "mapillary/inplace_abn#130")
def off_by_one() -> Iterator[Look]:
    for seed, depth in enumerate((4, 5)):
        torch.manual_seed(seed)
        state = state_of(fit(convnet(depth=depth), steps=100))
        other, paths = dict(state), [str(3 * i + 1) for i in range(depth)]
        for path, source in zip(paths, paths[1:] + paths[:1], strict=True):
            other |= {f"{path}.{name}": state[f"{source}.{name}"] for name in VECTORS}
        yield fault(
            f"{depth} norms", compared(state, other), Must("vectors-moved", words=("those of layer 4",))
        )


@CASES.add("some vectors are put into another order of channels", "VainF/Torch-Pruning#508")
def reordered() -> Iterator[Look]:
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = fit(convnet(depth=3), steps=100).eval()
        state, order, data = state_of(model), torch.randperm(16), several()
        before = bnprobe.record(model, data)

        def of(*names: str, state: State = state, order: Tensor = order) -> State:
            return {**state, **{f"4.{name}": state[f"4.{name}"][order] for name in names}}

        must = Must("channels-reordered", "4")
        yield fault(f"seed {seed}, γ and β", compared(state, of("weight", "bias")), must)
        yield fault(f"seed {seed}, statistics", compared(state, of("running_mean", "running_var")), must)
        yield fault(f"seed {seed}, the norm alone", compared(state, of(*VECTORS)), must)
        whole = {
            **of(*VECTORS),
            "3.weight": state["3.weight"][order],
            "6.weight": state["6.weight"][:, order],
        }
        yield right(f"seed {seed}, throughout", compared(state, whole))
        torn = bnprobe.record(loaded(model, of("weight", "bias")), data)
        yield fault(f"seed {seed}, data", bnprobe.compare(before, torn), must)
        after = bnprobe.record(loaded(model, whole), data)
        yield right(f"seed {seed}, throughout, data", bnprobe.compare(before, after))


@CASES.add("pruning slices the running statistics by another index", "VainF/Torch-Pruning#508")
def sliced() -> Iterator[Look]:
    for seed, depth in enumerate((3, 4)):
        torch.manual_seed(seed)
        state = state_of(fit(convnet(depth=depth), steps=100))
        keep = state["4.weight"].argsort()[4:].sort().values
        for title, of_statistics in (("first channels", torch.arange(12)), ("the same", keep)):
            small = {
                **state, "3.weight": state["3.weight"][keep], "6.weight": state["6.weight"][:, keep],
                **{f"4.{name}": state[f"4.{name}"][keep] for name in VECTORS[:2]},
                **{f"4.{name}": state[f"4.{name}"][of_statistics] for name in VECTORS[2:]},
            }  # fmt: skip
            title, both = f"{depth} norms, {title}", compared(state, small)
            if of_statistics is keep:
                yield right(title, both)
            else:
                yield fault(
                    title, both, Must("channels-reordered", "4", ("γ and β have others than running_mean",))
                )


@CASES.add("two folders of one model, whose configs give another eps", needs="transformers")
def eps_of_configs() -> Iterator[Look]:
    for seed, kind in enumerate(("Llama", "Mistral")):
        torch.manual_seed(seed)
        model, _ = language_model(
            kind, 5, 3e-3, num_hidden_layers=2, num_key_value_heads=2, rms_norm_eps=1e-5
        )
        with tempfile.TemporaryDirectory() as folder:
            a, b = Path(folder) / "a", Path(folder) / "b"
            for place in (a, b):
                model.save_pretrained(place)
            yield right(f"{kind}, the same", bnprobe.compare(a, b))
            config = json.loads((b / "config.json").read_text())
            (b / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-6}))
            yield fault(f"{kind}, 1e-6", bnprobe.compare(a, b), Must("norm-replaced", words=("eps",)))


def fused(model: nn.Sequential, then: str) -> nn.Module:
    """Every batch norm folded into the convolution before it; what stands in its place is "kept", "new" or "nothing"."""
    model = copy.deepcopy(model)
    for i, norm in enumerate(model):
        if isinstance(norm, nn.BatchNorm2d):
            old = model[i - 1]
            conv = nn.Conv2d(
                old.in_channels, old.out_channels, 3, padding=1, bias=then != "new, without the biases"
            )
            with torch.no_grad():
                scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                conv.weight.copy_(old.weight * scale[:, None, None, None])
                if conv.bias is not None:
                    conv.bias.copy_(norm.bias - norm.running_mean * scale)
            model[i - 1] = conv
            if then != "kept":
                model[i] = nn.BatchNorm2d(old.out_channels)
    return model.eval()


@CASES.add("norms are folded into the weights, and stay or are built again", "ultralytics/yolov3#807")
def folded_twice() -> Iterator[Look]:
    for seed, depth in enumerate((3, 4)):
        torch.manual_seed(seed)
        model, data = fit(convnet(depth=depth), steps=150).eval(), several()
        before = bnprobe.record(model, data)
        trained = fit(copy.deepcopy(model).train(), steps=40)
        yield right(f"{depth} norms, trained on", compared(state_of(model), state_of(trained)))
        for then, words in (
            ("kept", ("act twice",)),
            ("new, without the biases", ("lost with the bias",)),
            ("new", ()),
        ):
            after = fused(model, then)
            both = compared(state_of(model), state_of(after))
            on_data = bnprobe.compare(before, bnprobe.record(after, data))
            for title, told_ in (("files", both), ("data", on_data)):
                title = f"{depth} norms, {then}, {title}"
                if words:
                    yield fault(title, told_, Must("fold-unfinished", words=words))
                else:
                    yield right(title, told_)
        untrained = Must("statistics-never-updated", words=("folded",), severities=ANY)
        yield fault(f"{depth} norms, new, file", checked(state_of(after)), untrained)


@CASES.add("adapters are merged into weights, and the running statistics are those of the base")
def merged() -> Iterator[Look]:
    for seed, rank in enumerate((2, 4)):
        torch.manual_seed(seed)
        base = state_of(fit(convnet(depth=3), steps=100))
        adapted = dict(base)
        for name in ("3.weight", "6.weight"):
            low = torch.randn(16, rank) @ torch.randn(rank, 144) * 0.02
            adapted[name] = base[name] + low.view_as(base[name])
        says = Must("statistics-outdated", words=("merged", "2 norms"), severities=ANY)
        yield fault(f"rank {rank}", compared(base, adapted), says)
        head = {**base, "11.weight": base["11.weight"] * 1.1}
        yield right(f"rank {rank}, the head alone", compared(base, head))


class ScaledBlock(nn.Module):
    """A branch that is multiplied by a vector before it is added."""

    def __init__(self, width: int, init: float, name: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.name = name
        if init:
            self.register_parameter(name, nn.Parameter(torch.full((width,), init)))

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        scale = getattr(self, self.name, None)
        return x + (branch if scale is None else scale * branch)


class Scaled(nn.Module):
    def __init__(self, init: float, name: str) -> None:
        super().__init__()
        self.into, self.blocks = (
            nn.Linear(8, 24),
            nn.Sequential(*(ScaledBlock(24, init, name) for _ in range(4))),
        )
        self.norm, self.out = nn.LayerNorm(24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.blocks(self.into(x)).mean(1)))


@CASES.add("a converter drops the scale of every branch", "huggingface/transformers#29554")
def dropped_scale() -> Iterator[Look]:
    for seed, name in enumerate(("gamma", "layer_scale")):
        torch.manual_seed(seed)
        model = fit(Scaled(0.1, name), sequences, 100).eval()
        state = state_of(model)
        dropped = {k: v for k, v in state.items() if not k.endswith(name)}
        says = Must("tensors-unmatched", words=("scale", name))
        yield fault(f"{name}, file", compared(state, dropped), says)
        without = Scaled(0.0, name).eval()
        without.load_state_dict(dropped)
        data = several(sequences, 4)
        records = bnprobe.record(model, data), bnprobe.record(without, data)
        yield fault(f"{name}, data", bnprobe.compare(*records), says)
        initial = Scaled(1.0, name).eval()
        initial.load_state_dict(dropped, strict=False)
        jumped = Must("tensors-differ", words=(name, "not loaded"))
        yield fault(f"{name}, initial", compared(state, state_of(initial)), jumped)
        taken_in = dict(dropped)
        for k in (k.removesuffix(f".{name}") for k in state if k.endswith(name)):
            scale = state[f"{k}.{name}"]
            taken_in[f"{k}.fc2.weight"] = state[f"{k}.fc2.weight"] * scale[:, None]
            taken_in[f"{k}.fc2.bias"] = state[f"{k}.fc2.bias"] * scale
        yield right(f"{name}, taken in", compared(state, taken_in))


@CASES.add("a wrapper's prefix stands before every name, and one norm lost its statistics")
def prefixed() -> Iterator[Look]:
    for seed, prefix in enumerate(("model.", "net.encoder_q.")):
        torch.manual_seed(seed)
        model = fit(convnet(depth=3), steps=60)
        state = state_of(model)
        other = {f"{prefix}{name}": tensor for name, tensor in state.items()}
        yield right(f"{prefix}, the same", compared(state, other))
        other[f"{prefix}4.running_mean"], other[f"{prefix}4.running_var"] = torch.zeros(16), torch.ones(16)
        yield fault(f"{prefix}, lost", compared(state, other), Must("statistics-lost", "4"))
        yield fault(
            f"{prefix}, lost, in A", compared(other, state), Must("statistics-lost", "4", severities=ANY)
        )


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Sequential(*list(convnet(depth=3))[:-3]), nn.Sequential(
            nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


@CASES.add("keys of the backbone have another prefix, and strict=False leaves them out")
def not_loaded() -> Iterator[Look]:
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = fit(Detector(), steps=100)
        state, data = state_of(model), several()
        yield right(f"seed {seed}, loaded", checked(state))
        other = Detector().eval()
        renamed = {k.replace("backbone.", "backbone.body."): v for k, v in state.items()}
        other.load_state_dict(renamed, strict=False)
        says = Must("affine-untrained", "backbone", ("loaded", "prefix"))
        yield fault(f"seed {seed}, file", checked(state_of(other)), says)
        yield fault(f"seed {seed}, data", told(other, data), says)
        yield fault(
            f"seed {seed}, compared", compared(state, state_of(other)), Must("statistics-lost", "backbone")
        )


@CASES.add("a converter interleaves the channels of rotary embeddings, in norms of queries and keys alone")
def rotary() -> Iterator[Look]:
    for seed, n_heads in enumerate((2, 4)):
        torch.manual_seed(seed)
        size = 8
        state = {f"{i}.norm.weight": 1 + 0.1 * torch.randn(16) for i in range(3)}
        for i in range(3):
            for part in "qk":
                state[f"{i}.attn.{part}_norm.weight"] = 1 + 0.1 * torch.randn(size)
                state[f"{i}.attn.{part}_proj.weight"] = torch.randn(n_heads * size, 16)
        state["head.weight"] = torch.randn(4, 16)
        order = torch.arange(size).view(2, -1).T.flatten()
        norms = {k: v[order] for k, v in state.items() if k.endswith(("q_norm.weight", "k_norm.weight"))}
        heads = {
            k: v.view(n_heads, size, -1)[:, order].reshape(v.shape) for k, v in state.items() if "_proj" in k
        }
        tuned = {"head.weight": state["head.weight"] * 1.01}
        must = Must("channels-reordered", r"[qk]_norm", ("weights before the norm did not change",))
        title = f"{n_heads} heads"
        yield fault(f"{title}, γ alone, head trained on", compared(state, {**state, **norms, **tuned}), must)
        yield right(f"{title}, with the weights", compared(state, {**state, **norms, **heads, **tuned}))
