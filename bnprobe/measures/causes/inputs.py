"""Which mistake of preprocessing explains what the first norm measures, in mean and in variance.

The running means of the first norm determine the mean input of training (see `measures.stem`), so every map of the
inputs predicts which mean each channel must measure now. Its gain predicts the variance, together with the zeros that
a convolution puts around the image: these count as much as the image where the mean input is far from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bnprobe.measures import padding
from bnprobe.measures.causes import fit, samples
from bnprobe.measures.causes.fit import Moments2
from bnprobe.measures.causes.input_channels import gain_of, in_one_gain, of_channels
from bnprobe.measures.causes.input_maps import (
    AS_TRAINED,
    IN_USE,
    Mistake,
    exposures,
    merged,
    mistakes,
)
from bnprobe.measures.causes.rivals import (
    CLEAR,
    FITS,
    LEAST_GUESSED,
    NOT_SURELY,
    best_of_each,
    fits_well,
    is_clear,
    others,
)
from bnprobe.measures.padding import Equations
from bnprobe.measures.stem import LARGEST_CONDITION, LARGEST_RMSE, color_order, stem
from bnprobe.measures.verdict import never_updated
from bnprobe.recording import LayerRecord, Normalize, Recording
from bnprobe.recording.names import NO_CONSTANTS, NO_PIXELS
from bnprobe.recording.neighbours import Stem
from bnprobe.stats.moments import Array


class Units(NamedTuple):
    """What images like those of training still differ by: in means (pooled standard deviations), in the log of the std, and
    in brightness (pixels 0 to 1)."""

    mean: float = 0.1
    scale: float = 0.25
    shade: float = 0.25


ALIKE = Units()
"""The real ResNet-20 has .03 and .2 on its own test images, whose fine detail JPEG took. Of 32 photographs of ImageNet, all
are .14 brighter than its mean, and eight of them .21."""

OTHER_IMAGES = Units(scale=0.5, shade=0.5)
"""The same where no mistake is made: light and contrast of other images explain as much by themselves."""

OTHER_LIGHT = Units(scale=0.5, shade=np.inf)
"""The same where the constants are guessed: of several sets one always comes near the light of other images."""

VISIBLE = 0.15
"""Discrepancy from which a mistake is looked for."""

BRIGHTER = np.linspace(-0.6, 0.6, 61)
"""Pixels (0 to 1) by which these images may be brighter than those of training, on average: other images, or black
that augmentation put around those of training."""

MOST_NAMED = 3
"""Mistakes that fit alike up to which they are named: where more do, the inputs hardly show in the first norm."""

VAST = 4.0
"""Gain, up or down, that no other camera or light has: of inputs of several channels it is reported without a name."""

SAME = 1e-9
"""Of the running variance: what the means of samples vary by that are one and the same, but for rounding."""

BLACK = 0.02
"""Brightness, of pixels 0 to 1, that counts as none."""

EVERY_SAMPLE = "every sample is the same constant, as zeros in the place of data are"
"""What is said of inputs that are not inputs."""

COLORS = 3
"""Channels of the frames of a film; a volume of one channel is none."""

LIKE_255 = 50.0, 1500.0
"""Gains that 255 has together with the std of any images."""

COLUMNS = (
    "layer",
    "mistake",
    "also",
    "undo",
    "map",
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
    "rarer",
    "light",
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
    def stem(self) -> Stem:
        """The weights that take the model's input."""
        assert self.record.neighbours is not None
        assert self.record.neighbours.stem is not None
        return self.record.neighbours.stem

    @property
    def pixels(self) -> bool:
        """Whether the inputs may be images, or the frames of a film: what people do to these has names."""
        n_sides = self.stem.n_sides
        return n_sides == 2 or (n_sides == 3 and self.mean.size == COLORS)

    @property
    def no_constants(self) -> str:
        """Of a row that rests on no constants of normalization."""
        return NO_CONSTANTS if self.pixels else NO_PIXELS

    @property
    def discrepancy(self) -> float:
        """What the running statistics as they are leave."""
        return fit.rms(fit.left(self.seen, self.running, self.record.eps))

    def predicted(self, mistake: Mistake, means: Array) -> Moments2:
        """What the norm measures after a mistake, for each of the mean inputs (S, F) before it: (S, C)."""
        there = mistake.on(means)
        content = np.maximum(self.running.var - self._of_border(self.mean[None]), 0.0)
        var = content * mistake.typical_gain**2 + self._of_border(there)
        return Moments2(there @ self.equations.matrix.T, var)

    def _of_border(self, means: Array) -> Array | float:
        """Variance over positions that constant inputs (S, F) have through the zeros around them, (S, C)."""
        return 0.0 if self.border is None else np.einsum("cfg,sf,sg->sc", self.border, means, means)

    def leaves(self, mistake: Mistake, shade: Array | None = None, units: Units = ALIKE) -> _Left:
        """Of the discrepancy, for the brightness that fits best; `shade` (F,) is what a pixel value of 1 more is in inputs.

        Without `shade` only the brightness of training is tried.
        """
        brighter = np.zeros(1) if shade is None else BRIGHTER
        means = self.mean + brighter[:, None] * (0.0 if shade is None else shade)
        away, scale = fit.parts(self.seen, self.predicted(mistake, means), self.record.eps)
        away, scale = fit.rms_of_rows(away), fit.rms_of_rows(scale)
        misfit = np.sqrt(
            (away / units.mean) ** 2 + (scale / units.scale) ** 2 + (brighter / units.shade) ** 2
        )
        best = int(np.argmin(np.where(np.isnan(misfit), np.inf, misfit)))
        return _Left(float(misfit[best]), float(np.hypot(away[best], scale[best])))


class _Left(NamedTuple):
    """What a prediction leaves: in units of what images may differ by, and as the discrepancy is measured."""

    misfit: float
    together: float


def preprocessing(recording: Recording) -> pd.DataFrame:
    """The mistakes that explain the first norm's inputs, the best first; empty where none does.

    `undo` is code that undoes the mistake, "" where nothing can; `map` is what it makes of inputs as in training: gain and
    offset per channel, and whether the channels change their order first. `shift` is how far the first norm's means moved
    (root mean square, in running σ), `scale` the typical std relative to the running one. `discrepancy` and `left_over` are
    as in `causes.fit`, before and after the mistake is taken into account, with the black that augmentation may have added;
    `explains` is the share of the squared discrepancy that is gone. `also` are other names of what fits as well, separated
    by "; ", and `rarer` mistakes that nobody makes by accident and that would look the same. `certain` is whether the
    mistake may be called the cause. `light` marks mistakes that other images would explain nearly as well; they are there
    only where none is better than that. Where no mistake explains the inputs, but single channels of them or their order do,
    there is one row of these (`input_channels`). Where the constants are not known and nothing explains the inputs, there is
    one row without a mistake ("").
    """
    first = _first(recording)
    rows = [] if first is None else best_of_each(_explanations(first, recording))
    shown = [row for row in rows if row["named"]] or [row for row in rows if row["light"]]
    judged = [{**row, **others(row, rows)} for row in shown]
    named = [row for row in judged if row["n_rivals"] < MOST_NAMED]
    if all(row["constants"] in (NO_CONSTANTS, NO_PIXELS) or row["light"] for row in named):
        named = list(of_channels(recording, None if first is None else first.mean)) or named
    return pd.DataFrame(named, columns=list(COLUMNS))


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
    """A row for every mistake that may fit; `named` where it does, and clearly better than that these are other images."""
    if not VISIBLE <= first.discrepancy < np.inf or samples.few(first.record) > 0:
        return
    if (constant := _constant(first, recording.about.normalize)) is not None:
        yield constant
        return
    given, found = recording.about.normalize, False
    source, units = ("given", OTHER_IMAGES) if given is not None else ("guessed", OTHER_LIGHT)
    shades = [1 / np.array(constants.std) for constants in constants_for(given, first.mean)]
    unexplained = min((first.leaves(AS_TRAINED, shade, units).misfit for shade in shades), default=np.inf)
    for constants in constants_for(given, first.mean):
        for light in exposures(constants):
            misfit = first.leaves(light, units=units).misfit
            unexplained = min(unexplained, float(np.hypot(misfit, np.log(light.gain[0]) / units.scale)))
    for mistake, shade in _candidates(first, given):
        row = _row(first, mistake, first.leaves(mistake, shade), source)
        fits = fits_well(row, mistake)
        row["named"] = fits and is_clear(row["misfit"], unexplained)
        far = source == "given" and row["discrepancy"] >= LEAST_GUESSED
        row["images"] = unexplained**2 - row["misfit"] ** 2 < NOT_SURELY
        row["light"] = fits and not row["named"] and far and unexplained >= CLEAR * row["misfit"]
        found = found or row["named"]
        if row["misfit"] <= CLEAR * FITS:
            yield row
    if given is None and not found:
        yield {**_rescaled(first), "named": True, "light": False, "images": False}


def _constant(first: _First, given: Normalize | None) -> dict[str, Any] | None:
    """One constant in all samples, as in a pass of zeros; None where samples differ, or are black, which has its name."""
    images = first.record.pre_images
    assert first.record.running_var is not None
    with np.errstate(invalid="ignore"):
        alike = (images.n > 1) & (images.var_between <= SAME * first.record.running_var)
    if not alike.all():
        return None
    now = first.equations.solve(first.equations.matrix, first.equations.seen)
    if given is not None and np.allclose(now * given.std + given.mean, 0, atol=BLACK):
        return None
    constant = Mistake("", "", np.zeros(now.size), now)
    left = first.leaves(constant)
    if left.misfit > FITS:
        return None
    row = _row(first, constant, left, first.no_constants)
    return {**row, "mistake": EVERY_SAMPLE, "named": True, "light": False, "images": False}


def _candidates(first: _First, given: Normalize | None) -> Iterator[tuple[Mistake, Array]]:
    """Every map once, with what a pixel value of 1 more is in the inputs of training."""
    if not first.pixels:  # what people do wrong with pixels says nothing of sequences and measurements
        return
    of_map = [
        (mistake, 1 / np.array(constants.std))
        for constants in constants_for(given, first.mean)
        for mistake in mistakes(constants)
    ]
    for mistake in merged(mistake for mistake, _ in of_map):
        yield mistake, next(shade for one, shade in of_map if one.is_like(mistake))


def _row(first: _First, mistake: Mistake, left: _Left, source: str) -> dict[str, Any]:
    discrepancy = first.discrepancy
    away = (first.seen.mean - first.running.mean) / first.equations.sigma
    return {
        "layer": first.record.layer,
        "mistake": mistake.what + (_direction(first, mistake) if mistake.exchanged else ""),
        "also": "; ".join(mistake.also),
        # where the model normalizes what it is called with, the code would act before that
        "undo": "" if first.stem.adjusted else mistake.undo,
        "map": (tuple(map(float, mistake.gain)), tuple(map(float, mistake.offset)), mistake.exchanged),
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
    """One gain and any offset, without a name: inputs of one channel, or a gain that no light and no camera has.

    Sequences and measurements of several channels, whose units people mistake, must share the offset as well.
    """
    row = _row(first, AS_TRAINED, first.leaves(AS_TRAINED), first.no_constants)
    gain, n_inputs = gain_of(first.record), first.mean.size
    possible = n_inputs == 1 or (not 1 / VAST < gain < VAST if first.pixels else in_one_gain(first.record))
    if not gain > 0 or not possible:
        return row
    for offset in _offsets(first, gain):
        affine = Mistake("", _undo(gain, offset), np.full(n_inputs, gain), offset)
        left = first.leaves(affine)
        if left.misfit > min(FITS, row["misfit"] / CLEAR):
            continue
        what = f"every input was multiplied by {gain:.3g} (or −{gain:.3g})"
        what += " and shifted by a constant" if offset.any() else ""
        if LIKE_255[0] < gain < LIKE_255[1] and first.pixels:
            what += ", as pixels of 0 to 255 are that were not scaled to 0 to 1"
        return {**_row(first, affine, left, first.no_constants), "mistake": what, "scale": gain}
    return row


def _offsets(first: _First, gain: float) -> Iterator[Array]:
    """What may have been added to inputs that were multiplied by `gain`, (F,) each, the simplest first."""
    equations, n_inputs = first.equations, first.mean.size
    if first.pixels or n_inputs == 1:
        yield np.asarray(equations.solve(equations.matrix, equations.seen) - gain * first.mean)
        return
    away = (equations.seen - gain * (equations.matrix @ first.mean)) / equations.sigma
    if fit.rms(away**2) < ALIKE.mean * gain:
        yield np.zeros(n_inputs)
    ones = equations.matrix.sum(axis=1, keepdims=True)
    yield np.full(n_inputs, float(equations.solve(ones, away * equations.sigma)[0]))


def _undo(gain: float, offset: Array) -> str:
    if not offset.any():
        return f"x = x / {gain:.6g}"
    if np.ptp(offset) == 0:
        return f"x = (x {-offset[0]:+.6g}) / {gain:.6g}"
    each = "".join(f"{value:.6g}, " for value in offset)
    return f"x = (x - torch.tensor(({each})).view(-1, 1, 1)) / {gain:.6g}"


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
