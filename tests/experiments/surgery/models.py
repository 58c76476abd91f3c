"""Small networks whose norms can be taken out, and those whose norms cannot, each for one reason."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lived_in(model: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with statistics, γ and β as training might leave them; some γ are negative."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            c = module.running_mean.shape
            module.running_mean.copy_(torch.randn(c, generator=g))
            module.running_var.copy_(torch.rand(c, generator=g) + 0.3)
            if module.weight is not None:
                module.weight.data.copy_(torch.randn(c, generator=g) + 0.5)
                module.bias.data.copy_(torch.randn(c, generator=g))
    return model.eval()


def pictures(n: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, 4, 7, 5, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """A convolution, a norm, and what `forward` of a subclass makes of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.more()

    def more(self) -> None:
        """What a subclass has besides."""

    def forward(self, x: Tensor) -> Any:
        return self.bn(self.conv(x)).relu()


class PreActivation(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x).relu())


class NormOfASum(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x) + x)


class AfterReLU(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).relu())


class AlsoSkips(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y


class AlsoReturned(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        return self.bn(y), y


class TwoNorms(Net):
    def more(self) -> None:
        self.other = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + self.other(y)


class UsedTwice(Net):
    """The norm's second call reads the input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) + self.bn(x)


class TiedWeights(Net):
    def more(self) -> None:
        self.tied = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.tied.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.bn(self.conv(x)).relu())


class ReadsTheWeight(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.conv.weight.abs().mean()


class Parametrized(Net):
    def more(self) -> None:
        nn.utils.parametrizations.weight_norm(self.conv)


class Standardized(Net):
    def forward(self, x: Tensor) -> Tensor:
        w = self.conv.weight
        return self.bn(F.conv2d(x, w - w.mean((1, 2, 3), keepdim=True), padding=1))


class Moved(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).roll(1, 1))


class HookOnTheNorm(Net):
    def more(self) -> None:
        self.bn.register_forward_hook(lambda module, args, output: None)


class HookOnTheConvolution(Net):
    def more(self) -> None:
        self.conv.register_forward_hook(lambda module, args, output: None)


class InTrainMode(Net):
    def train(self, mode: bool = True) -> InTrainMode:
        super().train(mode)
        self.bn.training = True
        return self


class WithoutStatistics(Net):
    def more(self) -> None:
        self.bn = nn.BatchNorm2d(4, track_running_stats=False)


class Tracked(nn.BatchNorm2d):
    """A norm with its activation inside, as in timm."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class FusedActivation(Net):
    def more(self) -> None:
        self.bn = Tracked(4)


class Biasless(nn.Conv2d):
    """A convolution that never looks at its bias."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1)


class IgnoresItsBias(Net):
    def more(self) -> None:
        self.conv = Biasless(4, 4, 3, bias=False)


class SharedVectors(Net):
    def more(self) -> None:
        self.other = nn.BatchNorm2d(4)
        self.other.weight = self.bn.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.bn(self.conv(x)).relu())


class NotFinite(Net):
    def train(self, mode: bool = True) -> NotFinite:
        super().train(mode)
        self.bn.running_var[1] = float("nan")
        return self


class NeverCalled(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return F.batch_norm(y, self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias)


REFUSED: tuple[tuple[type[Net], str], ...] = (
    (PreActivation, "it reads the model's input"),
    (NormOfASum, "it reads a sum"),
    (AfterReLU, "it reads the output of relu"),
    (AlsoSkips, "the output of conv is used elsewhere"),
    (AlsoReturned, "the output of conv is used elsewhere"),
    (TwoNorms, "the output of conv is used elsewhere"),
    (UsedTwice, "it reads the model's input"),
    (TiedWeights, "the weight of conv is computed in each pass, or shared"),
    (ReadsTheWeight, "the weight of conv is computed in each pass, or shared"),
    (Parametrized, "the weight of conv is computed in each pass, or shared"),
    (Standardized, "the weight of conv is computed in each pass, or shared"),
    (Moved, "channels are moved, cut or padded"),
    (HookOnTheNorm, "it has hooks of yours"),
    (HookOnTheConvolution, "conv has hooks of yours"),
    (InTrainMode, "it is in train mode"),
    (WithoutStatistics, "it stores no running statistics"),
    (FusedActivation, r"its output is not scale · x \+ shift"),
    (IgnoresItsBias, "measured: folding it into conv would change its output"),
    (SharedVectors, "it shares vectors with another module"),
    (NotFinite, "do not give a finite scale and shift"),
    (NeverCalled, "these batches do not reach it"),
)
"""Networks whose norm `bn` cannot be folded, and what the table or the error says of it."""
