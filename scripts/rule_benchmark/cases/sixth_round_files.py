"""The sixth round, in files: kernels and channels that a converter left in another layout, where all shapes agree."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scripts.rule_benchmark.cases.case import Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, checked, convnet, fit, images
from scripts.rule_benchmark.cases.second_files import VECTORS, State, state_of

CASES = Cases("sixth round, files")

MISPLACED = "statistics-misplaced"


def measurements(n: int = 64) -> Batch:
    """Twelve measurements, (n, 12)."""
    y = torch.randint(0, 4, (n,))
    center = torch.randn(4, 12, generator=torch.Generator().manual_seed(6)) * 0.7
    return center[y] + torch.randn(n, 12), y


def dense() -> nn.Sequential:
    """Five layers over measurements, as wide as each other."""
    layers: list[nn.Module] = []
    for i in range(5):
        layers += [nn.Linear(12 if i == 0 else 32, 32), nn.BatchNorm1d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 4))


def of_square(state: State) -> State:
    """Square matrices, or kernels, whose outputs and inputs were exchanged."""
    return {
        name: t.transpose(0, 1).contiguous() if t.dim() > 1 and t.shape[0] == t.shape[1] else t
        for name, t in state.items()
    }


def viewed(weight: Tensor) -> Tensor:
    """Numbers as TensorFlow keeps them, (H, W, inputs, outputs), in the shape (outputs, inputs, H, W)."""
    return weight.permute(2, 3, 1, 0).contiguous().view(weight.shape)


@CASES.add("a converter does not transpose square matrices")
def matrices() -> Iterator[Look]:
    torch.manual_seed(0)
    state = state_of(fit(dense(), measurements, 250).eval())
    yield right("as it is", checked(state))
    other = of_square(state)
    must = Must(MISPLACED, words=("are transposed", "'3', '6', '9', '12'"), severities=("critical",))
    yield fault("all", checked(other), must)
    one = Must(MISPLACED, "^7$", ("are transposed",), ("critical",))
    yield fault("one", checked({**state, "6.weight": other["6.weight"]}), one)


@CASES.add(
    "a converter exchanges outputs and inputs of kernels, or reshapes them where it had to transpose them"
)
def kernels() -> Iterator[Look]:
    torch.manual_seed(0)
    state = state_of(fit(convnet(width=24, depth=5), images, 100).eval())
    yield right("as it is", checked(state))
    yield fault("exchanged", checked(of_square(state)), Must(MISPLACED, words=("are transposed",)))
    other = {name: viewed(t) if t.dim() == 4 else t for name, t in state.items()}
    yield fault("reshaped", checked(other), Must(MISPLACED, words=("were reshaped",)))


@CASES.add("a converter puts the channels of norms in groups of another order, and not those of the kernels")
def interleaved() -> Iterator[Look]:
    torch.manual_seed(0)
    state, order = state_of(fit(convnet(width=24, depth=5), images, 100).eval()), torch.arange(24).view(4, 6)
    paths = [str(3 * i + 1) for i in range(5)]

    def of(*paths: str) -> State:
        there = {f"{path}.{name}" for path in paths for name in VECTORS}
        return {name: t[order.t().flatten()] if name in there else t for name, t in state.items()}

    yield fault("one norm", checked(of("4")), Must(MISPLACED, "^4$", ("another order",)))
    words = ("another order", "Do not re-estimate")
    yield fault("every norm", checked(of(*paths)), Must(MISPLACED, "^$", words))
