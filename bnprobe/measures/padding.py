"""The share of black around the training images: the first norm's running means against the means of this run.

If the run's images are as bright as those of training were (with the color left free, every padding fits), the running
means lie on the way from the means measured now to those that black would give; the share follows by least
squares. A random crop of a padded image is black at the border more often than in the middle, so each padding in
`neighbours.Stem.crops` is a point of that way, and is believed where its residual is below half of that of an even
mixture, and no other padding is as likely. Which images happened to be run moves the share along that very way, where no
residual shows it: its error is that of the means seen, in that direction. F input channels, C equations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bnprobe.measures.dependence import counts_folds
from bnprobe.measures.standard_errors import n_running
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Crop
from bnprobe.stats.jackknife import jackknife
from bnprobe.stats.moments import Array

LEFT_OVER = 0.5
"""Of the mixture's residual: what a crop must at most leave to be believed."""

LARGEST_RMSE = 0.05
"""In running σ: what may be left over of images that are like those of training."""

LEAST_SHARE = -0.02
"""Below, by more than two errors, the images of the run are the darker ones, and no black was added to those of training."""


@dataclass(frozen=True)
class Padding:
    """How much black augmentation put into the training images, if they are otherwise like the run's.

    `share` (0 to 1) is that of a random crop with `pixels` of padding on each side where one alone was found; else
    `pixels` is None and it is the one between the crops that fits best. `share_se` is its standard error, before a single
    crop was found, and `possible` are all paddings within two of them. `share_mixed` is the share of an even mixture with
    black. `rmse` is what is left over, in running σ. `corr_clean` and `corr_padded` compare the running means with
    what the run's images give as they are, and with the black.
    """

    share: float
    pixels: int | None
    share_mixed: float
    share_se: float
    rmse: float
    corr_clean: float
    corr_padded: float
    possible: tuple[int, ...] = ()

    @property
    def is_seen(self) -> bool:
        """Whether there is any black: a share that images and running means without it have in 2% of recordings.

        Two errors and a little, with those of no black: 20 folds leave 19 degrees of freedom.
        """
        return self.share >= max(LEAST_SEEN, 2.2 * self.share_se / max(1 - self.share, 0.1))


LEAST_SEEN = 0.01
"""Share of black below which none is said to be there, however sure."""


def _exact(weights: Array) -> float:
    """The error of means without any."""
    return 0.0


@dataclass(frozen=True)
class Equations:
    """matrix @ mean input = running: (C, F) and (C,), without the bias, and `sigma`, the running σ.

    `seen` is what the run's images gave in place of `running`, the running means; `error_of(weights)` is the standard
    error of a weighted sum of seen − running, by the choice of images.
    """

    matrix: Array
    running: Array
    seen: Array
    sigma: Array
    bias: Array
    crops: tuple[Crop, ...]
    error_of: Callable[[Array], float] = _exact

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
        error_of=lambda weights: _error_of(record, good, weights),
    )


def _error_of(record: LayerRecord, good: Array, weights: Array) -> float:
    """Of the sum over the `good` channels, by folds of whole batches, which know how the channels of an image vary together.

    Without enough of them, as if all moved together in the worst way. The running means add their own noise.
    """
    n = float(np.median(record.pre_images.n[good])) if good.any() else 0.0
    folds = record.pre_folds
    if folds is not None and counts_folds(record):
        error = float(jackknife(*folds.leave_out(lambda a, b: a[..., good] @ weights)).se)
    else:
        error = (
            float((np.abs(weights) * np.sqrt(record.pre_images.var_between[good] / n)).sum()) if n else np.nan
        )
    return error * float(np.sqrt(1 + n / n_running(record)))


def padding(equations: Equations, black: Array) -> Padding | None:
    """The share of black in the training images; `black` is a black pixel as the model's input, (F,).

    None where the run's images are black themselves, or not like those of training.
    """
    towards = equations.matrix @ black - equations.seen
    mixed = _mixture(equations, towards)
    mixture = equations.seen + mixed * towards
    left = equations.rmse(mixture)
    if not left <= LARGEST_RMSE:
        return None
    fits = [(mixed, mixture), *_between_crops(equations, black)]
    share, predicted = min(fits, key=lambda fit: equations.rmse(fit[1]))
    error = _error(equations, towards, share, predicted)
    if share < LEAST_SHARE - 2 * error:
        return None
    possible = tuple(crop.padding for crop in equations.crops if abs(crop.share - share) <= 2 * error)
    crop = _best_crop(equations, black, left)
    if crop is not None and set(possible) <= {crop.padding}:
        share, predicted, possible = crop.share, _cropped(equations, crop, black), (crop.padding,)
    else:
        crop = None
    return Padding(
        share=share,
        pixels=None if crop is None else crop.padding,
        share_mixed=mixed,
        share_se=error,
        rmse=equations.rmse(predicted),
        corr_clean=equations.correlation(equations.seen),
        corr_padded=equations.correlation(predicted),
        possible=possible,
    )


def _mixture(equations: Equations, towards: Array) -> float:
    """How far from the means seen towards black the running means are; NaN where that is no way."""
    away, direction = (equations.running - equations.seen) / equations.sigma, towards / equations.sigma
    energy = float((direction**2).sum())
    return float((away * direction).sum() / energy) if energy > 0 else float("nan")


def _error(equations: Equations, towards: Array, share: float, predicted: Array) -> float:
    """Standard error of a share: by what it leaves over, and by the choice of images, which leaves nothing over."""
    direction, left = towards / equations.sigma, (equations.running - predicted) / equations.sigma
    energy = float((direction**2).sum())
    by_residuals = float(np.sqrt((left**2).sum() / max(left.size - 1, 1) / energy))
    # where the means seen move, the far end stays where it is: the share of what is left of the way
    by_images = (1 - share) * equations.error_of(direction / equations.sigma / energy)
    return float(np.hypot(by_residuals, by_images))


def _between_crops(equations: Equations, black: Array) -> Iterator[tuple[float, Array]]:
    """The share that fits best on each step of the way from no black over the crops, and what it predicts.

    The way goes on in a straight line before its first and beyond its last point.
    """
    points = [(0.0, equations.seen)]
    points += [(crop.share, _cropped(equations, crop, black)) for crop in equations.crops]
    for i, ((share, here), (next_share, there)) in enumerate(pairwise(points)):
        step = (there - here) / equations.sigma
        energy = float(step @ step)
        part = float((equations.running - here) / equations.sigma @ step) / energy if energy > 0 else 0.0
        part = min(max(part, -np.inf if i == 0 else 0.0), np.inf if i == len(points) - 2 else 1.0)
        yield share + part * (next_share - share), here + part * (there - here)


def _cropped(equations: Equations, crop: Crop, black: Array) -> Array:
    """What the norm would see of random crops of the run's images with black around them."""
    seen = equations.solve(equations.matrix, equations.seen)
    return equations.seen + (crop.matrix - equations.matrix) @ (seen - black)


def _best_crop(equations: Equations, black: Array, left: float) -> Crop | None:
    """The padding with the smallest residual; None where that is not clearly below the mixture's `left`."""
    tried = [(equations.rmse(_cropped(equations, crop, black)), i) for i, crop in enumerate(equations.crops)]
    least, i = min(tried, default=(np.inf, 0))
    return equations.crops[i] if least < LEFT_OVER * left else None
