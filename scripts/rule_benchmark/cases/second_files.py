"""More files and comparisons, written before the rules for them were tried on them: what converters and pruning do."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import bnprobe
from scripts.rule_benchmark.cases.case import Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.comparisons import language_model
from scripts.rule_benchmark.cases.nets import Batch, compared, convnet, fit, several

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
