"""What the first norm reveals about the training images: their mean color, and the black padded around them.

The mean before the first norm is a small matrix times the mean of the model's input (`neighbours.Stem`), so
that C running means are C equations for the F channels of the input. They are solved by least squares,
each weighted by its running σ, because that is the unit of its noise. Black pixels around a crop
mix that mean with black, most of all at the border: see `padding`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnprobe.measures import padding
from bnprobe.measures.implied import r_squared
from bnprobe.measures.padding import Equations, Padding
from bnprobe.measures.verdict import never_updated
from bnprobe.recording import LayerRecord, Recording
from bnprobe.stats.moments import Array

SPARE = 3
"""Equations beyond the unknowns from which on residuals say anything."""

LARGEST_CONDITION = 100.0
"""Of the weighted matrix: above, some colors hardly reach the norm, and noise is multiplied as much."""

LEAST_R2 = 0.8
"""A stem of 16 channels whose rows are permuted reaches .57 at most in 200 permutations, as it is .96."""

LARGEST_RMSE = 0.15
"""In running σ. A moving average over batches of 16 itself varies by .04 to .05."""

NONE = float("nan")


PHOTOGRAPHS = np.array((0.485, 0.456, 0.406))
"""Mean red, green and blue of ordinary photographs: those of ImageNet."""

NEARER, BY = 1.5, 0.03
"""How many times, and by how much (pixels 0 to 1), a mean color must be nearer to photographs in one order than in the
other: .05/.17, .05/.13, .12/.20 and .22/.08 in four real networks, the last one trained on BGR."""


def color_order(pixels: Array) -> str:
    """The order of the channels of images with this mean color (0 to 1), if it is clear: "RGB", "BGR" or ""."""
    as_is, reversed_ = (float(np.linalg.norm(v - PHOTOGRAPHS)) for v in (pixels, pixels[::-1]))
    if max(as_is, reversed_) < max(NEARER * min(as_is, reversed_), min(as_is, reversed_) + BY):
        return ""
    return "RGB" if as_is < reversed_ else "BGR"


@dataclass(frozen=True)
class StemReading:
    """What the running means of the first norm reveal of the training data, and whether to believe it.

    What `Report.stem` is. Values in pixels (0 to 1) need the preprocessing constants (`normalize` of `attach`).

    Attributes:
        trusted: Whether the fit is good enough to believe; if not, means in pixels and padding are None.
        why: What speaks for or against it, in a sentence.
        layer: The norm that was read.
        mean_input: Mean per channel of the model's input in training, augmentation included, in units of the input.
        mean_pixels: The same in pixels from 0 to 1.
        seen_input: As `mean_input`, from what the norm received in this run.
        seen_pixels: As `mean_pixels`, from what the norm received in this run.
        padding: How the black padding of the training images was found; None if it could not be.
        n_equations: Number of running means that were used.
        n_unknowns: Number of input channels.
        condition: Condition number of the weighted system.
        r2: Share of the running means' variance that one mean input explains.
        rmse: Root mean square of what it does not explain, in running standard deviations.
    """

    trusted: bool
    why: str
    layer: str = ""
    mean_input: tuple[float, ...] | None = None
    mean_pixels: tuple[float, ...] | None = None
    seen_input: tuple[float, ...] | None = None
    seen_pixels: tuple[float, ...] | None = None
    padding: Padding | None = None
    n_equations: int = 0
    n_unknowns: int = 0
    condition: float = NONE
    r2: float = NONE
    rmse: float = NONE

    @property
    def mean_rgb(self) -> tuple[float, float, float] | None:
        """Mean red, green and blue of the training images, 0 to 1; None if the input does not have three channels."""
        pixels = self.mean_pixels
        return (pixels[0], pixels[1], pixels[2]) if pixels and len(pixels) == 3 else None

    @property
    def padding_share(self) -> float | None:
        """Share (0 to 1) of black pixels that augmentation added to the training images; None if unknown."""
        return None if self.padding is None else self.padding.share


def stem(recording: Recording) -> StemReading:
    """Decode the first norm whose input is one layer of weights away from the model's."""
    record = next(
        (record for record in recording.layers if record.neighbours and record.neighbours.stem), None
    )
    if record is None:
        return _not_here("no norm was seen that the model's input reaches through one layer of weights", "")
    if record.running_mean is None or record.running_var is None:
        what = f"{record.site}, the first norm ({record.class_name}), stores no running statistics"
        return _not_here(what, record.site)
    equations = padding.equations(record)
    n, unknowns = equations.matrix.shape
    if n < unknowns + SPARE:
        inputs = f"{unknowns} input channel{'s' if unknowns > 1 else ''}"
        what = f"{n} running means of {record.site} are too few for {inputs}"
        return replace(_not_here(what, record.site), n_equations=n, n_unknowns=unknowns)
    reading = _in_pixels(_decoded(record, equations), recording)
    reading = _judged(reading, never_updated(record))
    if not reading.trusted:
        return replace(reading, mean_pixels=None, seen_pixels=None)
    return _with_padding(reading, recording, equations)


def _not_here(what: str, layer: str) -> StemReading:
    return StemReading(False, f"Not identifiable here: {what}.", layer)


def _decoded(record: LayerRecord, equations: Equations) -> StemReading:
    """Least squares, and what it leaves over."""
    weighed, target = equations.weighed(equations.matrix), equations.running / equations.sigma
    mean = equations.solve(equations.matrix, equations.running)
    singular = np.linalg.svd(weighed, compute_uv=False)
    return StemReading(
        False,
        "",
        record.site,
        mean_input=tuple(mean.tolist()),
        seen_input=tuple(equations.solve(equations.matrix, equations.seen).tolist()),
        n_equations=len(target),
        n_unknowns=mean.size,
        condition=float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf"),
        r2=r_squared(target, weighed @ mean),
        rmse=equations.rmse(equations.matrix @ mean),
    )


def _in_pixels(reading: StemReading, recording: Recording) -> StemReading:
    """The means in 0 to 1, where the preprocessing is known for as many channels."""
    constants = recording.about.normalize
    if constants is None or len(constants.mean) != reading.n_unknowns:
        return reading
    mean, std = np.array(constants.mean), np.array(constants.std)
    return replace(
        reading,
        mean_pixels=tuple((np.array(reading.mean_input) * std + mean).tolist()),
        seen_pixels=tuple((np.array(reading.seen_input) * std + mean).tolist()),
    )


def _judged(reading: StemReading, fresh: bool) -> StemReading:
    """Whether the fit can be trusted, with the first thing that speaks against it."""
    against = None
    if fresh:
        against = "its running statistics were never updated (0 and 1)"
    elif not reading.condition <= LARGEST_CONDITION:
        against = f"some mixture of input channels hardly reaches the norm (condition number {reading.condition:.3g})"
    elif not reading.r2 >= LEAST_R2:
        against = f"one mean input explains too little of them (R² {reading.r2:.2f})"
    elif not reading.rmse <= LARGEST_RMSE:
        against = f"they are {reading.rmse:.2f} running σ off the fit"
    elif reading.mean_pixels and not all(-0.02 <= value <= 1.02 for value in reading.mean_pixels):
        against = "the decoded mean is not a color, so the preprocessing must have been different"
    equations = (
        f"{reading.n_equations} running means of {reading.layer} for {reading.n_unknowns} input channel"
        + ("s" if reading.n_unknowns > 1 else "")
    )
    if against:
        return replace(reading, why=f"Not to be trusted: {equations}, but {against}.")
    fit = f"R² {reading.r2:.2f}, residual {reading.rmse:.3f} running σ"
    units = (
        ""
        if reading.mean_pixels
        else " To see colors, pass the preprocessing to attach, normalize=(mean, std)."
    )
    return replace(reading, trusted=True, why=f"One mean input explains the {equations} ({fit}).{units}")


def _with_padding(reading: StemReading, recording: Recording, equations: Equations) -> StemReading:
    constants = recording.about.normalize
    if constants is None or reading.mean_pixels is None:
        return reading
    black = -np.array(constants.mean) / np.array(constants.std)
    found = padding.padding(equations, black)
    unlike = (
        ""
        if found
        else " Padding could not be estimated: black borders around these images do not explain the running means."
    )
    return replace(reading, padding=found, why=reading.why + unlike)
