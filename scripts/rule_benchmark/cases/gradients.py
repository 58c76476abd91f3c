"""Gradients that are not finite, that do not arrive, or that cannot move a weight."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.rule_benchmark.cases.case import ANY, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import checked, convnet, fit, images, several, told

CASES = Cases("gradients")


class DistanceToFirst(nn.Module):
    """Adds each image's distance to the first one: the root's gradient at the first, 0, is infinite."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.fc, self.eps = nn.Linear(8, 2), eps

    def forward(self, x: Tensor) -> Tensor:
        f = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        return self.fc(f) + 0.1 * ((f - f[:1]) ** 2).sum(1).add(self.eps).sqrt()[:, None]


@CASES.add("the gradient is NaN for one image")
def one_image() -> Iterator[Look]:
    for eps in (0.0, 1e-12):
        torch.manual_seed(0)
        model = DistanceToFirst(eps)
        data = [(torch.randn(8, 3, 8, 8), torch.randint(0, 2, (8,))) for _ in range(4)]
        report = told(model, data, loss=F.cross_entropy)
        if eps:
            yield right("eps in the root", report)
        else:
            yield fault(
                "training", report, Must("gradient-not-finite", "bn", ("arrive|behind|after",), ("critical",))
            )


class OwnLayerNorm(nn.Module):
    """eps outside the root: the gradient of a constant row is not finite."""

    def __init__(self, width: int, inside: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.eps, self.inside = 1e-6, inside

    def forward(self, x: Tensor) -> Tensor:
        var = x.var(-1, keepdim=True, unbiased=False)
        std = (var + self.eps).sqrt() if self.inside else var.sqrt() + self.eps
        return self.weight * (x - x.mean(-1, keepdim=True)) / std + self.bias


class Padded(nn.Module):
    """Tokens with padding, whose embedding is zero; masked only at the end."""

    def __init__(self, inside: bool) -> None:
        super().__init__()
        self.embed, self.into = nn.Embedding(20, 16, padding_idx=0), nn.Linear(16, 16, bias=False)
        self.norm1, self.norm2 = OwnLayerNorm(16, inside), OwnLayerNorm(16, inside)
        self.mlp, self.out = nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens > 0).float()[..., None]
        h = self.into(self.embed(tokens))
        x = self.norm2(torch.relu(self.mlp(self.norm1(h))) + h)
        return self.out((x * mask).sum(1) / mask.sum(1))


@CASES.add("a norm of one's own divides by the deviation of padding")
def padding() -> Iterator[Look]:
    for inside in (False, True):
        torch.manual_seed(0)
        model = Padded(inside)
        tokens = torch.randint(1, 20, (64, 10))
        tokens[:, 6:] = 0
        labels = (tokens[:, 0] > 10).long()
        data = [(tokens[i::4], labels[i::4]) for i in range(4)]
        report = told(model, data, loss=F.cross_entropy)
        if inside:
            yield right("eps in the root", report)
        else:
            yield fault(
                "training",
                report,
                Must("gradient-not-finite", "norm1", ("arise|in this norm|inside",), ("critical",)),
            )


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = (
            nn.RMSNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


@CASES.add("norm weights in bfloat16 never move")
def bfloat16() -> Iterator[Look]:
    def loss(out: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(out.float().flatten(0, 1), t.flatten())

    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Embedding(32, 32), *(Block(32) for _ in range(3)), nn.RMSNorm(32), nn.Linear(32, 32)
        )
        x = torch.randint(0, 32, (64, 8))
        pair = (x, (x * 5 + 3) % 32)
        fit(model.to(dtype), lambda pair=pair: pair, 60, loss, torch.optim.AdamW, 3e-4, weight_decay=0.0)
        report, file = told(model, [pair] * 4, loss=loss), checked(model.state_dict())
        if dtype is torch.float32:
            yield right("float32, training", report)
            yield right("float32, file", file)
        else:
            words = ("bfloat16|bf16", r"0\.0078|step")
            yield fault("training", report, Must("updates-below-step", words=words))
            yield fault(
                "file",
                file,
                Must("affine-untrained|updates-below-step", words=("bfloat16|bf16",), severities=ANY),
            )


class Distiller(nn.Module):
    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            taught = self.teacher(x)
        return torch.stack([self.student(x), taught])


@CASES.add("distillation with the teacher in train mode")
def distillation() -> Iterator[Look]:
    def augmented() -> tuple[Tensor, Tensor]:
        x, y = images()
        return x * 0.4 - 0.8, y

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.kl_div(out[0].log_softmax(1), out[1].softmax(1), reduction="batchmean")

    for frozen in (False, True):
        torch.manual_seed(0)
        teacher = fit(convnet(32))
        model = Distiller(teacher, convnet(8)).train()
        if frozen:
            model.teacher.eval()
        fit(model, augmented, 100, loss)
        report = told(model, several(augmented), loss=loss)
        if frozen:
            yield right("teacher in eval mode", report)
        else:
            yield fault(
                "training",
                report,
                Must(".*", "teacher", ("(no|without a) gradient", "train mode", r"eval\(\)")),
            )


@CASES.add("Monte-Carlo dropout turns the norms on")
def monte_carlo() -> Iterator[Look]:
    for only_dropout in (False, True):
        torch.manual_seed(0)
        model = fit(convnet(between=lambda: [nn.Dropout2d(0.3)]), steps=120).eval()
        singles = [images(1)[0].repeat(16, 1, 1, 1) for _ in range(40)]
        for m in model.modules():
            m.train(isinstance(m, nn.Dropout2d) or (not only_dropout))
        with torch.no_grad():
            report = told(model, singles)
        if only_dropout:
            yield right("dropout only", report)
        else:
            yield fault("model.train()", report, Must("train-mode-in-evaluation"))
