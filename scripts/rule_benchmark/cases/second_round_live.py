"""A second round on live recordings: textbooks, sound, trainers, masks, films, bfloat16; each beside a right twin."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, classes, convnet, fit, images, several, told

CASES = Cases("second round, live")


class BatchNorm(nn.Module):
    """As a textbook writes it: moving averages, used where no gradients are computed."""

    def __init__(self, width: int, buffers: bool) -> None:
        super().__init__()
        shape = 1, width, 1, 1
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        if buffers:
            self.register_buffer("moving_mean", torch.zeros(shape))
            self.register_buffer("moving_var", torch.ones(shape))
        else:
            self.moving_mean, self.moving_var = torch.zeros(shape), torch.ones(shape)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.moving_mean, self.moving_var
        if torch.is_grad_enabled():
            mean = x.mean((0, 2, 3), keepdim=True)
            var = (x - mean).square().mean((0, 2, 3), keepdim=True)
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean.detach()
            self.moving_var = 0.9 * self.moving_var + 0.1 * var.detach()
        return self.gamma * (x - mean) / (var + 1e-5).sqrt() + self.beta


@CASES.add("moving averages of a textbook's batch norm are no buffers, and not saved")
def textbook() -> Iterator[Look]:
    for buffers in (False, True):
        torch.manual_seed(2)
        trained, model = (convnet(norm=partial(BatchNorm, buffers=buffers)) for _ in range(2))
        model.load_state_dict(fit(trained, steps=80).state_dict())
        with torch.no_grad():
            report = told(model.eval(), several())
        if buffers:
            yield right("buffers", report)
        else:
            yield fault("attributes", report, Must("statistics-never-updated", "^1$", ("buffers",)))


def waves(n: int = 32) -> Batch:
    """Tones (n, 1, 256) of a pitch for each class, between -1 and 1."""
    y, t = torch.randint(0, 4, (n,)), torch.arange(256) / 256
    pitch, phase = 4.0 + 6 * y[:, None, None], 2 * math.pi * torch.rand(n, 1, 1)
    x = torch.sin(2 * math.pi * pitch * t + phase) * (0.05 + 0.3 * torch.rand(n, 1, 1))
    return x + 0.02 * torch.randn(n, 1, 256), y


def powers(n: int = 32) -> Batch:
    """Their spectrograms (n, 1, 17, 33), not in decibels."""
    x, y = waves(n)
    spectrum = torch.stft(x[:, 0], 32, 8, window=torch.hann_window(32), return_complex=True)
    return spectrum.abs().square()[:, None], y


def decibels(power: Tensor) -> Tensor:
    return 10 * torch.log10(power + 1e-6)


def listener() -> nn.Sequential:
    """Two convolutions over time."""
    layers: list[nn.Module] = []
    for width in (1, 16):
        layers += [nn.Conv1d(width, 16, 9, 2, 4, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(32, 4))


@CASES.add("sound as whole numbers of 16 bits", "dscripka/openWakeWord#295, wenet-e2e/wenet#1042")
def whole_numbers() -> Iterator[Look]:
    torch.manual_seed(0)
    model, data = fit(listener(), waves, 120).eval(), [x for x, _ in several(waves)]
    yield right("-1 to 1", told(model, data))
    must = Must(SHIFTED, "^1$", (r"multiplied by [23]\.\d*e\+04",))
    yield fault("16 bits", told(model, [x * 32768 for x in data]), must)


@CASES.add("a spectrogram that is not in decibels")
def spectrogram() -> Iterator[Look]:
    def batch() -> Batch:
        power, y = powers()
        return decibels(power), y

    torch.manual_seed(0)
    model = convnet()
    model[0] = nn.Conv2d(1, 16, 3, padding=1, bias=False)
    fit(model, batch, 80).eval()
    data = [power for power, _ in several(powers)]
    yield right("decibels", told(model, [decibels(x) for x in data]))
    yield fault("power", told(model, data), Must(SHIFTED, "^1$"))
    nepers = Must(SHIFTED, "^1$", (r"multiplied by 0\.23",))
    yield fault("natural logarithm", told(model, [torch.log(x + 1e-6) for x in data]), nepers)


class Trainer(nn.Module):
    """Its step calls the teacher and the student, and nobody calls the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = fit(convnet(24, depth=3), steps=60), convnet(8)

    def step(self) -> None:
        x, y = images()
        x = 0.5 * x - 0.5  # augmented
        with torch.no_grad():
            target = self.teacher(x).softmax(1)
        loss = F.cross_entropy(self.student(x), y)
        loss = loss + F.kl_div(self.student(x).log_softmax(1), target, reduction="batchmean")
        loss.backward()


@CASES.add("a trainer calls the parts of a module, and never the module")
def parts() -> Iterator[Look]:
    for kept in (False, True):
        torch.manual_seed(0)
        trainer = Trainer().train()
        trainer.teacher.train(not kept)
        optimizer = torch.optim.Adam(trainer.student.parameters(), 3e-3)

        def step(trainer: Trainer = trainer, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            trainer.step()
            optimizer.step()

        for _ in range(60):
            step()
        with bnprobe.attach(trainer) as probe:
            for _ in range(8):
                step()
        report = bnprobe.report(probe)
        if kept:
            yield right("teacher in eval mode", report)
        else:
            yield fault("teacher in train mode", report, Must("moving-without-gradient", "teacher"))


class Attention(nn.Module):
    """A block of a transformer that hides padding from attention; `fill` is added where a key is padding."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.embed, self.fill = nn.Embedding(20, 16), fill
        self.norm1, self.qkv, self.proj = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm2, self.mlp, self.out = nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        there, x = tokens > 0, self.embed(tokens)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        hidden = torch.zeros(tokens.shape).masked_fill(~there, self.fill)
        weights = (q @ k.transpose(1, 2) / 4 + hidden[:, None]).softmax(-1)
        x = x + self.proj(weights.nan_to_num() @ v)
        x = x + self.mlp(self.norm2(x)).relu()
        kept = there[..., None].float()
        return self.out((x * kept).sum(1) / kept.sum(1).clamp(min=1))


@CASES.add("every key of an empty sample is masked", "pytorch/pytorch#41508")
def masked() -> Iterator[Look]:
    def batch(empty: bool = False) -> Batch:
        tokens = torch.randint(1, 20, (32, 10))
        y = (tokens[:, 0] > 10).long()
        for row, length in zip(tokens, torch.randint(1, 11, (32,)), strict=True):
            row[length:] = 0
        if empty:
            tokens[3] = 0
        return tokens, y

    torch.manual_seed(0)
    model = Attention(-1e9)
    fit(model, batch, 60)
    data = [batch(empty=i == 2) for i in range(6)]
    yield right("a large negative number", told(model, data, loss=F.cross_entropy))
    model.fill = -math.inf
    where = Must(
        "gradient-not-finite", "norm1", ("arise after it", "norm2", "softmax of a row that is masked")
    )
    yield fault("minus infinity", told(model, data, loss=F.cross_entropy), where)


class OwnNorm(nn.Module):
    """Over the features of each row or, trained only, over the batch; mean and variance may be detached."""

    def __init__(self, width: int, detached: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.eps, self.detached = 1e-5, detached

    def normalized(self, x: Tensor, *dims: int) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached):
            var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
        return (x - mean) / (var + self.eps).sqrt()


class LayerNorm(OwnNorm):
    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.normalized(x, -1) + self.bias


class StoredNorm(OwnNorm):
    """A batch norm that is never evaluated here."""

    def __init__(self, width: int, detached: bool) -> None:
        super().__init__(width, detached)
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            var, mean = torch.var_mean(x, (0, 2, 3))
            self.running_mean.lerp_(mean, 0.1)
            self.running_var.lerp_(var, 0.1)
        return self.normalized(x, 0, 2, 3) * self.weight[:, None, None] + self.bias[:, None, None]


def rows(n: int = 64) -> Batch:
    """Rows (n, 12) whose mean is their class."""
    y = torch.randint(0, 4, (n,))
    return torch.randn(n, 12) + torch.randn(4, 12, generator=torch.Generator().manual_seed(1))[y], y


@CASES.add(
    "mean and variance of a norm are detached",
    "anthonymlortiz/lcn#2, abhiskk/ladder#2, keras-team/keras#19102",
)
def detached() -> Iterator[Look]:
    for wrong in (True, False):
        torch.manual_seed(0)
        layers = [nn.Linear(12, 24), LayerNorm(24, wrong), nn.ReLU(), nn.Linear(24, 4)]
        of_rows = told(fit(nn.Sequential(*layers), rows, 60), several(rows), loss=F.cross_entropy)
        stored = fit(convnet(norm=partial(StoredNorm, detached=wrong)), steps=40)
        of_batches = told(stored, several(), loss=F.cross_entropy)
        for title, report in (("layer", of_rows), ("batch", of_batches)):
            must = Must("identity-violated", "^1$", ("detached", "no_grad"))
            yield fault(title, report, must) if wrong else right(f"{title}, with its gradient", report)


@CASES.add("each batch is one film", "openpifpaf/openpifpaf#308, pytorch/pytorch#4741")
def films() -> Iterator[Look]:
    def batch(one: bool) -> Batch:
        x, y = images(centre=classes(0.5))
        return x + 2 * torch.randn(1 if one else len(x), 3, 1, 1), y

    for one in (True, False):
        torch.manual_seed(1)
        model = fit(convnet(depth=3), partial(batch, one), 100, lr=1e-3)
        report = told(model, several(partial(batch, one), 12), loss=F.cross_entropy)
        evaluated = told(model.eval(), several(partial(batch, False), 8))
        if one:
            alike = Must("samples-alike", "^1$", ("one film", "shuffle=True"))
            yield fault("training", report, alike)
            yield fault("evaluation of mixed batches", evaluated, Must("data-shifted", "^1$"))
        else:
            yield right("mixed, training", report)
            yield right("mixed, evaluation", evaluated)


@CASES.add("running statistics in bfloat16 do not take small updates")
def coarse() -> Iterator[Look]:
    for dtype in (torch.bfloat16, torch.float32):

        def batch(dtype: torch.dtype = dtype) -> Batch:
            x, y = rows()
            return (x + 3).to(dtype), y

        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for width in (12, 24):
            layers += [nn.Linear(width, 24, bias=False), nn.BatchNorm1d(24, momentum=0.003), nn.ReLU()]
        model = fit(nn.Sequential(*layers, nn.Linear(24, 4)).to(dtype), batch, 150, lr=1e-3)
        with torch.no_grad():
            for _ in range(1500):  # at a learning rate of 0
                model(batch()[0])
        report = told(model.eval(), several(batch, 8))
        if dtype == torch.bfloat16:
            yield fault(
                "bfloat16", report, Must("data-shifted", "^1$", ("stored in bfloat16", "rounded away"))
            )
        else:
            yield right("float32", report)


@CASES.add(
    "weights are initialized again after loading",
    "pytorch/examples (dcgan), weights_init after load_state_dict",
)
def initialized_again() -> Iterator[Look]:
    def as_dcgan(layer: nn.Module) -> None:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, 0.02)
            nn.init.zeros_(layer.bias)

    def as_torch(layer: nn.Module) -> None:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)

    torch.manual_seed(0)
    trained = fit(convnet(depth=3), steps=150).eval()
    yield right("as loaded", told(trained, several(n=5)))
    for name, initialize in (("as DCGAN", as_dcgan), ("as torch", as_torch)):
        model = copy.deepcopy(trained).apply(initialize)
        again = Must("input-not-as-trained|data-shifted", words=("initialized again", "load_state_dict"))
        yield fault(name, told(model, several(n=5)), again)
