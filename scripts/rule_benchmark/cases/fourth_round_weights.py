"""A fourth round, in the weights: dropped branches, checkpoints of two moments, inflation, merging, quantization."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from scripts.rule_benchmark.cases.case import ANY, SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, classes, convnet, fit, images, several, told

CASES = Cases("fourth round, weights")


class Branch(nn.Module):
    """x plus a branch, which training drops for half of the samples."""

    def __init__(self, width: int, divided: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.divided = divided

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm2(self.second(F.relu(self.norm(self.first(x)))))
        if self.training:
            branch = branch * (torch.rand(len(x), 1, 1, 1) < 0.5) * (2 if self.divided else 1)
        return F.relu(x + branch)


@CASES.add("branches that training drops are not divided by the share that is kept")
def stochastic_depth() -> Iterator[Look]:
    for divided in (True, False):
        torch.manual_seed(0)
        stem = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        branches = (Branch(16, divided) for _ in range(5))
        model = nn.Sequential(*stem, *branches, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4))
        report = told(fit(model, steps=100).eval(), several())
        if divided:
            yield right("divided", report)
        else:
            yield fault(
                "not divided",
                report,
                Must("data-shifted", words=("stochastic depth", "do this"), severities=ANY),
            )


@CASES.add("running statistics of an earlier checkpoint")
def earlier() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=4), steps=60)
    early = {name: b.clone() for name, b in model.named_buffers() if "running" in name}
    fit(model, steps=150, lr=1e-2).eval()
    yield right("of one moment", told(model, several()))
    model.load_state_dict(early, strict=False)
    must = Must("data-shifted", words=("earlier checkpoint", "^(?!.*Check the preprocessing first)"))
    yield fault("earlier", told(model, several()), must)


def films(n: int = 16) -> Batch:
    """Films of six frames that hardly differ, (n, 3, 6, 8, 8)."""
    x, y = images(n)
    return x[:, :, None] + 0.1 * torch.randn(n, 3, 6, 8, 8), y


@CASES.add("filters of pictures are repeated over time, and not divided by their number")
def inflated() -> Iterator[Look]:
    torch.manual_seed(0)
    flat = fit(convnet(depth=2), steps=100).eval()
    for divided in (True, False):
        layers: list[nn.Module] = []
        for layer in flat[:6]:
            if isinstance(layer, nn.Conv2d):
                deep = nn.Conv3d(
                    layer.in_channels, 16, (3, 3, 3), padding=1, padding_mode="zeros", bias=False
                )
                deep.padding = (0, 1, 1)
                with torch.no_grad():
                    deep.weight.copy_(layer.weight[:, :, None] / (3 if divided else 1))
                layers.append(deep)
            elif isinstance(layer, nn.BatchNorm2d):
                deep_norm = nn.BatchNorm3d(16)
                deep_norm.load_state_dict(layer.state_dict())
                layers.append(deep_norm)
            else:
                layers.append(layer)
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool3d((1, 2, 2)), nn.Flatten(), flat[-1]).eval()
        report = told(model, several(films))
        yield right("divided", report) if divided else fault("not divided", report, Must(SHIFTED, "^1$"))


@CASES.add("filters of three colors are averaged for grey pictures")
def averaged_colors() -> Iterator[Look]:
    def grey() -> Batch:
        x, y = images(centre=classes()[:, :1])
        return x, y

    def as_colors() -> Batch:
        x, y = grey()
        return x.expand(-1, 3, -1, -1), y

    torch.manual_seed(0)
    model = fit(convnet(depth=3), as_colors, 100).eval()
    for summed in (True, False):
        one = copy.deepcopy(model)
        one[0] = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        weight = model[0].weight.detach()
        one[0].weight.data = weight.sum(1, keepdim=True) if summed else weight.mean(1, keepdim=True)
        report = told(one, several(grey))
        yield right("summed", report) if summed else fault("averaged", report, Must(SHIFTED, "^1$"))


@CASES.add("a student takes every second layer of its teacher, statistics included")
def every_second() -> Iterator[Look]:
    torch.manual_seed(0)
    teacher = fit(convnet(depth=5), steps=120).eval()
    student = nn.Sequential(*teacher[:3], *teacher[6:9], *teacher[12:]).eval()
    yield right("the teacher", told(teacher, several()))
    yield fault(
        "the student",
        told(student, several()),
        Must("data-shifted", words=("part from another file|changed",)),
    )
    fit(student.train(), steps=100).eval()
    yield right("the student, trained", told(student, several()))


@CASES.add("the vectors of a spectral norm are not loaded")
def spectral() -> Iterator[Look]:
    torch.manual_seed(0)

    def built() -> nn.Sequential:
        model = convnet(depth=3)
        for layer in model:
            if isinstance(layer, nn.Conv2d):
                spectral_norm(layer)
        return model

    model = fit(built(), steps=100).eval()
    yield right("loaded", told(model, several()))
    other, state = built(), model.state_dict()
    other.load_state_dict({k: v for k, v in state.items() if not k.endswith(("._u", "._v"))}, strict=False)
    yield fault("left out", told(other.eval(), several()), Must(SHIFTED, "^1$"))


@CASES.add("a converter stores standard deviations as variances")
def roots() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=4), lambda: (lambda b: (4 * b[0], b[1]))(images()), 120).eval()
    data = [(4 * x, y) for x, y in several()]
    yield right("variances", told(model, data))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.sqrt_()
    yield fault(
        "their roots", told(model, data), Must("data-shifted|statistics-transformed|input-not-as-trained")
    )


@CASES.add("an adapter is merged into the weights, and still added to them")
def merged_twice() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=4), steps=60)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def batch() -> Batch:
        x, y = images()
        return x.flip(3), y

    fit(model, batch, 100, lr=1e-2).eval()
    yield right("once", told(model, several(batch)))
    for name, p in model.named_parameters():
        if p.dim() == 4:
            p.data += p.data - before[name]
    yield fault("twice", told(model, several(batch)), Must("data-shifted", words=("weights",)))


class Clamp(nn.Module):
    """Activations cut off at the largest value that calibration saw."""

    def __init__(self) -> None:
        super().__init__()
        self.top = float("inf")

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=self.top)


@CASES.add("ranges of activations are calibrated on blank pictures")
def calibrated() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=4, between=lambda: [Clamp()]), steps=120).eval()
    data = several()
    for title, x in (("on data", data[0][0]), ("on blanks", 0.02 * torch.randn(8, 3, 8, 8))):
        now = copy.deepcopy(model)
        for layer in now:
            x = layer(x)
            if isinstance(layer, Clamp):
                layer.top = float(x.detach().quantile(0.999))
        report = told(now, data)
        must = Must("data-shifted", "^5$", ("between layer 1",))
        yield right(title, report) if title == "on data" else fault(title, report, must)


@CASES.add("weights are rounded to four bits with one step for a whole layer")
def rounded() -> Iterator[Look]:
    torch.manual_seed(0)
    model = convnet(depth=3)
    with torch.no_grad():  # channels of very different size, as weight decay leaves them beside norms
        for layer in model:
            if isinstance(layer, nn.Conv2d):
                layer.weight *= torch.logspace(-2.5, 0, len(layer.weight)).view(-1, 1, 1, 1)
    fit(model, steps=120, lr=1e-4).eval()
    data = several()
    for title, dims in (("a step for each channel", (1, 2, 3)), ("one step", (0, 1, 2, 3))):
        now = copy.deepcopy(model)
        for layer in now:
            if isinstance(layer, nn.Conv2d):
                bits = 127 if title.endswith("channel") else 7
                step = layer.weight.detach().abs().amax(dims, keepdim=True) / bits
                layer.weight.data = (layer.weight.data / step).round() * step
        must = Must(".*shifted|channels-.*|filters-.*|constant.*", "", (), ANY)
        report = told(now, data)
        yield right(title, report) if title.endswith("channel") else fault(title, report, must)


@CASES.add("new norms take the places of frozen ones, with eps and momentum alone")
def replaced() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=3), steps=100).eval()
    yield right("as it was", told(model, several()))
    swapped = copy.deepcopy(model)
    for i in (4, 7):
        old = model[i]
        new = nn.BatchNorm2d(old.num_features, old.eps, old.momentum).eval()
        new.weight.data, new.bias.data = old.weight.data, old.bias.data
        swapped[i] = new
    must = Must("statistics-never-updated", "4", ("reset|never updated",), ("critical",))
    yield fault("statistics left out", told(swapped, several()), must)
