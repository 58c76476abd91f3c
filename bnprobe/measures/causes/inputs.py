"""Which mistake of preprocessing explains what the first norm measures, in mean and in variance.

The running means of the first norm determine the mean input of training (see `measures.stem`), so every map of the
inputs predicts which mean each channel must measure now. Its gain predicts the variance, together with the zeros that
a convolution puts around the image: these count as much as the image where the mean input is far from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.measures import padding
from bnprobe.measures.causes import fit
from bnprobe.measures.causes.fit import Moments2
from bnprobe.measures.causes.input_maps import AS_TRAINED, IN_USE, Mistake, merged, mistakes
from bnprobe.measures.padding import Equations
from bnprobe.measures.stem import LARGEST_CONDITION, LARGEST_RMSE, color_order, stem
from bnprobe.measures.verdict import never_updated
from bnprobe.recording import LayerRecord, Normalize, Recording
from bnprobe.stats.moments import Array

MEANS_ALIKE, SCALES_ALIKE = 0.1, 0.25
"""What images like those of training still differ by, once they are as bright: in means (pooled standard deviations) and in
the log of the std. The real ResNet-20 has .03 and .2 on its own test images, whose fine detail JPEG took."""

FITS = 2.0
"""In these units: what a mistake may leave, as root of the sum of squares of both."""

CLEAR = 1.5
"""Times what the best mistake leaves that every other one, and none at all, must leave for the best to be certain."""

CLEARLY = 0.4
"""By how much more, too: what nearly nothing leaves is no reason."""

LEAST_GUESSED, FITS_GUESSED = 0.6, 1.0
"""Discrepancy from which, and misfit up to which, a mistake is named by constants nobody gave: of several sets one always
comes near other light or contrast. Exchanged colors need none."""

BRIGHTER = np.linspace(-0.15, 0.15, 31)
"""Pixels (0 to 1) by which these images may be brighter than those of training, on average: other images, or black
that augmentation put around those of training. 32 photographs of ImageNet had 0.14."""

VAST = 4.0
"""Gain, up or down, that no other camera or light has: of inputs of several channels it is reported without a name."""

LIKE_255 = 50.0, 1500.0
"""Gains that 255 has together with the std of any images."""

NONE_KNOWN = "none"
"""Of a row that rests on no constants: it names no cause."""

COLUMNS = (
    "layer",
    "mistake",
    "also",
    "undo",
    "shift",
    "scale",
    "scale_predicted",
    "discrepancy",
    "left_over",
    "explains",
    "constants",
    "certain",
    "misfit",
    "weight",
)


@dataclass(frozen=True)
class _First:
    """The first norm as the maps of the inputs meet it; `mean` is the mean input of training, (F,)."""

    record: LayerRecord
    equations: Equations
    mean: Array
    seen: Moments2
    running: Moments2
    border: Array | None
    """Covariance over positions of what the zeros around the image make of a constant input, (C, F, F)."""

    @property
    def discrepancy(self) -> float:
        """What the running statistics as they are leave."""
        return fit.rms(fit.left(self.seen, self.running, self.record.eps))

    def predicted(self, mistake: Mistake, mean: Array) -> Moments2:
        """What the norm measures after a mistake, for the mean input `mean` before it."""
        there = mistake.on(mean)
        content = np.maximum(self.running.var - self._of_border(self.mean), 0.0)
        return Moments2(
            self.equations.matrix @ there, content * mistake.typical_gain**2 + self._of_border(there)
        )

    def _of_border(self, mean: Array) -> Array | float:
        """Variance over positions that a constant input has through the zeros around it, (C,)."""
        return 0.0 if self.border is None else np.einsum("cfg,f,g->c", self.border, mean, mean)

    def leaves(self, mistake: Mistake, means: Array) -> _Left:
        """Of the discrepancy, for the mean input that fits best of those in the rows of `means`."""
        each = (fit.parts(self.seen, self.predicted(mistake, mean), self.record.eps) for mean in means)
        return min((_Left(fit.rms(away), fit.rms(scale)) for away, scale in each), key=lambda one: one.misfit)


@dataclass(frozen=True)
class _Left:
    """What a prediction leaves, root mean square over channels: of the means, and of the log of the std."""

    mean: float
    scale: float

    @property
    def misfit(self) -> float:
        """In units of what images like those of training leave."""
        return float(np.hypot(self.mean / MEANS_ALIKE, self.scale / SCALES_ALIKE))

    @property
    def together(self) -> float:
        """As the discrepancy is measured."""
        return float(np.hypot(self.mean, self.scale))


def preprocessing(recording: Recording) -> pd.DataFrame:
    """The mistakes that explain the first norm's inputs, the best first; empty where none does.

    `shift` is how far the first norm's means moved (root mean square, in running σ), `scale` the typical standard
    discrepancy relative to the running one. `discrepancy` and `left_over` are as in `causes.fit`, before and after the
    mistake is taken into account, with the black that augmentation may have added; `explains` is the share of the squared
    discrepancy that is gone. `also` are other names of what fits as well, separated by "; ". `certain` is whether the
    mistake may be called the cause. Where the constants are not known and nothing explains the inputs, there is one row
    without a mistake ("").
    """
    first = _first(recording)
    rows = [] if first is None else _best_of_each(_explanations(first, recording))
    for row in rows:
        rivals = [str(other["mistake"]) for other in rows if other is not row and _rivals(row, other)]
        row["also"] = "; ".join(dict.fromkeys([*filter(None, row["also"].split("; ")), *rivals]))
        row["certain"] = row["constants"] != NONE_KNOWN and not rivals
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _best_of_each(found: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first, each mistake once: with several constants it may explain the inputs more than once."""
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(found, key=_badness):
        best.setdefault(row["mistake"], row)
    return list(best.values())


def _badness(row: dict[str, Any]) -> float:
    """What an explanation leaves; that of a mistake nobody makes by accident counts several times."""
    return float(row["misfit"] * row["weight"])


def _rivals(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether another mistake may be the cause as well: one nobody makes by accident only where it fits clearly better."""
    if other["weight"] > row["weight"]:
        return _is_clear(other["misfit"], row["misfit"])
    return not _is_clear(_badness(row), _badness(other))


def _is_clear(misfit: float, other: float) -> bool:
    """Whether one explanation leaves clearly less than another."""
    return other >= max(CLEAR * misfit, misfit + CLEARLY)


def _fits(row: dict[str, Any], mistake: Mistake) -> bool:
    """Whether a mistake predicts both mean and scale."""
    if row["constants"] == "given":
        return bool(row["misfit"] <= FITS)
    known = mistake.exchanged or row["discrepancy"] >= LEAST_GUESSED
    return bool(row["misfit"] <= FITS_GUESSED and known)


def _first(recording: Recording) -> _First | None:
    """The first norm, where its running statistics show the mean input of training; None otherwise."""
    reading = stem(recording)
    record = next((r for r in recording.layers if r.neighbours and r.neighbours.stem), None)
    # not by R²: where the mean input is near 0, as after a good normalization, there is little for it to explain
    readable = reading.condition <= LARGEST_CONDITION and reading.rmse <= LARGEST_RMSE
    if record is None or reading.mean_input is None or not readable or not (record.pre.n > 0).any():
        return None
    if never_updated(record):
        return None
    assert record.neighbours is not None
    assert record.neighbours.stem is not None
    equations, border = padding.equations(record), record.neighbours.stem.border
    good = padding.usable(record)
    measured, running = fit.seen(record), fit.stored(record)
    return _First(
        record,
        equations,
        np.array(reading.mean_input),
        Moments2(equations.seen, measured.var[good]),
        Moments2(equations.running, running.var[good]),
        None if border is None else border[good],
    )


def _explanations(first: _First, recording: Recording) -> Iterator[dict[str, Any]]:
    """A row for every mistake that fits, and clearly better than that these are other images."""
    if not 0 < first.discrepancy < np.inf:
        return
    given, found = recording.about.normalize, False
    for mistake, means, source in _candidates(first, given):
        row = _row(first, mistake, first.leaves(mistake, means), source)
        if _fits(row, mistake) and _is_clear(row["misfit"], first.leaves(AS_TRAINED, means).misfit):
            found = True
            yield row
    if given is None and not found:
        yield _rescaled(first)


def _candidates(first: _First, given: Normalize | None) -> Iterator[tuple[Mistake, Array, str]]:
    """Every map once, with the mean inputs that training may have had, and whether its constants were given."""
    assert first.record.neighbours is not None
    assert first.record.neighbours.stem is not None
    # what people do wrong with pixels says nothing of sequences and measurements
    if first.record.neighbours.stem.n_sides != 2:
        return
    each = [(constants, given is not None) for constants in constants_for(given, first.mean)]
    like = {id(constants): _alike(constants, first.mean) for constants, _ in each}
    of_map = [(mistake, like[id(constants)]) for constants, _ in each for mistake in mistakes(constants)]
    for mistake in merged(mistake for mistake, _ in of_map):
        means = next(means for one, means in of_map if one.is_like(mistake))
        yield mistake, means, "given" if given is not None else "guessed"


def _row(first: _First, mistake: Mistake, left: _Left, source: str) -> dict[str, Any]:
    discrepancy = first.discrepancy
    away = (first.seen.mean - first.running.mean) / first.equations.sigma
    return {
        "layer": first.record.layer,
        "mistake": mistake.what + (_direction(first, mistake) if mistake.exchanged else ""),
        "also": "; ".join(mistake.also),
        "undo": mistake.undo,
        "shift": fit.rms(away**2),
        "scale": _scale(first),
        "scale_predicted": mistake.typical_gain,
        "discrepancy": discrepancy,
        "left_over": left.together,
        "explains": fit.explained(left.together, discrepancy),
        "misfit": left.misfit,
        "constants": source,
        "weight": mistake.weight,
    }


def _direction(first: _First, mistake: Mistake) -> str:
    """Which side has the order of cv2.imread, by the mean color of training."""
    assert mistake.constants is not None
    pixels = first.mean * np.array(mistake.constants.std) + np.array(mistake.constants.mean)
    return {
        "RGB": " (these images are BGR, as cv2.imread returns them)",
        "BGR": " (training used BGR, as cv2.imread returns it, and these images are RGB)",
    }.get(color_order(pixels), "")


def _scale(first: _First) -> float:
    """Typical std relative to the running one, eps in both, so that no channel need be left out."""
    with np.errstate(all="ignore"):
        ratio = (first.seen.var + first.record.eps) / (first.running.var + first.record.eps)
    known = ratio[np.isfinite(ratio)]
    return float(np.sqrt(np.median(known))) if known.size else float("nan")


def _rescaled(first: _First) -> dict[str, Any]:
    """One gain and any offset, without a name: inputs of one channel, or a gain that no light and no camera has."""
    row = _row(first, AS_TRAINED, first.leaves(AS_TRAINED, first.mean[None]), NONE_KNOWN)
    gain = _scale(first)
    assert first.record.neighbours is not None
    assert first.record.neighbours.stem is not None
    n_inputs = first.mean.size
    images = first.record.neighbours.stem.n_sides == 2 or n_inputs == 1
    if not gain > 0 or not images or (n_inputs > 1 and 1 / VAST < gain < VAST):
        return row
    now = first.equations.solve(first.equations.matrix, first.equations.seen)
    offset = now - gain * first.mean
    if n_inputs == 1:
        undo = f"x = (x {-offset[0]:+.6g}) / {gain:.6g}"
    else:
        undo = (
            f"x = (x - torch.tensor(({''.join(f'{v:.6g}, ' for v in offset)})).view(-1, 1, 1)) / {gain:.6g}"
        )
    affine = Mistake("", undo, np.full(n_inputs, gain), offset)
    left = first.leaves(affine, first.mean[None])
    if left.misfit > min(FITS, row["misfit"] / CLEAR):
        return row
    what = f"every input was multiplied by {gain:.3g} (or −{gain:.3g}) and shifted by a constant"
    if LIKE_255[0] < gain < LIKE_255[1]:
        what += ", as pixels of 0 to 255 are that were not scaled to 0 to 1"
    return {**_row(first, affine, left, NONE_KNOWN), "mistake": what}


def _alike(constants: Normalize, mean: Array) -> Array:
    """Mean inputs of images that are like those of training, but for their brightness, (shades, F)."""
    return np.asarray(mean + BRIGHTER[:, None] / np.array(constants.std), dtype=np.float64)


def constants_for(given: Normalize | None, mean: Array) -> Iterator[Normalize]:
    """Those of the recording, else common ones under which the mean input of training is a color."""
    if given is not None:
        if len(given.mean) == mean.size:
            yield given
        return
    for constants in IN_USE:
        if len(constants.mean) != mean.size:
            continue
        pixels = mean * np.array(constants.std) + np.array(constants.mean)
        if pixels.min() >= 0 and pixels.max() <= 1:
            yield constants
