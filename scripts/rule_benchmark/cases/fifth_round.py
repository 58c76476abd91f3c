"""A fifth round: signals of several sensors, tables and films in another unit or on another scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.rule_benchmark.cases.case import SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.fourth_round_inputs import NOT_GROUPS
from scripts.rule_benchmark.cases.nets import Batch, convnet, fit, images, several, told

CASES = Cases("fifth round")

NOT_BETWEEN = "^(?!.*(look between|one film, one scene))"
"""Neither weights nor samples of one kind, where inputs were changed."""


def sensors(n: int = 32) -> Batch:
    """What eight electrodes measure, (n, 8, 100), with a mean course for each class."""
    course = torch.randn(4, 8, 100, generator=torch.Generator().manual_seed(5)) * 0.7
    y = torch.randint(0, 4, (n,))
    return course[y] + torch.randn(n, 8, 100) + 0.4, y


def recorder() -> nn.Sequential:
    """Two layers over time; between them an average, which takes away what varies and leaves what moved."""
    return nn.Sequential(
        nn.Conv1d(8, 24, 9, padding=4, bias=False), nn.BatchNorm1d(24), nn.ELU(), nn.AvgPool1d(4),
        nn.Conv1d(24, 32, 9, padding=4), nn.BatchNorm1d(32), nn.ELU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


def table(n: int = 64) -> Batch:
    """Ten measurements, (n, 10)."""
    center = torch.randn(4, 10, generator=torch.Generator().manual_seed(6)) * 0.7
    y = torch.randint(0, 4, (n,))
    return center[y] + torch.randn(n, 10) + 0.4, y


def reader() -> nn.Sequential:
    """Two layers over measurements."""
    return nn.Sequential(
        nn.Linear(10, 40), nn.BatchNorm1d(40), nn.ReLU(),
        nn.Linear(40, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 4),
    )  # fmt: skip


def changed(
    model: nn.Module,
    batch: Callable[[], Batch],
    steps: int,
    *changes: tuple[str, Callable[[Tensor], Tensor], Must],
) -> Iterator[Look]:
    """A network on inputs as in training, and on others."""
    torch.manual_seed(0)
    fit(model, batch, steps).eval()
    data = several(batch)
    yield right("as in training", told(model, data))
    for title, change, must in changes:
        yield fault(title, told(model, [(change(x), y) for x, y in data]), must)


def times(gain: str, shifted: str = "") -> Must:
    """Inputs that are told to be multiplied by this, at the first norm."""
    words = (f"multiplied by {gain}", *filter(None, (shifted,)), "unit", NOT_BETWEEN)
    return Must("input-not-as-trained", "^1$", words)


@CASES.add("signals of eight electrodes in another unit")
def electrodes() -> Iterator[Look]:
    yield from changed(
        recorder(),
        sensors,
        150,
        ("microvolts for volts", lambda x: 1e6 * x, times(r"(9\.|1(\.0\d*)?e)")),
        ("volts for millivolts", lambda x: x / 1000, times(r"0\.00(09|1)")),
        ("scaled and shifted", lambda x: 3 * x + 1, times(r"(2\.9|3)", "shifted by a constant")),
        ("other constants", lambda x: (x - 0.8) / 1.3, Must(SHIFTED, words=(NOT_BETWEEN, NOT_GROUPS))),
    )


@CASES.add("all measurements of a table on another scale")
def measurements() -> Iterator[Look]:
    yield from changed(
        reader(),
        table,
        200,
        ("a thousand times as large", lambda x: 1000 * x, times(r"(9\d\d|1(\.0\d*)?e|1,?0\d\d)")),
        ("a thousandth", lambda x: x / 1000, times(r"0\.00(09|1)")),
        ("scaled and shifted", lambda x: 3 * x + 1, times(r"(2\.9|3)", "shifted by a constant")),
    )


MEAN, STD = torch.tensor([0.432, 0.394, 0.376]), torch.tensor([0.228, 0.221, 0.217])


@CASES.add("frames of a film that are not prepared as in training")
def film() -> Iterator[Look]:
    def frames(n: int = 16) -> Batch:
        y = torch.randint(0, 4, (n,))
        light = F.interpolate(torch.rand(n, 1, 3, 3, 3), size=(4, 12, 12), mode="trilinear")
        x = 0.15 + 0.3 * torch.rand(n, 3, 1, 1, 1) + 0.5 * light + 0.04 * y.view(-1, 1, 1, 1, 1)
        return (x + 0.05 * torch.randn(n, 3, 4, 12, 12)).clamp(0, 1), y

    def normalized(x: Tensor) -> Tensor:
        return (x - MEAN.view(3, 1, 1, 1)) / STD.view(3, 1, 1, 1)

    def batch() -> Batch:
        x, y = frames()
        return normalized(x), y

    model = nn.Sequential(
        nn.Conv3d(3, 24, 3, padding=1, bias=False), nn.BatchNorm3d(24), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip
    torch.manual_seed(0)
    fit(model, batch, 80).eval()
    data = several(frames)
    yield right("as in training", told(model, [(normalized(x), y) for x, y in data]))
    raw = Must("input-not-as-trained", "^1$", ("pixels of 0 to 255",))
    yield fault("pixels of 0 to 255", told(model, [(255 * x, y) for x, y in data]), raw)
    plain = Must("input-not-as-trained", "^1$", ("without subtracting the mean",))
    yield fault("not normalized", told(model, data), plain)


@CASES.add("an eps much larger than in training")
def large_eps() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=5), images, 150).eval()
    data = several(images)
    yield right("as in training", told(model, data))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1
    yield fault("0.1 for 0.00001", told(model, data), Must(SHIFTED, words=("eps is 0.1",)))
