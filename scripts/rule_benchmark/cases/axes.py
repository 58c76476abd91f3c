"""Problems from public threads about axes, time and padding, and about norms of one's own in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, PADDED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.fine_tuning import others
from scripts.rule_benchmark.cases.nets import Batch, convnet, fit, frames, images, padded, several, told

CASES = Cases("public threads, axes and precision")


def sequences(n: int = 32, steps: int = 20, features: int = 6, trend: float = 1.0) -> Batch:
    """Sequences (n, steps, features) whose features have scales of their own and whose class sets the slope."""
    y = torch.randint(0, 4, (n,))
    slopes = torch.linspace(-1, 1, 4)[y, None, None] * trend
    scales = torch.logspace(-1, 1, features)
    return (torch.randn(n, steps, features) + slopes * torch.arange(steps)[None, :, None] / 4 + 1) * scales, y


class InputNorm(nn.Module):
    """Batch norm on the raw features of a time series, before a recurrent network."""

    def __init__(self, transposed: bool, steps: int = 20) -> None:
        super().__init__()
        self.norm, self.transposed = nn.BatchNorm1d(6 if transposed else steps), transposed
        self.rnn, self.out = nn.GRU(6, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.transpose(1, 2)).transpose(1, 2) if self.transposed else self.norm(x)
        return self.out(self.rnn(x)[0][:, -1])


@CASES.add("BatchNorm1d on a raw time series", "pytorch/pytorch#7577, discuss.pytorch.org/t/91364")
def raw_series() -> Iterator[Look]:
    for transposed in (False, True):
        torch.manual_seed(0)
        model = fit(InputNorm(transposed), sequences, 60)
        for mode in ("training", "evaluation"):
            model.train(mode == "training")
            report = told(model, several(sequences), loss=F.cross_entropy)
            if transposed:
                yield right(f"transposed, {mode}", report)
            else:
                words = ("time|position|last dimension|transpose",)
                yield fault(f"not transposed, {mode}", report, Must(".*", "norm", words, ANY))


class Tokens(nn.Module):
    """A transformer's feed-forward block with batch norm in place of layer norm."""

    def __init__(self, transposed: bool, steps: int = 20) -> None:
        super().__init__()
        self.embed, self.transposed = nn.Linear(6, 32), transposed
        self.up, self.down, self.out = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 4)
        self.norm = nn.BatchNorm1d(32 if transposed else steps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(F.gelu(self.up(x)))
        x = self.norm(x.transpose(1, 2)).transpose(1, 2) if self.transposed else self.norm(x)
        return self.out(x.mean(1))


@CASES.add("batch norm after an encoder's block, without transposing", "sharathadavanne/seld-dcase2021#8")
def encoder() -> Iterator[Look]:
    for transposed in (False, True):
        torch.manual_seed(0)
        model = fit(Tokens(transposed), sequences, 80).eval()
        report = told(model, several(sequences))
        if transposed:
            yield right("transposed", report)
        else:
            words = ("time|position|last dimension|transpose",)
            yield fault("not transposed", report, Must(".*", "norm", words, ANY))


class GroupNorm(nn.Module):
    """Group norm of (N, H, W, C) by a reshape that keeps H and W in the groups: the channels of a group are mixed up."""

    def __init__(self, groups: int, width: int, mixed: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.num_groups, self.eps, self.mixed = groups, 1e-5, mixed

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1).contiguous()
        if self.mixed:
            parts = x.view(n, self.num_groups, -1)
            z = F.layer_norm(parts, parts.shape[-1:], eps=self.eps).view(n, h, w, c)
        else:
            parts = x.view(n, h * w, self.num_groups, -1).transpose(1, 2).flatten(2)
            z = F.layer_norm(parts, parts.shape[-1:], eps=self.eps)
            z = z.view(n, self.num_groups, h * w, -1).transpose(1, 2).reshape(n, h, w, c)
        return (z * self.weight + self.bias).permute(0, 3, 1, 2)


@CASES.add(
    "group norm reshapes channels-last tensors as if they were channels-first", "tensorflow/addons#751"
)
def channels_last_groups() -> Iterator[Look]:
    for mixed in (True, False):
        torch.manual_seed(0)
        model = fit(convnet(norm=lambda width, mixed=mixed: GroupNorm(4, width, mixed)), steps=60).eval()
        report = told(model, several())
        if mixed:
            yield fault("mixed", report, Must(".*", "[14]", ("group|formula|dimension|position",), ANY))
        else:
            yield right("by channels", report)


class RMSNorm(nn.Module):
    """Squares in the precision of its input."""

    def __init__(self, width: int, upcast: bool) -> None:
        super().__init__()
        self.weight, self.eps, self.upcast = nn.Parameter(torch.ones(width)), 1e-6, upcast

    def forward(self, x: Tensor) -> Tensor:
        h = x.float() if self.upcast else x
        return self.weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


@CASES.add("squares overflow in half precision", "pytorch/pytorch#133085, nntrainer/nntrainer#3935")
def squares() -> Iterator[Look]:
    for upcast in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), RMSNorm(32, upcast), nn.Linear(32, 4))
        with torch.no_grad():
            model[0].weight *= 900
        model = model.half().eval()
        data = [torch.randn(32, 8).half() for _ in range(6)]
        report = told(model, data)
        if upcast:
            yield right("squares in float32", report)
        else:
            yield fault(
                "squares in float16",
                report,
                Must("rows-zero|half-overflow|.*", "1", ("half|overflow|float16",)),
            )


@CASES.add(
    "padding between sentences of unequal length",
    "SeanNaren/deepspeech.pytorch#312, Tomiinek/Multilingual_Text_to_Speech#81",
)
def padded_text() -> Iterator[Look]:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(30, 16, padding_idx=0)
            self.conv1, self.norm1 = nn.Conv1d(16, 24, 3, padding=1, bias=False), nn.BatchNorm1d(24)
            self.conv2, self.norm2 = nn.Conv1d(24, 24, 3, padding=1, bias=False), nn.BatchNorm1d(24)
            self.out = nn.Linear(24, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens).transpose(1, 2)
            x = torch.relu(self.norm1(self.conv1(x)))
            return self.out(torch.relu(self.norm2(self.conv2(x))).amax(2))

    for whole in (False, True):

        def batch(whole: bool = whole) -> Batch:
            y = torch.randint(0, 4, (32,))
            tokens = torch.randint(1, 30, (32, 50))
            tokens[:, :3] = y[:, None] + 1
            return tokens if whole else padded(tokens), y

        torch.manual_seed(0)
        model = fit(Encoder(), batch, 60).eval()
        report = told(model, [x for x, _ in several(batch)])
        if whole:
            yield right("of one length", report)
        else:
            yield fault("padded", report, PADDED)


@CASES.add(
    "instance norm on padded samples",
    "pytorch/pytorch#81985",
)
def padded_instances() -> Iterator[Look]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = (
                nn.Conv1d(6, 16, 3, padding=1, bias=False),
                nn.InstanceNorm1d(16, affine=True),
            )
            self.out = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.norm(self.conv(x))).mean(2))

    for whole in (False, True):
        batch = partial(frames, whole)
        torch.manual_seed(0)
        model = fit(Net(), batch, 60).eval()
        report = told(model, several(batch))
        if whole:
            yield right("whole", report)
        else:
            yield fault("padded", report, PADDED)


@CASES.add(
    "two domains in batches of their own",
    "scikit-adaptation/skada#252, adapt-python/adapt#92",
)
def domains_apart() -> Iterator[Look]:
    for joined in (False, True):
        torch.manual_seed(0)
        model = convnet()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)

        def step(
            model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer, joined: bool = joined
        ) -> None:
            (a, ya), (b, yb) = images(), others()
            optimizer.zero_grad()
            out = model(torch.cat([a, b])) if joined else torch.cat([model(a), model(b)])
            F.cross_entropy(out, torch.cat([ya, yb])).backward()
            optimizer.step()

        for _ in range(60):
            step()
        with bnprobe.attach(model) as probe:
            for _ in range(6):
                step()
        report = bnprobe.report(probe)
        if joined:
            yield right("joined", report)
        else:
            yield fault(
                "apart", report, Must(".*", words=("batches?", "kind|group|source|domain"), severities=ANY)
            )


@CASES.add(
    "features of very different scale under one layer norm",
    "ditschuk/pytorch-tsmixer#2",
)
def scales() -> Iterator[Look]:
    def batch(scale: float) -> Batch:
        x = torch.randn(64, 8)
        y = x[:, 1:5].argmax(1)
        x[:, 0] = x[:, 0] * scale + scale
        return x, y

    for scale in (5000.0, 1.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        fit(model, lambda scale=scale: batch(scale), 200).eval()
        report = told(model, several(lambda scale=scale: batch(scale)))
        if scale > 1:
            yield fault(
                "one of 5,000",
                report,
                Must("outlier-dimensions|digits-lost|.*", "0", ("channel|dimension|feature",)),
            )
        else:
            yield right("equal", report)


@CASES.add("an instance norm of rows, which torch takes for one sample of many channels")
def of_rows() -> Iterator[Look]:
    def batch() -> Batch:
        y = torch.randint(0, 4, (16,))
        return torch.randn(16, 12) + 2 * torch.eye(4, 12)[y], y

    for norm in (nn.InstanceNorm1d(16, affine=True), nn.LayerNorm(16)):
        torch.manual_seed(0)
        model = fit(nn.Sequential(nn.Linear(12, 16), norm, nn.ReLU(), nn.Linear(16, 4)), batch, 40)
        report = told(model.eval(), several(batch))
        if isinstance(norm, nn.LayerNorm):
            yield right("layer norm", report)
        else:
            yield fault(
                "instance norm", report, Must("positions-as-channels", "1", ("samples for channels",))
            )
