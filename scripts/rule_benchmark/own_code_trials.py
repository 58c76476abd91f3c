"""Trials of advice about the user's own forward, data or steps: its code stands in a place that only words can say.

`code` is the list of what stands between backticks, and `words` what the sentences around it ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.rule_benchmark.cases.nets import Batch, images
from scripts.rule_benchmark.code_trials import NORMS, Mean, Transposed, Trial, trained


class Line(nn.Module):
    """A norm between two layers, called by a line of code."""

    def __init__(self, first: nn.Module, norm: nn.Module, last: nn.Module, line: str = "y = norm(x)") -> None:
        super().__init__()
        self.first, self.norm, self.last, self.line = first, norm, last, line

    def forward(self, x: Tensor) -> Tensor:
        names = {"norm": self.norm, "x": self.first(x)}
        exec(self.line, names)
        found: Tensor = self.last(names["y"])
        return found


class Recurrent(nn.LSTM):
    """Its outputs alone."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


def drawn(build: Callable[[], nn.Module], steps: int = 0) -> nn.Module:
    """The same network every time, in eval mode, after steps that fit its norms."""
    torch.manual_seed(0)
    model = build().train()
    for _ in range(steps):
        model(images(64)[0])
    return model.eval()


def sequence(norm: int, line: str) -> nn.Module:
    """A batch norm after a recurrent layer whose 24 steps have 16 features."""
    last = nn.Sequential(Mean(), nn.Linear(16, 4))
    first = nn.Sequential(nn.Flatten(1, 2), Recurrent(8, 16, batch_first=True))
    return Line(first, nn.BatchNorm1d(norm), last, line)


def wide(line: str) -> nn.Module:
    """A layer norm between convolutions of images that are as wide as they have features."""
    last = nn.Sequential(nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return Line(nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8), last, line)


def rows(norm: nn.Module) -> nn.Module:
    """A norm between linear layers."""
    return Line(nn.Sequential(nn.Flatten(), nn.Linear(192, 16)), norm, nn.Linear(16, 4))


class Attention(nn.Module):
    """Of two heads, to itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        found: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return found


class Block(nn.Module):
    """Attention and an MLP; each is a branch, called by a line of code."""

    def __init__(self, width: int, line: str) -> None:
        super().__init__()
        mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.branches = nn.ModuleList((Attention(width), mlp))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.branches)
        self.line = line

    def forward(self, x: Tensor) -> Tensor:
        for norm, branch in zip(self.norms, self.branches, strict=True):
            names = {"norm": norm, "attention": branch, "x": x}
            exec(self.line, names)
            x = names["x"]
        return x


def stack(line: str) -> nn.Module:
    """Patches, two blocks, and a linear layer."""
    first = nn.Sequential(nn.Conv2d(3, 16, 2, 2), nn.Flatten(2), Transposed())
    return nn.Sequential(first, Block(16, line), Block(16, line), nn.LayerNorm(16), Mean(), nn.Linear(16, 4))


class Squares(nn.Module):
    """An RMS norm that takes its squares in the precision of `of`."""

    def __init__(self, width: int, of: str = "x.float()") -> None:
        super().__init__()
        self.weight, self.of, self.eps = nn.Parameter(torch.ones(width)), of, 1e-6

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = eval(self.of, {"x": x})
        scale = (h.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (h * scale * self.weight).to(x.dtype)


class LoudRMSNorm(Squares):
    """Named so that it is known."""


def loud(of: str = "x.float()") -> nn.Module:
    """Tokens in half precision that are louder than 256, before and after an RMS norm."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 4),
        nn.Flatten(2),
        Transposed(),
        Times(400),
        LoudRMSNorm(16, of),
        Mean(),
        Last(16, 4),
    )


class Times(nn.Module):
    """Values times a number, in half precision unless the layers before have another one."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by, self.dtype = by, torch.float16

    def forward(self, x: Tensor) -> Tensor:
        return (self.by * x).to(self.dtype if x.dtype == torch.float32 else x.dtype)


class Last(nn.Linear):
    """Of inputs of any precision, in that of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


def stream_new(width: int) -> nn.Module:
    """Patches, an RMS norm as it begins, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 4), nn.Flatten(2), Transposed(), nn.RMSNorm(width), Mean(), nn.Linear(width, 4)
    )


ROOT = "y = norm(x).relu(); y = y + ((y - y.amin(1, keepdim=True)){eps}).sqrt()"


def of_a_root(eps: str = "") -> nn.Module:
    """A root behind a norm, of values of which the least is exactly 0."""
    return Line(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 16)),
        nn.BatchNorm1d(16),
        nn.Linear(16, 4),
        ROOT.format(eps=eps),
    )


def with_copies() -> list[Batch]:
    """A third of the samples of each batch are one blank image."""
    batches = [images(60) for _ in range(5)]
    return [(x.index_fill(0, torch.arange(20), 0.25), y) for x, y in batches]


def darkening() -> list[Batch]:
    """Images in the order of an evening."""
    batches = [images(64) for _ in range(5)]
    return [(x - 0.5 * i, y) for i, (x, y) in enumerate(batches)]


def cut_short() -> list[Batch]:
    """Classes in their order, two and a half batches each."""
    torch.manual_seed(1)
    y = torch.arange(4).repeat_interleave(160)
    x = torch.randn(len(y), 3, 8, 8) + 2 * (y - 1.5)[:, None, None, None]
    return list(zip(x.split(64), y.split(64), strict=True))


PRINTED = "import contextlib, io\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    for c in code: exec(c)\n"
"""Runs the code, and keeps what it prints."""

FIT = "model.train(); train(60); model.eval()"

OWN_CODE = (
    Trial(
        "a batch norm over the steps of a recurrent layer",
        "positions-as-channels",
        partial(drawn, partial(sequence, 16, "y = norm(x.transpose(1, 2)).transpose(1, 2)"), 60),
        f"model.norm, model.line = nn.BatchNorm1d(24), 'y = norm(x)'\n{FIT}",
        words=f"model.norm, model.line = nn.BatchNorm1d(16), code[0]\n{FIT}",
    ),
    Trial(
        "a layer norm over the width of images",
        "positions-as-channels",
        partial(drawn, partial(wide, "y = norm(x.movedim(1, -1)).movedim(-1, 1)")),
        "model.line = 'y = norm(x)'",
        words=f"model.line = code[0]\n{FIT}",
    ),
    *(
        Trial(
            f"an instance norm of rows, {words}",
            "positions-as-channels",
            partial(drawn, partial(rows, nn.BatchNorm1d(16)), 60),
            "model.norm = nn.InstanceNorm1d(64)",
            words=f"model.norm = eval(code[{which}])\n{FIT}",
        )
        for which, words in enumerate(("a layer norm instead", "a batch norm instead"))
    ),
    Trial(
        "blocks that add nothing to what went in",
        "no-residual",
        partial(drawn, partial(stack, "x = x + attention(norm(x))")),
        "for m in model[1:3]: m.line = 'x = attention(norm(x))'",
        words=f"for m in model[1:3]: m.line = code[0]\n{FIT}",
    ),
    Trial(
        "squares in half precision",
        "square-overflows",
        partial(drawn, loud),
        "model[4].of = 'x'",
        words="model[4].of = code[0]",
        severities=("critical",),
    ),
    Trial(
        "squares in half precision, bfloat16 instead",
        "square-overflows",
        partial(drawn, loud),
        "model[4].of = 'x'",
        words="model.bfloat16()\nloader = batches = [(x.bfloat16(), y) for x, y in batches]\nx = x.bfloat16()",
        severities=("critical",),
    ),
    Trial(
        "a root of 0",
        "gradient-not-finite",
        partial(drawn, partial(of_a_root, " + 1e-6"), 60),
        f"model.line = {ROOT.format(eps='')!r}",
        learns=True,
        words=f"{PRINTED}if 'SqrtBackward' in out.getvalue(): model.line = {ROOT.format(eps=' + 1e-6')!r}",
    ),
    Trial(
        "bfloat16 throughout",
        "updates-below-step",
        partial(drawn, partial(stream_new, 16)),
        "model.bfloat16()",
        learns=True,
        precision=torch.bfloat16,
    ),
    Trial("in the order of time", "samples-alike", trained, data=darkening),
    Trial("ended in the first class", "samples-alike", trained, data=cut_short, recorded=2),
    Trial("blank images", "samples-alike", trained, data=with_copies, words=f"{PRINTED}loader = batches"),
    Trial("train mode", "samples-mixed", trained, "model.train()", mixes=True),
    Trial(
        "no running statistics",
        "samples-mixed",
        trained,
        f"{NORMS}for m in norms: m.track_running_stats, m.running_mean, m.running_var = False, None, None",
        mixes=True,
        words="for i, m in enumerate(model):\n"
        f"    if isinstance(m, nn.BatchNorm2d): model[i] = nn.BatchNorm2d(m.num_features)\n{FIT}",
    ),
    Trial(
        "converter left out a division in one norm",
        "data-shifted",
        partial(trained, depth=3),
        "model[7].running_mean *= 999.9; model[7].running_var *= 999.9",
    ),
)
