"""A third round on live recordings: bands of satellites, norms per domain, adapters, categories, films, recurrent layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, classes, convnet, fit, images, several, told

CASES = Cases("third round, live")

REFLECTANCE = torch.tensor([0.12, 0.06, 0.2, 0.15, 0.3, 0.45, 0.38, 0.25])
CONSTANTS = tuple(REFLECTANCE.tolist()), tuple((0.3 * REFLECTANCE).tolist())
MEAN, STD = (torch.tensor(values).view(1, 8, 1, 1) for values in CONSTANTS)


def scenes(n: int = 32) -> Batch:
    """Reflectances in eight bands (n, 8, 12, 12), in large patches by class."""
    y = torch.randint(0, 4, (n,))
    centre = torch.randn(4, 8, 1, 1, generator=torch.Generator().manual_seed(4))
    light = F.interpolate(torch.randn(n, 1, 3, 3), size=12, mode="bilinear")
    cover = F.interpolate(torch.randn(n, 8, 4, 4), size=12, mode="bilinear")
    return MEAN + STD * (0.6 * (light + cover + centre[y]) + 0.2 * torch.randn(n, 8, 12, 12)), y


def normalized(x: Tensor) -> Tensor:
    return (x - MEAN) / STD


def normalized_scenes() -> Batch:
    x, y = scenes()
    return normalized(x), y


def of_bands() -> nn.Module:
    """A network trained on them."""
    torch.manual_seed(0)
    model = convnet(depth=3)
    model[0] = nn.Conv2d(8, 16, 3, padding=1, bias=False)
    return fit(model, normalized_scenes, 150).eval()


@CASES.add("bands of a satellite in another order, empty, or not scaled")
def bands() -> Iterator[Look]:
    model = of_bands()
    data = [x for x, _ in several(scenes)]
    of = partial(told, model, normalize=CONSTANTS)
    yield right("as in training", of(map(normalized, data)))
    for title, words, to in (
        ("reversed", "7, 6, 5, 4, 3, 2, 1, 0", lambda x: x.flip(1)),
        (
            "one is empty",
            "channel 5 alone is missing or empty",
            lambda x: x * (torch.arange(8) != 5).view(8, 1, 1),
        ),
        (
            "one is not scaled",
            "channel 5 alone has another range",
            lambda x: x * (1 + 9999.0 * (torch.arange(8) == 5)).view(8, 1, 1),
        ),
    ):
        must = Must("input-not-as-trained", "^1$", (words,))
        yield fault(title, of([normalized(to(x)) for x in data]), must)


class PerDomain(nn.Module):
    """A batch norm for each of two domains."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms, self.domain = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2)), 0

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norms[self.domain](x)
        return found


def go_to(model: nn.Module, domain: int) -> nn.Module:
    for module in model.modules():
        if isinstance(module, PerDomain):
            module.domain = domain
    return model


@CASES.add("a norm for each domain, of which one was never trained")
def domains() -> Iterator[Look]:
    def other() -> Batch:
        x, y = images()
        return 0.6 * x + 0.8, y

    for both in (True, False):
        torch.manual_seed(0)
        model = convnet(depth=3, norm=PerDomain)
        for _ in range(10):
            fit(go_to(model, 0), steps=10)
            if both:
                fit(go_to(model, 1), other, 10)
        report = told(go_to(model.eval(), 1), several(other))
        if both:
            yield right("both were", report)
        else:
            never = Must(
                "statistics-never-updated", r"norms\.1", ("others of the same lists",), ("critical",)
            )
            yield fault("one was", report, never)


@CASES.add("adapters are trained with norms in train mode, and saved with their buffers")
def adapters() -> Iterator[Look]:
    torch.manual_seed(0)
    base = fit(convnet(depth=3), steps=100).eval()
    model = copy.deepcopy(base).train().requires_grad_(False)
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            layer.weight.requires_grad_(True)

    def batch() -> Batch:
        x, y = images()
        return 1.5 * x + 0.3, y

    merged = fit(model, batch, 40, lr=1e-3).eval()
    data = several(batch)
    yield right("merged", bnprobe.compare(bnprobe.record(base, data), bnprobe.record(merged, data)))
    head = copy.deepcopy(base).train().requires_grad_(False)
    head[-1].requires_grad_(True)
    moved = bnprobe.record(fit(head, batch, 40).eval(), data)
    yield fault(
        "a head alone", bnprobe.compare(bnprobe.record(base, data), moved), Must("frozen-statistics-moved")
    )


class Categories(nn.Module):
    """One of twelve categories and six numbers, normalized, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm1d(18)
        self.rest = nn.Sequential(
            nn.Linear(18, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        categories = F.one_hot(x[:, 0].long(), 12).float()
        found: Tensor = self.rest(self.first(torch.cat([categories, x[:, 1:]], 1)))
        return found


@CASES.add("categories that training did not hold")
def categories() -> Iterator[Look]:
    def batch(n_categories: int = 10) -> Batch:
        c, z = torch.randint(0, n_categories, (64,)), torch.randn(64, 6)
        return torch.cat([c[:, None].float(), z], 1), (z[:, 0] > 0).long() + 2 * (c % 2)

    torch.manual_seed(0)
    model = fit(Categories(), batch, 300).eval()
    yield right("as in training", told(model, several(batch, 8)))
    must = Must("variance-below-eps", "first", ("constant in training", "categor"))
    report = told(model, several(partial(batch, 12), 8))
    yield fault("two more", report, must)


@CASES.add("an evaluation on one film")
def one_film() -> Iterator[Look]:
    def batch(film: Tensor | None = None) -> Batch:
        x, y = images(centre=classes(0.5))
        return x + 2 * (torch.randn(len(x), 3, 1, 1) if film is None else film), y

    torch.manual_seed(3)
    film = torch.randn(1, 3, 1, 1)
    model = fit(convnet(depth=3), batch, 120, lr=1e-3).eval()
    yield right("many", told(model, several(batch, 8)))
    yield fault(
        "one", told(model, several(partial(batch, film), 8)), Must("data-shifted", "^1$", ("one film",))
    )


class Sequence(nn.Module):
    """A recurrent layer of 16 steps and features, a batch norm, and a mean over time."""

    def __init__(self, layer: type[nn.RNNBase], turned: bool) -> None:
        super().__init__()
        self.layer, self.turned = layer(6, 16, batch_first=True), turned
        self.norm, self.out = nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)[0]
        h = self.norm(h.transpose(1, 2)).transpose(1, 2) if self.turned else self.norm(h)
        found: Tensor = self.out(h.mean(1))
        return found


@CASES.add("a batch norm over the steps of a GRU, outside a GPU")
def recurrent() -> Iterator[Look]:
    def batch() -> Batch:
        y = torch.randint(0, 4, (32,))
        return torch.randn(32, 16, 6) + 0.5 * y[:, None, None], y

    for turned in (True, False):
        torch.manual_seed(0)
        report = told(fit(Sequence(nn.GRU, turned), batch, 60).eval(), several(batch))
        if turned:
            yield right("transposed", report)
        else:
            yield fault("as it is", report, Must("positions-as-channels", "norm", ("recurrent",), ANY))
