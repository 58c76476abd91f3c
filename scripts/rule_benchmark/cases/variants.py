"""Other cases of the same kinds, written before the rules for them were tried on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from scripts.rule_benchmark.cases.case import ANY, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, checked, compared, convnet, fit, images, several, told

CASES = Cases("variants of these kinds")


class ZeroRows(nn.Module):
    """An RMS norm without eps, whose input has rows of zeros in some passes."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(16)), eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt().clamp_min(1e-12)


class RMSNorm(ZeroRows):
    pass


@CASES.add("the gradient of a root at zero, in one pass of six")
def root_at_zero() -> Iterator[Look]:
    for eps in (0.0, 1e-6):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16, bias=False), RMSNorm(eps), nn.Linear(16, 4))
        data = several(lambda: (torch.randn(32, 8), torch.randint(0, 4, (32,))))
        data[3][0][5] = 0
        report = told(model, data, loss=F.cross_entropy)
        if eps:
            yield right("eps 1e-6", report)
        else:
            yield fault("no eps", report, Must("gradient-not-finite", "1", ("1 of 6",), ("critical",)))


@CASES.add("a loss whose gradient is infinite")
def infinite_loss() -> Iterator[Look]:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        p = out.softmax(1)
        return -(p.pow(0.5) * F.one_hot(y, 4)).sum(1).mean() + (p - p.detach()).abs().sqrt().mean()

    torch.manual_seed(0)
    report = told(convnet(), several(), loss=loss)
    yield fault("training", report, Must("gradient-not-finite", "4", ("arrive|behind|after",), ("critical",)))


def noisy(make: Callable[[], nn.Module]) -> nn.Module:
    return fit(convnet(depth=3, between=lambda: [make()]), steps=250)


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class Noise(nn.Module):
    """Gaussian noise while training, a regularizer."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


@CASES.add("dropout of channels before a convolution and a batch norm")
def dropout_before_convolution() -> Iterator[Look]:
    torch.manual_seed(0)
    model = noisy(lambda: nn.Dropout2d(0.5))
    yield fault("evaluation", told(model.eval(), several(n=10)), Must(".*", words=("dropout",)))


@CASES.add("what acts in training only, without a module of its own name")
def functional_dropout() -> Iterator[Look]:
    def batch() -> Batch:
        x = torch.randn(64, 20) + 1.5
        return x, x[:, :4].argmax(1)

    def block(a: int, b: int, make: Callable[[], nn.Module]) -> list[nn.Module]:
        return [make(), nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()]

    for name, make in (("F.dropout", FunctionalDropout), ("noise", Noise)):
        torch.manual_seed(0)
        model = nn.Sequential(*block(20, 64, make), *block(64, 64, make), nn.Linear(64, 4))
        data = several(batch, 10)
        in_training = bnprobe.record(fit(model, batch, 200), data, loss=F.cross_entropy)
        both = bnprobe.compare(bnprobe.record(model.eval(), data), in_training)
        yield fault(name, both, Must(".*", words=("in training|training mode|train mode",), severities=ANY))


@CASES.add("a converter writes the deviation, or its inverse, for the variance")
def other_quantity() -> Iterator[Look]:
    def square_root(v: Tensor) -> Tensor:
        return v.sqrt()

    def inverse(v: Tensor) -> Tensor:
        return (v + 1e-5).rsqrt()

    for name, change in (("deviation", square_root), ("inverse deviation", inverse)):
        torch.manual_seed(0)
        model = fit(convnet(depth=3)).eval()
        with torch.no_grad():
            model[0].weight *= 7
            for m in model.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.running_var.copy_(change(m.running_var * 40))
        report = told(model, several())
        yield fault(name, report, Must("data-shifted|input-not-as-trained|.*statistic.*"))


@CASES.add("gamma and beta, or mean and variance, change places")
def swapped() -> Iterator[Look]:
    for a, b in (("weight", "bias"), ("running_mean", "running_var")):
        torch.manual_seed(0)
        model = fit(convnet(depth=3), steps=200)
        state = model.state_dict()
        for path in ("1", "4", "7"):
            state[f"{path}.{a}"], state[f"{path}.{b}"] = state[f"{path}.{b}"], state[f"{path}.{a}"]
        other = copy.deepcopy(model)
        other.load_state_dict(state)
        yield fault(f"{a} and {b}, file", checked(state), Must("vectors-swapped", words=("changed places",)))
        yield fault(f"{a} and {b}, data", told(other.eval(), several()), Must(".*"))


@CASES.add("a target network follows its student's batches")
def target_network() -> Iterator[Look]:
    class SelfSupervised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online, self.target = convnet(), convnet().requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.target(x + 0.3 * torch.randn_like(x))
            return self.online(x)

    torch.manual_seed(0)
    model = fit(SelfSupervised(), steps=40)
    report = told(model, several(), loss=F.cross_entropy)
    yield fault("training", report, Must(".*", "target", ("train mode",)))
    # as these methods do: a moving average of the student, which is a trained network
    model.target = copy.deepcopy(model.online).requires_grad_(False).eval()
    yield right("target in eval mode", told(model, several(), loss=F.cross_entropy))


class OwnNorm(nn.Module):
    """A layer norm written by hand, wrong in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(24)), nn.Parameter(torch.zeros(24))
        self.how, self.eps = how, 0.03

    def forward(self, x: Tensor) -> Tensor:
        dims: tuple[int, ...] = {"batch": (0,), "time": (1,), "sample": (1, 2)}.get(self.how, (-1,))
        mean = x.mean(dims, keepdim=True)
        var = x.var(dims, unbiased=self.how == "unbiased", keepdim=True)
        std = var.sqrt() + self.eps if self.how == "outside" else (var + self.eps).sqrt()
        z = (x if self.how == "not centred" else x - mean) / std
        out = (1 + self.weight if self.how == "one more" else self.weight) * z + self.bias
        return F.gelu(out) if self.how == "gelu" else out


class LayerNorm(OwnNorm):
    pass


WORDS = {
    "batch": "batch|samples",
    "time": "dimension 1|time|position",
    "sample": "sample|positions|dimensions",
    "not centred": "centr|mean",
    "gelu": "gelu",
    "unbiased": "unbiased|n - 1|N - 1|divid",
    "outside": "outside|eps",
}


@CASES.add("a layer norm written by hand")
def by_hand() -> Iterator[Look]:
    for how, words in WORDS.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 24), LayerNorm(how), nn.Linear(24, 4)).eval()
        data = [torch.randn(16, 12, 8) for _ in range(6)]
        yield fault(how, told(model, data), Must(".*", "1", (words,), ANY))
    model = nn.Sequential(nn.Linear(8, 24), LayerNorm("right"), nn.Linear(24, 4)).eval()
    yield right("right", told(model, data))


@CASES.add("a batch norm on a large mean")
def batch_norm_on_a_large_mean() -> Iterator[Look]:
    for offset in (3e5, 0.0):

        def batch(offset: float = offset) -> Batch:
            x, y = images()
            return x * 0.05 + offset, y

        torch.manual_seed(0)
        norm = nn.BatchNorm2d(3)
        model = nn.Sequential(norm, *convnet())
        fit(model, batch, 60)
        report = told(model.eval(), several(batch))
        if offset:
            yield fault("offset 300,000", report, Must(".*", "0", ("rounding|digits|cancel", "mean")))
        else:
            yield right("no offset", report)


@CASES.add("one channel of one norm is ruined")
def one_channel() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(64, depth=3), steps=150).eval()
    data = several(n=8)
    yield right("as it was", told(model, data))
    with torch.no_grad():
        model[4].running_mean[17] += 6 * (model[4].running_var[17]).sqrt()
    yield fault("running mean of channel 17", told(model, data), Must(".*", "4", ("17",)))


@CASES.add("the same change in every norm")
def same_change() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(convnet(depth=4), steps=150).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for m in other.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight *= 1.7
    both = compared(model.state_dict(), other.state_dict())
    yield fault("files", both, Must(".*", words=(r"1\.7", "every|all"), severities=ANY))
    yield right("the same file twice", compared(model.state_dict(), model.state_dict()))


@CASES.add("only other tensors differ")
def other_tensors() -> Iterator[Look]:
    torch.manual_seed(0)
    state = fit(convnet()).state_dict()
    other = {k: v.clone() for k, v in state.items()}
    other["8.weight"] *= 3
    other["0.weight"] += 0.1
    both = compared(state, other)
    yield fault("files", both, Must(".*", words=("2 other tensors|2 tensors",), severities=ANY))


@CASES.add("a fresh network is evaluated")
def untrained() -> Iterator[Look]:
    torch.manual_seed(0)
    report = told(convnet(depth=3).eval(), several())
    yield fault("new", report, Must(".*", words=("untrained",), severities=ANY))
