"""torchvision's mobilenet_v2 once more: float64, plain hooks, one image after the other, and nothing of bnprobe.

What the norms see of photographs (`Seen`), what the stem says of the training images (`training_colour`), and what the
layers before each norm imply for its running mean (`implied_means`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import norm as gaussian
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.mobilenetv2 import InvertedResidual

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""Of torchvision's preprocessing."""

SIDE = 224


def network(state: dict[str, Tensor]) -> nn.Module:
    """The architecture with these weights, in eval mode and float64."""
    model = mobilenet_v2(weights=None).double()
    model.load_state_dict(state)
    return model.eval()


def norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}


def vector(values: Tensor) -> np.ndarray:
    return values.detach().double().numpy()


def sigma(norm: nn.BatchNorm2d) -> np.ndarray:
    """What the norm divides by in eval mode, (C,)."""
    return np.sqrt(vector(norm.running_var) + norm.eps)


# What passes


@dataclass
class Seen:
    """Statistics of one side of one norm, per image: (C,) arrays, one in each list."""

    means: list[np.ndarray] = field(default_factory=list)
    variances: list[np.ndarray] = field(default_factory=list)
    lowest: list[np.ndarray] = field(default_factory=list)
    highest: list[np.ndarray] = field(default_factory=list)
    positive: list[np.ndarray] = field(default_factory=list)

    def add(self, image: Tensor) -> None:
        """One image's values, (C, H, W); the mean first, then the squares about it."""
        values = vector(image).reshape(image.shape[0], -1)
        mean = values.mean(1)
        self.means.append(mean)
        self.variances.append(((values - mean[:, None]) ** 2).mean(1))
        self.lowest.append(values.min(1))
        self.highest.append(values.max(1))
        self.positive.append((values > 0).mean(1))

    @property
    def mean(self) -> np.ndarray:
        return np.mean(self.means, axis=0)

    @property
    def var(self) -> np.ndarray:
        """Within images and between them; all have the same number of values."""
        return np.mean(self.variances, axis=0) + np.var(self.means, axis=0)

    @property
    def within(self) -> np.ndarray:
        """Share of the variance that lies inside single images; that between images has the divisor n - 1."""
        inside, between = np.mean(self.variances, axis=0), np.var(self.means, axis=0, ddof=1)
        with np.errstate(invalid="ignore"):
            return inside / (inside + between)

    @property
    def low(self) -> np.ndarray:
        return np.min(self.lowest, axis=0)

    @property
    def high(self) -> np.ndarray:
        return np.max(self.highest, axis=0)

    @property
    def fires(self) -> np.ndarray:
        """Share of values above 0."""
        return np.mean(self.positive, axis=0)


def seen(model: nn.Module, images: Tensor) -> dict[str, tuple[Seen, Seen]]:
    """What enters and what leaves each norm when the images (N, 3, H, W) pass."""
    sides = {name: (Seen(), Seen()) for name in norms(model)}

    def look(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before, after = sides[name]
        before.add(inputs[0][0])
        after.add(output[0])

    handles = [
        norm.register_forward_hook(lambda _, inputs, output, name=name: look(name, inputs, output))
        for name, norm in norms(model).items()
    ]
    with torch.no_grad():
        for image in images.double():
            model(image[None])
    for handle in handles:
        handle.remove()
    return sides


# What the weights say


def training_colour(model: nn.Module) -> np.ndarray:
    """Mean colour of the training images, (3,), that the stem's running means fit best, each in its own sigma.

    The first convolution is run on images that are 1 in one channel and 0 in the others: what it makes of them on
    average, the zeros around included, is how much that channel's mean adds to each running mean.
    """
    convolution, norm = model.features[0][0], model.features[0][1]
    with torch.no_grad():
        made = [convolution(image[None]).mean((0, 2, 3)) for image in unit_images()]
    matrix = np.stack([vector(one) for one in made], axis=1) / sigma(norm)[:, None]
    mean = np.linalg.lstsq(matrix, vector(norm.running_mean) / sigma(norm), rcond=None)[0]
    return mean * STD + MEAN


def unit_images() -> Iterator[Tensor]:
    for channel in range(3):
        image = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
        image[channel] = 1
        yield image


def implied_means(model: nn.Module) -> dict[str, np.ndarray]:
    """The mean that every norm but the first should remember, by the Gaussians that the norms before it aim at, (C,).

    Each convolution, with its zeros around, is run on one image per layer: in every channel the mean that the layer
    before hands on, the same everywhere.
    """
    found: dict[str, np.ndarray] = {}
    names = {module: name for name, module in model.named_modules()}
    carried, side = clipped_mean(model.features[0][1]), SIDE // 2
    for block in list(model.features)[1:]:
        entered = carried
        for convolution, norm, is_clipped in steps(block):
            flat = torch.from_numpy(carried).double()[None, :, None, None].expand(1, -1, side, side)
            with torch.no_grad():
                made = convolution(flat)
            found[names[norm]], side = vector(made.mean((0, 2, 3))), made.shape[-1]
            carried = clipped_mean(norm) if is_clipped else vector(norm.bias)
        if getattr(block, "use_res_connect", False):
            carried = carried + entered
    return found


def steps(block: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d, bool]]:
    """The convolutions of a block in their order, each with its norm and whether a ReLU6 follows that."""
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    following = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    last_is_linear = isinstance(block, InvertedResidual)
    clipped = [not (last_is_linear and norm is following[-1]) for norm in following]
    return list(zip(convolutions, following, clipped, strict=True))


def branch_shares(model: nn.Module) -> dict[str, float]:
    """Share of the branch in what a block with a skip adds up to, by the last norm of the branch.

    The branch has variance gamma^2, and so had each term of the skip: the last norm of the block that began the
    stage, and those of the branches since; mean over channels.
    """
    names, shares, skip = {module: name for name, module in model.named_modules()}, {}, 0.0
    for block in model.features:
        if not isinstance(block, InvertedResidual):
            continue
        last = steps(block)[-1][1]
        branch = float(np.mean(vector(last.weight) ** 2))
        if block.use_res_connect:
            shares[names[last]] = branch / (branch + skip)
            skip += branch
        else:
            skip = branch
    return shares


def clipped_mean(norm: nn.BatchNorm2d) -> np.ndarray:
    """E[min(max(x, 0), 6)] of x with mean beta and deviation |gamma|: what lies above 0, less what lies above 6."""
    beta, spread = vector(norm.bias), np.abs(vector(norm.weight))
    return above(beta, spread) - above(beta - 6, spread)


def above(mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """E[max(x, 0)] of Gaussian x."""
    with np.errstate(divide="ignore"):
        z = mean / spread
    return mean * gaussian.cdf(z) + spread * gaussian.pdf(z)


def r_squared(norm: nn.BatchNorm2d, implied: np.ndarray) -> float:
    """Share of the running means' spread over channels that was implied; both in sigmas of the norm."""
    truth, guess = vector(norm.running_mean) / sigma(norm), implied / sigma(norm)
    return float(1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
