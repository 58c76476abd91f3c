"""Problems from public threads, rebuilt: `source` names the thread."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, PADDED, SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import (
    Batch,
    checked,
    classes,
    convnet,
    fit,
    follow,
    frames,
    images,
    several,
    told,
)

CASES = Cases("public threads")


class MetaBatchNorm(nn.Module):
    """Its own parameters, and F.batch_norm with training=True whatever the mode."""

    def __init__(self, width: int, always: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        training = self.always or self.training
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training)


@CASES.add("F.batch_norm with training=True hard-coded", "AntreasAntoniou/HowToTrainYourMAMLPytorch#24")
def always_training() -> Iterator[Look]:
    for always in (True, False):
        torch.manual_seed(0)
        model = fit(convnet(norm=lambda width, always=always: MetaBatchNorm(width, always))).eval()
        with torch.no_grad():
            report = told(model, several())
        if always:
            yield fault("evaluation", report, Must("train-mode-in-evaluation"))
        else:
            yield right("training=self.training", report)


@CASES.add("the average of the weights leaves the buffers out", "huggingface/pytorch-image-models#245")
def moving_average() -> Iterator[Look]:
    for buffers in (False, True):
        torch.manual_seed(0)
        model = convnet()
        average = copy.deepcopy(model).eval()
        for _ in range(25):
            fit(model, steps=4)
            follow(average, model, 0.8, buffers)
        report = told(average, several())
        if buffers:
            yield right("buffers averaged too", report)
        else:
            yield fault("parameters only", report, Must("statistics-never-updated"))


class Recomputed(nn.Module):
    def __init__(self, part: nn.Module, head: nn.Module, recompute: bool) -> None:
        super().__init__()
        self.part, self.head, self.recompute = part, head, recompute

    def forward(self, x: Tensor) -> Tensor:
        y = checkpoint(self.part, x, use_reentrant=False) if self.recompute else self.part(x)
        return self.head(y)


@CASES.add("activation checkpointing updates the statistics twice", "pytorch/pytorch#96136")
def checkpointing() -> Iterator[Look]:
    for recompute in (True, False):
        torch.manual_seed(0)
        layers = list(convnet())
        model = Recomputed(nn.Sequential(*layers[:6]), nn.Sequential(*layers[6:]), recompute)
        fit(model, steps=60)
        report = told(model, several(), loss=F.cross_entropy)
        if recompute:
            says = Must("updated-twice", words=("checkpoint|recomput",), severities=ANY)
            yield fault("checkpointed", report, says)
        else:
            yield right("plain", report)


class OverTime(nn.Module):
    """Sequences (N, time, features); BatchNorm1d takes dimension 1 for the channels."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.rnn, self.transposed = nn.LSTM(6, 24, batch_first=True), transposed
        self.norm, self.out = nn.BatchNorm1d(24 if transposed else 12), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.rnn(x)[0]
        h = self.norm(h.transpose(1, 2)).transpose(1, 2) if self.transposed else self.norm(h)
        return self.out(torch.relu(h)[:, -1])


@CASES.add(
    "BatchNorm1d on (N, time, features)",
    "xieyulai/LSTM-for-Human-Activity-Recognition-using-2D-Pose_Pytorch#2",
)
def batch_norm_over_features() -> Iterator[Look]:
    def batch() -> Batch:
        y = torch.randint(0, 4, (32,))
        slopes = torch.linspace(-1, 1, 4)[y, None, None]
        return torch.randn(32, 12, 6) + slopes * torch.arange(12)[None, :, None], y

    for transposed in (False, True):
        torch.manual_seed(0)
        model = fit(OverTime(transposed), batch, 60).eval()
        report = told(model, several(batch))
        if transposed:
            yield right("transposed", report)
        else:
            yield fault(
                "not transposed", report, Must(".*", "norm", ("time|position|last dimension|transpose",))
            )


@CASES.add("momentum as Keras means it", "fastestimator/fastestimator#1201")
def keras_momentum() -> Iterator[Look]:
    for momentum in (0.99, 0.01):
        torch.manual_seed(0)
        model = convnet(norm=lambda width, momentum=momentum: nn.BatchNorm2d(width, momentum=momentum))
        fit(model, steps=600 if momentum == 0.01 else 80)
        report = told(model, several(), loss=F.cross_entropy)
        if momentum > 0.5:
            yield fault(
                "0.99",
                report,
                Must("momentum-odd", words=(r"0\.01",), severities=ANY),
            )
        else:
            yield right("0.01", report)


@CASES.add(
    "a discriminator sees real and fake images in batches of their own",
    "soumith/ganhacks#52",
)
def discriminator() -> Iterator[Look]:
    def halves(n: int = 32) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 3, 8, 8) + classes()[:1] + 1, torch.randn(n, 3, 8, 8) * 0.4 - 1

    for mixed in (False, True):
        torch.manual_seed(0)
        model = convnet()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(60):
            real, fake = halves()
            both = [torch.cat([real, fake])] if mixed else [real, fake]
            scores = torch.cat([model(x)[:, 0] for x in both])
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(scores, (torch.arange(64) < 32).float()).backward()
            optimizer.step()
        real, fake = (torch.cat(x) for x in zip(*(halves() for _ in range(6)), strict=True))
        batches = [torch.cat(x) for x in zip(real.split(32), fake.split(32), strict=True)]
        alone = [x for pair in zip(real.split(32), fake.split(32), strict=True) for x in pair]
        with bnprobe.attach(model.train()) as probe:
            for x in batches if mixed else alone:
                model(x).sum().backward()
        report = bnprobe.report(probe)
        if mixed:
            yield right("mixed batches", report)
        else:
            yield fault("batches of one kind", report, Must("batches-of-two-kinds", severities=ANY))


class Speech(nn.Module):
    """Frames (N, 6, time) of unequal length, padded with zeros; no bias, so padding stays zero up to the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(6, 16, 1, bias=False), nn.BatchNorm1d(16)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.norm(self.conv(x))).amax(2))


@CASES.add("padding counts in the statistics of a batch norm", "pytorch/pytorch#70529")
def padded_batches() -> Iterator[Look]:
    for whole in (False, True):
        batch = partial(frames, whole)
        torch.manual_seed(0)
        model = fit(Speech(), batch, 60).eval()
        report = told(model, several(batch))
        if whole:
            yield right("whole", report)
        else:
            yield fault("padded", report, PADDED)


class LayerNorm(nn.Module):
    """The layer norm of ConvNeXt for (N, C, H, W), whose square overflows in half precision."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = (
            nn.Parameter(torch.ones(width)),
            nn.Parameter(torch.zeros(width)),
            1e-6,
        )

    def forward(self, x: Tensor) -> Tensor:
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        return self.weight[:, None, None] * ((x - u) / torch.sqrt(s + self.eps)) + self.bias[:, None, None]


@CASES.add(
    "a layer norm's square overflows in half precision",
    "facebookresearch/ConvNeXt#80",
    known_miss="headroom is that of inputs, not of their squares in code of one's own",
)
def overflow() -> Iterator[Look]:
    for scale in (400.0, 1.0):
        torch.manual_seed(0)
        stem = nn.Conv2d(3, 16, 3, padding=1)
        model = nn.Sequential(
            stem, LayerNorm(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4)
        )
        fit(model)
        with torch.no_grad():
            stem.weight *= scale
            stem.bias *= scale
        report = told(model.eval(), several())
        if scale > 1:
            yield fault("large activations", report, Must("half-overflow", "1", severities=ANY))
        else:
            yield right("small activations", report)


@CASES.add("trained with one image per batch", "uci-cbcl/UFold#18")
def one_image_per_batch() -> Iterator[Look]:
    def offset(n: int) -> Batch:
        x, y = images(n)
        return x + 2 * torch.randn(n, 3, 1, 1), y

    for n in (1, 32):
        torch.manual_seed(0)
        model = fit(convnet(), lambda n=n: offset(n), 300).eval()
        report = told(model, several(lambda: offset(32)))
        if n == 1:
            yield fault("batches of 1", report, Must(SHIFTED + "|.*batch.*", words=("between|batch",)))
        else:
            yield right("batches of 32", report)


@CASES.add("a running variance that half precision cannot hold", "apple/coreai-torch#54")
def variance_overflows() -> Iterator[Look]:
    for scale in (1000.0, 1.0):
        torch.manual_seed(0)
        model = fit(convnet(), lambda scale=scale: (lambda x, y: (x * scale, y))(*images()))
        file = checked(model.state_dict())
        if scale > 1:
            yield fault("file", file, Must(".*half.*|.*overflow.*", severities=ANY))
        else:
            yield right("ordinary images", file)


@CASES.add("weights that a functional call trains, and buffers that stay", "facebookresearch/higher#55")
def patched() -> Iterator[Look]:
    for kept in (False, True):
        torch.manual_seed(0)
        model = convnet()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(60):
            x, y = images()
            buffers = (
                dict(model.named_buffers()) if kept else {k: b.clone() for k, b in model.named_buffers()}
            )
            optimizer.zero_grad()
            F.cross_entropy(functional_call(model, buffers, (x,)), y).backward()
            optimizer.step()
        report = told(model.eval(), several())
        if kept:
            yield right("the model's own buffers", report)
        else:
            yield fault("copies of the buffers", report, Must("statistics-never-updated"))


@CASES.add("a pass of zeros")
def zeros() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet()).eval()
    with torch.no_grad():
        report = told(model, [(torch.zeros(32, 3, 8, 8), torch.zeros(32, dtype=torch.long))])
    yield fault("one batch", report, Must("input-not-as-trained", "1", ("constant", "zeros")))
    yield right("images", told(model, several()))
