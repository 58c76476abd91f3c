"""Checkpoints that do not hold what they should."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.models import demo
from scripts.rule_benchmark.cases.case import Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import checked

CASES = Cases("files")


def refused(state: dict[str, Any]) -> Any:
    """Findings of the file; the error's text as one critical finding where it is refused."""
    try:
        return checked(state)
    except bnprobe.BnprobeError as error:
        row = {
            "rule": "refused",
            "severity": "critical",
            "layer": "",
            "says": str(error),
            "because": "",
            "do": "",
        }
        return SimpleNamespace(findings=pd.DataFrame([row]))


@CASES.add("shards were not gathered before saving")
def empty_tensors() -> Iterator[Look]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    whole = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).state_dict()
    says = Must(".*", words=("empty|size 1|one value", "shard|gather"))
    for n in (0, 1):
        yield fault(f"size {n}", refused({k: v.flatten()[:n].clone() for k, v in whole.items()}), says)
    mixed = {k: (v if "norm" in k else v.flatten()[:0]) for k, v in whole.items()}
    yield fault("matrices empty", refused(mixed), says)
    state = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).state_dict()
    state["1.weight"] = torch.empty(0)
    yield fault("gamma empty", refused(state), says)


TRANSFORMED = {
    "σ": ("running_var", Tensor.sqrt),
    "1/σ, as cuDNN saves it": ("running_var", lambda var: (var + 1e-5).rsqrt()),
    "1/σ²": ("running_var", Tensor.reciprocal),
    "−mean": ("running_mean", Tensor.neg),
}
"""What other frameworks store, as a converter copies it: the vector, and what became of it."""


@CASES.add("a converter copies what another framework stores in place of mean and variance")
def transformed() -> Iterator[Look]:
    state = demo().model.state_dict()
    yield right("as it is", checked(state))
    for title, (vector, made) in TRANSFORMED.items():
        other = {name: made(tensor) if name.endswith(vector) else tensor for name, tensor in state.items()}
        words = ("opposite sign" if vector == "running_mean" else f"hold .*{title.partition(',')[0]}, not",)
        yield fault(title, checked(other), Must("statistics-transformed", words=words))


class PerDomain(nn.Module):
    """Two layers, each with an RMS norm for each of three domains."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.norms = nn.ModuleList(nn.ModuleList(nn.RMSNorm(8) for _ in range(3)) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor, domain: int) -> Tensor:
        for linear, norms in zip(self.linear, self.norms, strict=True):
            x = norms[domain](linear(x)).relu()
        y: Tensor = self.head(x)
        return y


@CASES.add("of a norm for each domain one was trained")
def per_domain() -> Iterator[Look]:
    for domains in ((0,), (0, 1, 2)):
        torch.manual_seed(0)
        model = PerDomain()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(60):
            y = torch.randint(0, 4, (32,))
            x = torch.randn(32, 8) + 2 * nn.functional.one_hot(y, 8)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x, domains[step % len(domains)]), y).backward()
            optimizer.step()
        found, title = checked(model.state_dict()), f"{len(domains)} of 3 domains"
        words = ("same list", "4 norms")
        yield (
            right(title, found)
            if len(domains) == 3
            else fault(title, found, Must("affine-untrained", words=words))
        )
