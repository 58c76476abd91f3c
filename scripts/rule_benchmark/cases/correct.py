"""Correct scripts of the kinds that go wrong elsewhere: nothing may be said of them at warning or above."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import Cases, Look, right
from scripts.rule_benchmark.cases.nets import Batch, classes, convnet, fit, follow, images, several, told

CASES = Cases("correct scripts")


class Residual(nn.Module):
    """A pre-activation residual block whose last norm starts at 0, as zero_init_residual does."""

    def __init__(self, width: int, zero: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        if zero:
            nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


def resnet(width: int = 16, zero: bool = True) -> nn.Sequential:
    stem = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    return nn.Sequential(*stem, Residual(width, zero), Residual(width, zero), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, 4))  # fmt: skip


class Encoder(nn.Module):
    """A small transformer on (N, 12, 8)."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=first)
        self.embed, self.out = nn.Linear(8, 32), nn.Linear(32, 4)
        self.body = nn.TransformerEncoder(layer, 2, nn.LayerNorm(32), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    """An LSTM with layer norm on its outputs and batch norm over features, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.norm = nn.LSTM(8, 24, batch_first=True), nn.LayerNorm(24)
        self.batch_norm, self.out = nn.BatchNorm1d(24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.rnn(x)[0])
        h = self.batch_norm(h.transpose(1, 2)).transpose(1, 2)
        return self.out(h[:, -1])


class LayerNormCell(nn.Module):
    """A recurrent cell with layer norm, called once per step."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.back = nn.Linear(8, 24), nn.Linear(24, 24)
        self.norm, self.out = nn.LayerNorm(24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 24)
        for t in range(x.shape[1]):
            h = torch.tanh(self.norm(self.into(x[:, t]) + self.back(h)))
        return self.out(h)


class Tabular(nn.Module):
    """Embedding of a category beside numbers, batch norm on both."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first = nn.Embedding(10, 4), nn.BatchNorm1d(8)
        self.body = nn.Sequential(
            nn.Linear(12, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Dropout(0.1), nn.Linear(64, 32), nn.ReLU(),
            nn.BatchNorm1d(32), nn.Linear(32, 4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        category = (x[:, 0].abs() * 3).long().clamp(0, 9)
        return self.body(torch.cat([self.embed(category), self.first(x)], 1))


class Wrapped(nn.Module):
    """As a trainer's module holds it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def sequences(n: int = 64) -> Batch:
    y = torch.randint(0, 4, (n,))
    return torch.randn(n, 12, 8) + torch.linspace(-1, 1, 4)[y, None, None] * torch.arange(12)[
        None, :, None
    ] / 6, y


def table(n: int = 128) -> Batch:
    x = torch.randn(n, 8) * torch.logspace(-1, 1, 8) + torch.arange(8)
    return x, (x[:, 2] > 2).long() + 2 * (x[:, 5] > 5).long()


def groups(width: int) -> nn.Module:
    return nn.GroupNorm(4, width)


NETS = {
    "plain": (lambda: convnet(depth=3), images),
    "residual, zero init": (resnet, images),
    "group norm": (lambda: convnet(norm=groups), images),
    "instance norm": (lambda: convnet(norm=lambda w: nn.InstanceNorm2d(w, affine=True)), images),
    "post-norm transformer": (lambda: Encoder(False), sequences),
    "pre-norm transformer": (lambda: Encoder(True), sequences),
    "LSTM": (Recurrent, sequences),
    "recurrent cell": (LayerNormCell, sequences),
    "table": (Tabular, table),
    "wrapped": (lambda: Wrapped(convnet()), images),
}


@CASES.add("a trainer with warm-up, weight decay and clipping", slow=True)
def trainer() -> Iterator[Look]:
    for seed, (name, (make, batch)) in enumerate(NETS.items()):
        torch.manual_seed(seed)
        model = make().train()
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))

        def step(model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer,
                 schedule: torch.optim.lr_scheduler.LambdaLR = schedule, batch: object = batch) -> None:  # fmt: skip
            x, y = batch()  # type: ignore[operator]
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

        for title, before, n in (("first steps", 0, 3), ("warm-up", 12, 6), ("later", 100, 6)):
            for _ in range(before):
                step()
            with bnprobe.attach(model) as probe:
                for _ in range(n):
                    step()
            yield right(f"{name}, {title}", bnprobe.report(probe))
        data = several(batch)
        first = bnprobe.record(model.eval(), data)
        yield right(f"{name}, evaluation", bnprobe.report(first))
        yield right(
            f"{name}, modes",
            bnprobe.compare(first, bnprobe.record(model.train(), data, loss=F.cross_entropy)),
        )
        for _ in range(30):
            step()
        yield right(f"{name}, two epochs", bnprobe.compare(first, bnprobe.record(model.eval(), data)))


@CASES.add("two seeds, and another set of data", slow=True)
def two_seeds() -> Iterator[Look]:
    for name in ("plain", "group norm", "pre-norm transformer", "LSTM", "table"):
        make, batch = NETS[name]
        records = []
        for seed in (3, 4):
            torch.manual_seed(seed)
            model = fit(make(), batch, 150).eval()
            torch.manual_seed(9)
            records.append(bnprobe.record(model, several(batch, 8)))
        yield right(f"{name}, seeds", bnprobe.compare(*records))
        again = bnprobe.record(model, several(batch, 8))
        yield right(f"{name}, other data", bnprobe.compare(records[1], again))


@CASES.add("train and eval in turn, in one recording", slow=True)
def alternating() -> Iterator[Look]:
    for name in ("plain", "residual, zero init", "LSTM", "table"):
        make, batch = NETS[name]
        torch.manual_seed(0)
        model = fit(make(), batch, 60)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        with bnprobe.attach(model) as probe:
            for _ in range(3):
                model.train()
                for _ in range(6):
                    x, y = batch()
                    optimizer.zero_grad()
                    F.cross_entropy(model(x), y).backward()
                    optimizer.step()
                model.eval()
                with torch.no_grad():
                    for _ in range(4):
                        model(batch()[0])
        yield right(name, bnprobe.report(probe))


class GAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Unflatten(1, (16, 2, 2)),
            nn.ConvTranspose2d(16, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.critic = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1, bias=False),
            nn.GroupNorm(8, 32), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(128, 1),
        )  # fmt: skip


@CASES.add("a generative adversarial network")
def adversarial() -> Iterator[Look]:
    torch.manual_seed(0)
    model = GAN()
    for part in (model.generator, model.critic):
        for m in part.modules():
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(m.weight, 0, 0.02)
            if isinstance(m, nn.BatchNorm2d):
                nn.init.normal_(m.weight, 1, 0.02)
    parts = [torch.optim.Adam(p.parameters(), 2e-4, (0.5, 0.999)) for p in (model.critic, model.generator)]
    ones, zeros = torch.ones(32, 1), torch.zeros(32, 1)
    bce = F.binary_cross_entropy_with_logits

    def step() -> None:
        real = torch.tanh(images()[0])
        fake = model.generator(torch.randn(32, 16))
        parts[0].zero_grad()
        (bce(model.critic(real), ones) + bce(model.critic(fake.detach()), zeros)).backward()
        parts[0].step()
        parts[1].zero_grad()
        bce(model.critic(fake), ones).backward()
        parts[1].step()

    for title, before in (("first steps", 0), ("later", 100)):
        for _ in range(before):
            step()
        with bnprobe.attach(model) as probe:
            for _ in range(6):
                step()
        yield right(title, bnprobe.report(probe))
    with torch.no_grad():
        yield right("samples", told(model.generator.eval(), [torch.randn(32, 16) for _ in range(6)]))


@CASES.add("a new head on a backbone whose norms adapt")
def new_head() -> Iterator[Look]:
    for frozen in (False, True):
        torch.manual_seed(0)
        model = fit(convnet(depth=3), steps=150)
        model[-1] = nn.Linear(64, 4)

        def batch() -> Batch:
            x, y = images(32, classes().flip(0))
            return x * 0.9 + 0.05, y

        if frozen:
            model.requires_grad_(False)
            model[-1].requires_grad_(True)
            model.eval()
        for title, steps in (("first steps", 0), ("later", 80)):
            fit(model, batch, steps)
            yield right(f"frozen={frozen}, {title}", told(model, several(batch), loss=F.cross_entropy))
        yield right(f"frozen={frozen}, evaluation", told(model.eval(), several(batch)))


@CASES.add("gradient accumulation with large micro-batches")
def accumulation() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=3), steps=100)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    with bnprobe.attach(model) as probe:
        for _ in range(3):
            optimizer.zero_grad()
            for _ in range(4):
                x, y = images(32)
                (F.cross_entropy(model(x), y) / 4).backward()
            optimizer.step()
    yield right("4 x 32", bnprobe.report(probe))


@CASES.add("a self-supervised pair of views, with a predictor and a moving average")
def two_views() -> Iterator[Look]:
    class Byol(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = nn.Sequential(
                *list(convnet())[:-1], nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16)
            )
            self.target = copy.deepcopy(self.online).requires_grad_(False)
            self.predictor = nn.Sequential(
                nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16)
            )

        def train(self, mode: bool = True) -> Byol:
            super().train(mode)
            self.target.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            a, b = x + 0.3 * torch.randn_like(x), x + 0.3 * torch.randn_like(x)
            p = [self.predictor(self.online(v)) for v in (a, b)]
            with torch.no_grad():
                z = [self.target(v) for v in (b, a)]
            return sum(1 - F.cosine_similarity(p, z).mean() for p, z in zip(p, z, strict=True)) / 2

    torch.manual_seed(0)
    model = Byol().train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        model(images(64)[0]).backward()
        optimizer.step()
        follow(model.target, model.online, 0.95)

    for _ in range(120):
        step()
    with bnprobe.attach(model) as probe:
        for _ in range(6):
            step()
    yield right("training", bnprobe.report(probe))
