"""The share of black around the training images: the first norm's running means against the means of this run.

If the run's images are like those of training, the running means are a mixture of the means measured now with
what black would give; its share follows by least squares. A random crop of a padded image is black at the
border more often than in the middle, so each padding in `neighbours.Stem.crops` predicts the running
means without anything left to fit, and is believed where its residual is below half of the mixture's.
F input channels, C equations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Crop
from bnprobe.stats.moments import Array

LEFT_OVER = 0.5
"""Of the mixture's residual: what a crop must at most leave to be believed."""

LARGEST_RMSE = 0.05
"""In running σ: what may be left over of images that are like those of training."""

LEAST_SHARE = -0.02
"""Below, the images of the run are the darker ones, and no black was added to those of training."""


@dataclass(frozen=True)
class Padding:
    """How much black augmentation put into the training images, if they are otherwise like the run's.

    `share` (0 to 1) is that of a random crop with `pixels` of padding on each side where one was found; else
    `pixels` is None and it is `share_mixed`, that of the mixture with black that fits best, whose standard
    error by the residuals is `share_se`; which images happened to be run adds to it. `rmse` is what is left
    over, in running σ. `corr_clean` and `corr_padded` compare the running means with what
    the run's images give as they are, and with the black.
    """

    share: float
    pixels: int | None
    share_mixed: float
    share_se: float
    rmse: float
    corr_clean: float
    corr_padded: float


@dataclass(frozen=True)
class Equations:
    """matrix @ mean input = running: (C, F) and (C,), without the bias, and `sigma`, the running σ.

    `seen` is what the run's images gave in place of `running`, the running means.
    """

    matrix: Array
    running: Array
    seen: Array
    sigma: Array
    bias: Array
    crops: tuple[Crop, ...]

    def weighed(self, matrix: Array) -> Array:
        """Rows in running σ."""
        return matrix / self.sigma[:, None]

    def solve(self, matrix: Array, target: Array) -> Array:
        """The mean input that fits best, (F,)."""
        solution = np.linalg.lstsq(self.weighed(matrix), target / self.sigma, rcond=None)[0]
        return np.asarray(solution, dtype=np.float64)

    def rmse(self, predicted: Array) -> float:
        """What a prediction leaves over of the running means, in running σ."""
        return float(np.sqrt(np.mean(((self.running - predicted) / self.sigma) ** 2)))

    def correlation(self, predicted: Array) -> float:
        """Pearson's, of the running means with a prediction of them; NaN where one of the two is constant."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.corrcoef(self.running + self.bias, predicted + self.bias)[0, 1])


def usable(record: LayerRecord) -> Array:
    """Which channels of a norm with running statistics and a stem have only finite numbers, (C,) of bool."""
    stem = record.neighbours.stem if record.neighbours else None
    assert stem is not None
    assert record.running_mean is not None
    assert record.running_var is not None
    bias = np.zeros(record.n_channels) if stem.bias is None else stem.bias
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(record.running_var + record.eps)
    numbers = [stem.matrix, record.running_mean, record.pre.mean_seen, sigma, bias]
    good: Array = np.isfinite(np.column_stack(numbers)).all(axis=1) & (sigma > 0)
    return good


def equations(record: LayerRecord) -> Equations:
    """Those of the usable channels."""
    good = usable(record)
    stem = record.neighbours.stem if record.neighbours else None
    assert stem is not None
    assert record.running_mean is not None
    assert record.running_var is not None
    bias = np.zeros(record.n_channels) if stem.bias is None else stem.bias
    return Equations(
        matrix=stem.matrix[good],
        running=(record.running_mean - bias)[good],
        seen=(record.pre.mean_seen - bias)[good],
        sigma=np.sqrt(record.running_var[good] + record.eps),
        bias=bias[good],
        crops=tuple(Crop(crop.padding, crop.share, crop.matrix[good]) for crop in stem.crops),
    )


def padding(equations: Equations, black: Array) -> Padding | None:
    """The share of black in the training images; `black` is a black pixel as the model's input, (F,).

    None where the run's images are black themselves, or not like those of training.
    """
    towards = equations.matrix @ black - equations.seen
    share, error = _mixture(equations, towards)
    mixed = equations.seen + share * towards
    left = equations.rmse(mixed)
    if not (left <= LARGEST_RMSE and share >= LEAST_SHARE):
        return None
    crop = _best_crop(equations, black, left)
    predicted = mixed if crop is None else _cropped(equations, crop, black)
    return Padding(
        share=share if crop is None else crop.share,
        pixels=None if crop is None else crop.padding,
        share_mixed=share,
        share_se=error,
        rmse=equations.rmse(predicted),
        corr_clean=equations.correlation(equations.seen),
        corr_padded=equations.correlation(predicted),
    )


def _mixture(equations: Equations, towards: Array) -> tuple[float, float]:
    """How far from the means seen towards black the running means are, and its standard error."""
    away = (equations.running - equations.seen) / equations.sigma
    direction = towards / equations.sigma
    energy = float((direction**2).sum())
    if not energy > 0:
        return float("nan"), float("nan")
    share = float((away * direction).sum() / energy)
    left = away - share * direction
    return share, float(np.sqrt((left**2).sum() / max(left.size - 1, 1) / energy))


def _cropped(equations: Equations, crop: Crop, black: Array) -> Array:
    """What the norm would see of random crops of the run's images with black around them."""
    seen = equations.solve(equations.matrix, equations.seen)
    return equations.seen + (crop.matrix - equations.matrix) @ (seen - black)


def _best_crop(equations: Equations, black: Array, left: float) -> Crop | None:
    """The padding with the smallest residual; None where that is not clearly below the mixture's `left`."""
    tried = [(equations.rmse(_cropped(equations, crop, black)), i) for i, crop in enumerate(equations.crops)]
    least, i = min(tried, default=(np.inf, 0))
    return equations.crops[i] if least < LEFT_OVER * left else None
