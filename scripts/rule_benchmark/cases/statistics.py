"""Running statistics that do not describe the data, each for another reason."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, checked, classes, convnet, fit, images, several, told

CASES = Cases("running statistics")


def recalibrated(model: nn.Module, batch: object, steps: int = 30) -> nn.Module:
    """Its running statistics are a plain average over `steps` batches."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            m.momentum = None
    model.train()
    with torch.no_grad():
        for _ in range(steps):
            model(batch()[0])  # type: ignore[operator]
    return model.eval()


@CASES.add("every batch holds one class")
def sorted_folder() -> Iterator[Look]:
    centre = classes(0.3)
    for shuffled in (False, True):
        torch.manual_seed(0)
        y = torch.arange(4).repeat_interleave(128)
        x = torch.randn(len(y), 3, 8, 8) + centre[y] + (y - 1.5)[:, None, None, None] * 2
        if shuffled:
            order = torch.randperm(len(y))
            x, y = x[order], y[order]
        batches = list(zip(x.split(32), y.split(32), strict=True))
        stream = iter(batches * 8)
        model = fit(
            convnet(),
            lambda stream=stream: next(stream),
            8 * len(batches),
            lr=0.02,
            make=torch.optim.SGD,
            momentum=0.9,
        )
        in_training = told(model, batches, loss=F.cross_entropy)
        in_evaluation = told(model.eval(), batches)
        if shuffled:
            yield right("shuffled, training", in_training)
            yield right("shuffled, evaluation", in_evaluation)
        else:
            named = Must(".*", words=("one class|single class", "shuffle"))
            yield fault("training", in_training, named)
            yield fault("evaluation", in_evaluation, named)


@CASES.add("Caffe's running sums are not divided by their scale factor")
def caffe() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(), steps=80, lr=0.1, make=torch.optim.SGD, momentum=0.9).eval()
    data = several()
    yield right("file", checked(model.state_dict()))
    yield right("data", told(model, data))
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean *= 999.98
                m.running_var *= 999.98
    says = Must(
        ".*", words=("one common factor|the same factor|common factor", r"1,?000|999|\b10\d\d\b|\b9\d\d\b")
    )
    yield fault("file, not divided", checked(model.state_dict()), says)
    yield fault("data, not divided", told(model, data), says)


@CASES.add("dropout right before a linear layer and a batch norm")
def dropout() -> Iterator[Look]:
    weights = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))

    def batch() -> Batch:
        x = torch.randn(64, 20) + 1.5
        return x, torch.tanh(x @ weights / 3) * 3

    def block(a: int, b: int, p: float) -> list[nn.Module]:
        return [nn.Dropout(p), nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()]

    for p in (0.5, 0.0):
        torch.manual_seed(0)
        model = nn.Sequential(*block(20, 64, p), *block(64, 64, p), *block(64, 64, p), nn.Linear(64, 1))
        fit(model, batch, 300, F.mse_loss)
        data = several(batch, 8)
        in_training = bnprobe.record(model, data, loss=F.mse_loss)
        in_evaluation = bnprobe.record(model.eval(), data)
        if p:
            named = Must(SHIFTED + "|.*dropout.*", words=("dropout",))
            yield fault("evaluation", bnprobe.report(in_evaluation), named)
            yield fault("modes", bnprobe.compare(in_evaluation, in_training), Must(".*", words=("dropout",)))
        else:
            yield right("no dropout, evaluation", bnprobe.report(in_evaluation))


@CASES.add("federated averaging keeps one client's buffers, or averages them")
def federated() -> Iterator[Look]:
    centre = classes()

    def client(i: int, n: int = 64) -> Batch:
        x, y = images(n, centre * 0.8)
        return x + (i - 1.5) * 1.2, y

    def mean_of(models: list[nn.Module], buffers: bool) -> nn.Module:
        mean = copy.deepcopy(models[0])
        states = [m.state_dict() for m in models]
        names = dict(mean.named_parameters()) | (dict(mean.named_buffers()) if buffers else {})
        with torch.no_grad():
            for name, tensor in names.items():
                tensor.copy_(torch.stack([state[name].float() for state in states]).mean(0))
        return mean

    def everyone(n: int = 64) -> Batch:
        x, y = zip(*(client(i, n) for i in range(4)), strict=True)
        return torch.cat(x), torch.cat(y)

    for how in ("one client's buffers", "buffers averaged", "recalibrated"):
        torch.manual_seed(0)
        model: nn.Module = convnet()
        for _ in range(5):
            clients = [
                fit(
                    copy.deepcopy(model),
                    lambda i=i: client(i),
                    12,
                    lr=0.05,
                    make=torch.optim.SGD,
                    momentum=0.9,
                )
                for i in range(4)
            ]
            model = mean_of(clients, how == "buffers averaged")
        if how == "recalibrated":
            yield right(how, told(recalibrated(model, lambda: everyone(16)), several(everyone, 4)))
            continue
        words = ("between|too small|lack",) if how == "buffers averaged" else ()
        yield fault(
            how, told(model.eval(), several(everyone, 4)), Must(SHIFTED + "|.*statistic.*", words=words)
        )


@CASES.add("an instance norm with running statistics")
def instance_norm() -> Iterator[Look]:
    def batch() -> Batch:
        pattern = torch.randn(8, 3, 16, 16)
        x = pattern * torch.exp(torch.randn(8, 1, 1, 1)) + torch.randn(8, 3, 1, 1) * 3
        return x, pattern.roll(1, 1)

    for track in (True, False):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for a, b in ((3, 16), (16, 16)):
            layers += [
                nn.Conv2d(a, b, 3, padding=1),
                nn.InstanceNorm2d(b, affine=True, track_running_stats=track),
                nn.ReLU(),
            ]
        model = nn.Sequential(*layers, nn.Conv2d(16, 3, 3, padding=1))
        fit(model, batch, 120, F.mse_loss)
        data = several(batch, 8)
        in_training = told(model, data, loss=F.mse_loss)
        in_evaluation = told(model.eval(), data)
        if track:
            says = Must(".*", words=("stored|running", "instance norm", "own"))
            yield fault("training", in_training, says)
            yield fault("evaluation", in_evaluation, says)
        else:
            yield right("without them, training", in_training)
            yield right("without them, evaluation", in_evaluation)


@CASES.add("the mean of two networks trained apart")
def mean_of_two() -> Iterator[Look]:
    def trained(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return fit(convnet(depth=4)).eval()

    a, b = trained(1), trained(2)
    data = several(n=8)
    mean = copy.deepcopy(a)
    other = b.state_dict()
    mean.load_state_dict(
        {k: (v + other[k]) / 2 if v.is_floating_point() else v for k, v in a.state_dict().items()}
    )
    yield right("a parent", told(a, data))
    yield fault(
        "the mean", told(mean, data), Must(SHIFTED, words=("weights", "depth|norm by norm|layer by layer"))
    )
    yield right("recalibrated", told(recalibrated(mean, images), data))


class Adapted(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.base = conv
        self.a = nn.Conv2d(conv.in_channels, 2, 3, padding=1, bias=False)
        self.b = nn.Conv2d(2, conv.out_channels, 1, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 4 * self.b(self.a(x))


@CASES.add("an adapter is saved without the buffers that moved")
def adapter() -> Iterator[Look]:
    def new() -> Batch:
        x, y = images()
        return x * 0.3 + 1, y

    torch.manual_seed(0)
    base = fit(convnet())

    def adapted() -> nn.Sequential:
        model = copy.deepcopy(base).requires_grad_(False)
        model[0], model[3] = Adapted(model[0]), Adapted(model[3])
        model[8].requires_grad_(True)
        return model

    model = adapted()
    data = several(new)
    yield fault("fine-tuning", told(model.train(), data, loss=F.cross_entropy), Must("frozen-but-moving"))
    fit(model, new, 150).eval()
    state = model.state_dict()
    again = adapted()
    again.load_state_dict(
        {k: v for k, v in state.items() if ".a." in k or ".b." in k or k[0] == "8"}, strict=False
    )
    before = bnprobe.record(model, data)
    yield fault("loaded again", told(again.eval(), data), Must(SHIFTED))
    yield fault(
        "compare", bnprobe.compare(before, bnprobe.record(again, data)), Must("frozen-statistics-moved")
    )
    again.load_state_dict({k: v for k, v in state.items() if "running" in k}, strict=False)
    yield right("with the buffers", told(again, data))


@CASES.add("a new model in its first batches of training")
def new_model() -> Iterator[Look]:
    for n in (1, 3, 5):
        torch.manual_seed(n)
        yield right(f"{n} batches", told(convnet(depth=3).train(), several(n=n), loss=F.cross_entropy))
