"""Cases that were made up: norms and parts with more than one use, and weights set to 0; each beside a right twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, checked, convnet, fit, images, several, told

CASES = Cases("several uses, pruning")


class Adversaries(nn.Module):
    """A generator and a critic, both with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Unflatten(1, (16, 2, 2)),
            nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.critic = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.LeakyReLU(0.2), nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(256, 1),
        )  # fmt: skip


@CASES.add("a critic that is called twice for each step of the generator", slow=True)
def toggled() -> Iterator[Look]:
    torch.manual_seed(0)
    model = Adversaries()
    steps = [torch.optim.Adam(part.parameters(), 2e-4) for part in (model.critic, model.generator)]
    loss, ones, zeros = F.binary_cross_entropy_with_logits, torch.ones(32, 1), torch.zeros(32, 1)

    def step() -> None:
        real, fake = torch.tanh(images()[0]), model.generator(torch.randn(32, 16))
        model.critic.requires_grad_(False)
        steps[1].zero_grad()
        loss(model.critic(fake), ones).backward()
        steps[1].step()
        model.critic.requires_grad_(True)
        steps[0].zero_grad()
        loss(model.critic(torch.cat([real, fake.detach()])), torch.cat([ones, zeros])).backward()
        steps[0].step()

    for _ in range(60):
        step()
    with bnprobe.attach(model) as probe:
        for _ in range(6):
            step()
    yield right("training", bnprobe.report(probe))
    yield right("file", checked(model.state_dict()))
    state = model.state_dict()
    state["critic.1.num_batches_tracked"] *= 2
    yield fault("one norm alone, file", checked(state), Must("batches-differ", "critic.1"))


class Slimmable(nn.Module):
    """Two widths of one network, which share weights, and norms unless there is one for each."""

    def __init__(self, n_norms: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(n, 16, 3, padding=1, bias=False) for n in (3, 16))
        self.first, self.second = (
            nn.ModuleList([nn.BatchNorm2d(16) for _ in range(n_norms)]) for _ in range(2)
        )
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), 4)
        for width, first, second in zip((16, 4), [*self.first] * 2, [*self.second] * 2, strict=False):
            h = first(self.one(x)).relu() * (torch.arange(16) < width)[:, None, None]
            total = total + self.out(second(self.two(h)).relu().mean((2, 3)))
        return total


@CASES.add("widths of a slimmable network share their norms")
def slimmable() -> Iterator[Look]:
    for n_norms in (1, 2):
        torch.manual_seed(0)
        report = told(fit(Slimmable(n_norms), steps=120).eval(), several())
        if n_norms == 1:
            yield fault("shared", report, Must("calls-differ", "second"))
        else:
            yield right("one for each", report)


class OverLast(nn.Module):
    """A layer norm behind a convolution, on the features or, by mistake, along the width."""

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        self.norm, self.last = nn.LayerNorm(width), last

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1) if self.last else self.norm(x)


@CASES.add("a layer norm along the width of images that are as wide as they have features")
def over_width() -> Iterator[Look]:
    for last in (False, True):
        torch.manual_seed(0)
        model = fit(convnet(8, norm=lambda width, last=last: OverLast(width, last)))
        report = told(model.eval(), several())
        if last:
            yield right("features last", report)
        else:
            yield fault("as it comes", report, Must("positions-as-channels", "1", ("width",)))


def smallest_filters(model: nn.Module) -> dict[str, Tensor]:
    """For the weights of each convolution, which to keep: all but the six shortest filters."""
    masks = {}
    for name, weight in model.named_parameters():
        if weight.dim() == 4:
            keep = torch.ones_like(weight)
            keep[weight.flatten(1).norm(dim=1).argsort()[:6]] = 0
            masks[name] = keep
    return masks


@CASES.add("filters are pruned to 0, and the running statistics stay", slow=True)
def pruned() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=3), steps=150)
    masks = smallest_filters(model)

    def prune() -> None:
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_parameter(name).mul_(mask)

    prune()
    by_statistics = Must("data-shifted|filters-decayed", words=("pruned",))
    yield fault("not trained on", told(model.eval(), several()), by_statistics)
    yield fault("file", checked(model.state_dict()), Must("filters-decayed", words=("pruned",)))
    for _ in range(120):
        fit(model.train(), steps=1)
        prune()
    yield right("trained on, training", told(model, several(), loss=F.cross_entropy))
    yield right("trained on, evaluation", told(model.eval(), several()))


def of_other_light(n: int) -> Callable[[], Batch]:
    """Batches of images each of which has a light of its own."""

    def batch() -> Batch:
        x, y = images(n)
        return x + 2 * torch.randn(n, 1, 1, 1), y

    return batch


@CASES.add("training on one image at a time")
def one_at_a_time() -> Iterator[Look]:
    for n in (1, 32):
        torch.manual_seed(0)
        model = fit(convnet(), of_other_light(n), 60, lr=1e-3)
        report = told(model, several(of_other_light(n), 8), loss=F.cross_entropy)
        if n == 1:
            yield fault("batches of 1", report, Must("few-values", "1", ("single sample",)))
        else:
            yield right("batches of 32", report)


@CASES.add("conditional batch norm, sampled in train mode")
def conditional() -> Iterator[Look]:
    class Conditional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.embed = nn.BatchNorm2d(16, affine=False), nn.Embedding(4, 32)
            self.embed.weight.data[:, :16] = 1 + 0.02 * torch.randn(4, 16)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            gain, offset = self.embed(y)[:, :, None, None].chunk(2, 1)
            return self.norm(x) * gain + offset

    class Painter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.norm = nn.Linear(16, 256), Conditional()
            self.paint = nn.ConvTranspose2d(16, 3, 4, 2, 1)

        def forward(self, y: Tensor) -> Tensor:
            h = self.start(torch.randn(len(y), 16)).view(-1, 16, 4, 4)
            return self.paint(self.norm(h, y).relu())

    torch.manual_seed(0)
    model = Painter()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with bnprobe.attach(model) as probe:
        for _ in range(60):
            x, y = images()
            optimizer.zero_grad()
            F.mse_loss(model(y), x).backward()
            optimizer.step()
    yield right("training", bnprobe.report(probe))
    labels = [torch.randint(0, 4, (32,)) for _ in range(6)]
    with torch.no_grad():
        yield fault("sampling in train mode", told(model, labels), Must("train-mode-in-evaluation"))
        yield right("sampling in eval mode", told(model.eval(), labels))
