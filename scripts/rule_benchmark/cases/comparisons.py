"""Two networks, or one at two times or in two modes, laid side by side."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import checked, compared, convnet, fit, images, several, told

CASES = Cases("comparison")


@CASES.add("eps of another framework")
def other_eps() -> Iterator[Look]:
    torch.manual_seed(0)
    a = convnet()
    with torch.no_grad():
        a[0].weight *= 0.003
    a[0].weight.requires_grad_(False)
    fit(a, steps=80, lr=0.01, make=torch.optim.SGD, momentum=0.9).eval()
    a[0].weight.requires_grad_(True)
    b = copy.deepcopy(a)
    for m in b.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-3
    data = several(n=4)
    records = bnprobe.record(a, data), bnprobe.record(b, data)
    look = fault("eps 1e-3 for 1e-5", bnprobe.compare(*records), Must("norm-replaced", words=("eps",)))
    yield look
    yield right("the same twice", bnprobe.compare(records[0], bnprobe.record(a, data)))


class Logits(nn.Module):
    """A language model that is called with token ids and gives logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens).logits
        return logits


def sentences() -> Tensor:
    """Arithmetic progressions modulo 63, (64, 24)."""
    steps, starts = torch.randint(1, 7, (64, 1)), torch.randint(0, 50, (64, 1))
    return (torch.arange(24)[None] * steps + starts) % 63 + 1


def language_model(kind: str, steps: int, lr: float, **config: Any) -> tuple[nn.Module, Tensor]:
    """A tiny Llama or Gemma that has learned progressions, and sentences."""
    import transformers

    sizes = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "pad_token_id": 0,
    }  # fmt: skip
    made = getattr(transformers, f"{kind}ForCausalLM")(
        getattr(transformers, f"{kind}Config")(**sizes, **config)
    )
    x = sentences()
    optimizer = torch.optim.Adam(made.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        made(input_ids=x, labels=x).loss.backward()
        optimizer.step()
    return made.eval(), x


@CASES.add("eps of the other release of a converter", needs="transformers")
def rms_eps() -> Iterator[Look]:
    torch.manual_seed(0)
    a, x = language_model("Llama", 60, 3e-4, num_hidden_layers=2, rms_norm_eps=1e-5, initializer_range=0.003)
    b = copy.deepcopy(a)
    for m in b.modules():
        if hasattr(m, "variance_epsilon"):
            m.variance_epsilon = 1e-6
    parts = [x[i::4] for i in range(4)]
    one, two = bnprobe.record(Logits(a), parts), bnprobe.record(Logits(b), parts)
    yield fault("compare", bnprobe.compare(one, two), Must("norm-replaced", words=("eps",)))
    yield right("as it was", bnprobe.report(one))


@CASES.add("a merge adds one to every gamma of a (1 + w) model", needs="transformers")
def gemma() -> Iterator[Look]:
    torch.manual_seed(0)
    base, x = language_model("Gemma", 60, 5e-3, num_hidden_layers=3, num_key_value_heads=1, head_dim=8)
    merged = copy.deepcopy(base)
    with torch.no_grad():
        for name, p in merged.named_parameters():
            if "norm" in name:
                p += 1
    plus_one = Must(".*", words=(r"\b1\b|one", "every|all"))
    yield right("file of the base", checked(base.state_dict()))
    yield right("report on the base", told(Logits(base), [x[:32]]))
    yield fault("files", compared(base.state_dict(), merged.state_dict()), plus_one)
    records = bnprobe.record(Logits(base), [x[:32]]), bnprobe.record(Logits(merged), [x[:32]])
    yield fault("recordings", bnprobe.compare(*records), plus_one)


@CASES.add("a layer scale is renamed and lost on loading", needs="timm")
def layer_scale() -> Iterator[Look]:
    import timm

    torch.manual_seed(0)

    def make() -> nn.Module:
        made: nn.Module = timm.create_model(
            "convnext_atto", num_classes=4, depths=(1, 1, 2, 1), dims=(16, 32, 48, 64)
        )
        return made

    centre = torch.randn(4, 3, 4, 4)

    def batch() -> tuple[Tensor, Tensor]:
        y = torch.randint(0, 4, (8,))
        return torch.randn(8, 3, 64, 64) + F.interpolate(centre[y], size=64), y

    a = make()
    with torch.no_grad():
        for name, p in a.named_parameters():
            if name.endswith(".gamma"):
                p.fill_(0.3)
    fit(a, batch, 40, make=torch.optim.AdamW, lr=2e-3).eval()
    b = make().eval()
    b.load_state_dict({k.replace("gamma", "weight"): v for k, v in a.state_dict().items()}, strict=False)
    data = several(batch, 5)
    yield right("saved", told(a, data))
    yield fault("loaded", told(b, data), Must("branch-off"))
    lost = compared(a.state_dict(), b.state_dict())
    yield fault(
        "files",
        lost,
        Must(".*", words=("tensors .*norms|gamma",), severities=ANY),
    )


@CASES.add("modes of a correct network")
def modes() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet())
    data = several()
    in_training = bnprobe.record(model, data, loss=F.cross_entropy)
    yield right("modes", bnprobe.compare(bnprobe.record(model.eval(), data), in_training))


@CASES.add("two epochs of one training")
def two_epochs() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=3), steps=60)
    data = several()
    first = bnprobe.record(model.eval(), data)
    fit(model.train(), steps=60)
    yield right("compare", bnprobe.compare(first, bnprobe.record(model.eval(), data)))


@CASES.add("two unrelated trainings")
def unrelated() -> Iterator[Look]:
    records = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = fit(convnet(depth=3)).eval()
        torch.manual_seed(5)
        records.append(bnprobe.record(model, several(lambda: images(64))))
    both = bnprobe.compare(*records)
    must = Must(".*", words=("channels? .*(correspond|match)",), severities=ANY)
    yield Look("compare", both.findings, (must,))


@CASES.add("a group norm is built with another number of groups")
def other_groups() -> Iterator[Look]:
    torch.manual_seed(13)
    model = fit(convnet(depth=3, norm=lambda width: nn.GroupNorm(4, width))).eval()
    other, data = copy.deepcopy(model), several()
    yield right("the same", bnprobe.compare(bnprobe.record(model, data), bnprobe.record(other, data)))
    for norm in (m for m in other.modules() if isinstance(m, nn.GroupNorm)):
        norm.num_groups = 8
    both = bnprobe.compare(bnprobe.record(model, data), bnprobe.record(other, data))
    yield fault("8 for 4", both, Must("norm-replaced", "1", ("A has 4 groups of channels, B 8",)))
