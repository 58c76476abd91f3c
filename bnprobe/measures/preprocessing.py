"""Which mistake of preprocessing explains the first norm's inputs, where its running statistics show others.

The running means of the first norm determine the mean input of training (see `measures.stem`). Each mistake people
make is a map of inputs, per input channel x -> gain x + offset or a swap of channels, so it predicts what the first
norm must measure now, in mean and in scale. The best mistake is certain where it predicts both closely and every other
one clearly worse. One channel whose constants are not known determines gain and offset, but no cause: any mistake is
such a map, and some constants make it fit.

A map is written in pixels of 0 to 1: x = (p - mean) / std for inputs as in training. Where the constants are not
known (attach(normalize=...) gives them), common ones are tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.measures import padding
from bnprobe.measures.padding import Equations
from bnprobe.measures.stem import LARGEST_CONDITION, LARGEST_RMSE, stem
from bnprobe.measures.verdict import never_updated
from bnprobe.recording import LayerRecord, Normalize, Recording
from bnprobe.stats.moments import Array

IN_USE = (
    Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    Normalize((0.1307,), (0.3081,)),
    Normalize((0.5,), (0.5,)),
)
"""ImageNet's, the symmetric ones, CIFAR-10's, MNIST's: tried where the constants of training are not known."""

LEFT_OVER = 1 / 3
"""Of the shift in the first norm: what an explanation may leave at most. A shift of another kind points anywhere,
and one direction of three is met so closely by chance in a few of a hundred cases."""

ALIKE = 0.05
"""In running σ: what images like those of training leave over; a mistake multiplies it by its gain."""

SCALE_OFF = np.log(1.5)
"""Sampling difference of the log of the scale between sets of images; mistakes change it by 2 and more."""

CERTAIN_SCALE = np.log(1.25)
"""The same, for a mistake to be certain: the planted ones stay below 1.15, with the zeros around the images in it."""

CLEAR = 0.1
"""By how much the next best mistake must be worse (see `_badness`) for the best one to be certain."""

FLAT = 0.05
"""Gain below which inputs are so flat that the zeros around them, and not the images, make what variance there is."""

BLACK = np.linspace(0.0, 0.3, 31)
"""Shares of black that augmentation may have put into the training images, and that are not in these."""

NONE_KNOWN = "none"
"""Of a row that rests on no constants: it names no cause."""

COLUMNS = (
    "layer",
    "mistake",
    "undo",
    "shift",
    "left_over",
    "scale",
    "scale_predicted",
    "constants",
    "certain",
)


@dataclass(frozen=True)
class Mistake:
    """A map of the inputs: x' = gain x + offset of the (exchanged) channels; shapes (F,)."""

    what: str
    undo: str
    gain: Array
    offset: Array
    exchanged: bool = False

    def on(self, mean: Array) -> Array:
        """The mean input after the mistake."""
        return self.gain * (mean[::-1] if self.exchanged else mean) + self.offset


AS_TRAINED = Mistake("nothing", "", np.ones(1), np.zeros(1))


def preprocessing(recording: Recording) -> pd.DataFrame:
    """The mistakes that explain the first norm's inputs, the best first; empty where none does.

    `shift` is how far the first norm's means moved, and `left_over` what the mistake leaves of it, both root mean
    squares in running σ, after the black that augmentation may have added; `scale` is the typical standard
    deviation relative to the running one. `certain` is whether the mistake may be called the cause. Where the
    constants are not known and nothing explains the inputs, there is one row without a mistake ("").
    """
    rows = sorted(_explanations(recording), key=_badness)
    for row in rows:
        row["certain"] = _is_certain(row, rows)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _is_certain(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether it predicts the scale closely, and no other mistake does nearly as well."""
    others = (other for other in rows if other["mistake"] != row["mistake"])
    clear = all(_badness(other) - _badness(row) >= CLEAR for other in others)
    flat = row["scale_predicted"] < FLAT
    off = abs(np.log(row["scale"] / row["scale_predicted"]))
    return bool(row["constants"] != NONE_KNOWN and clear and (flat or off <= CERTAIN_SCALE))


def _badness(row: dict[str, Any]) -> float:
    """Of an explanation: what it leaves of the shift, and how far its scale is off."""
    return float(row["left_over"] / row["shift"] + abs(np.log(row["scale"] / row["scale_predicted"])))


def _explanations(recording: Recording) -> Iterator[dict[str, Any]]:
    reading = stem(recording)
    record = next((r for r in recording.layers if r.neighbours and r.neighbours.stem), None)
    # not by R²: where the mean input is near 0, as after a good normalization, there is little for it to explain
    readable = reading.condition <= LARGEST_CONDITION and reading.rmse <= LARGEST_RMSE
    if record is None or reading.mean_input is None or not readable or not (record.pre.n > 0).any():
        return
    if never_updated(record):
        return
    equations, mean, scale = padding.equations(record), np.array(reading.mean_input), _scale(record)
    if not 0 < scale < np.inf:
        return
    if recording.about.normalize is None and mean.size == 1:
        yield _rescaled(record.layer, equations, float(mean[0]), scale)
        return
    explained = False
    assert record.neighbours is not None
    assert record.neighbours.stem is not None
    # what people do wrong with pixels says nothing of sequences and measurements
    for constants, known in _constants(recording, mean) if record.neighbours.stem.n_sides == 2 else ():
        cleans = _cleans(constants, mean)
        shift = _left_over(equations, cleans, AS_TRAINED)
        for mistake in mistakes(constants):
            gain = float(np.exp(np.mean(np.log(np.abs(mistake.gain)))))
            left = _left_over(equations, cleans, mistake)
            # where a mistake keeps the mean of normalized inputs, their scale alone is evidence for it
            tolerance = SCALE_OFF if np.any(mistake.offset != 0) else CERTAIN_SCALE
            same_scale = scale < 0.5 if gain < FLAT else abs(np.log(scale / gain)) <= tolerance
            if same_scale and left <= max(LEFT_OVER * shift, (ALIKE + reading.rmse) * gain) and left < shift:
                explained = True
                yield {
                    "layer": record.layer,
                    "mistake": mistake.what,
                    "undo": mistake.undo,
                    "shift": shift,
                    "left_over": left,
                    "scale": scale,
                    "scale_predicted": gain,
                    "constants": "given" if known else "guessed",
                }
    if recording.about.normalize is None and not explained:
        yield _unexplained(record.layer, _left_over(equations, mean[None], AS_TRAINED), scale)


def _unexplained(layer: str, shift: float, scale: float) -> dict[str, Any]:
    """What was measured, without a mistake."""
    numbers = {"shift": shift, "left_over": shift, "scale": scale, "scale_predicted": scale}
    return {"layer": layer, "mistake": "", "undo": "", "constants": NONE_KNOWN, **numbers}


def _rescaled(layer: str, equations: Equations, mean: float, scale: float) -> dict[str, Any]:
    """Gain and offset of inputs of one channel, whose constants nobody knows; no mistake where they do not explain."""
    seen = float(equations.solve(equations.matrix, equations.seen)[0])
    offset = seen - scale * mean
    affine = Mistake("", f"x = (x {-offset:+.6g}) / {scale:.6g}", np.array([scale]), np.array([offset]))
    row = _unexplained(layer, _left_over(equations, np.array([[mean]]), AS_TRAINED), scale)
    left = _left_over(equations, np.array([[mean]]), affine)
    if left > max(LEFT_OVER * row["shift"], ALIKE * scale):
        return row
    what = f"every input was multiplied by {scale:.3g} (or −{scale:.3g}) and shifted by a constant"
    return {**row, "mistake": what, "undo": affine.undo, "left_over": left}


def _cleans(constants: Normalize, mean: Array) -> Array:
    """The mean input without the black that augmentation may have added, (shares, F)."""
    black = -np.array(constants.mean) / np.array(constants.std)
    return np.asarray((mean - BLACK[:, None] * black) / (1 - BLACK[:, None]), dtype=np.float64)


def _left_over(equations: Equations, cleans: Array, mistake: Mistake) -> float:
    """Root mean square, in running σ, of what the mistake leaves of the means seen."""
    predicted = np.array([mistake.on(clean) for clean in cleans]) @ equations.matrix.T
    away = (predicted - equations.seen) / equations.sigma
    return float(np.sqrt((away**2).mean(axis=1)).min())


def _scale(record: LayerRecord) -> float:
    """Typical std relative to the running one, over channels with a running variance above eps; NaN where none has."""
    assert record.running_var is not None
    with np.errstate(all="ignore"):
        ratio = record.pre.var_population / record.running_var
        known = ratio[(record.running_var > record.eps) & (ratio > 0) & np.isfinite(ratio)]
    return float(np.sqrt(np.median(known))) if known.size else float("nan")


def _constants(recording: Recording, mean: Array) -> Iterator[tuple[Normalize, bool]]:
    """Those of the recording, else common ones under which the mean input of training is a color."""
    given = recording.about.normalize
    if given is not None:
        if len(given.mean) == mean.size:
            yield given, True
        return
    for constants in IN_USE:
        if len(constants.mean) != mean.size:
            continue
        pixels = mean * np.array(constants.std) + np.array(constants.mean)
        if pixels.min() >= 0 and pixels.max() <= 1:
            yield constants, False


def mistakes(constants: Normalize) -> Iterator[Mistake]:
    """What people do to inputs that should be (p - mean) / std of pixels p in 0 to 1."""
    m, s = np.array(constants.mean), np.array(constants.std)
    one = np.ones_like(m)
    names = f"m, s = (torch.tensor(v).view(-1, 1, 1) for v in ({_tuple(m)}, {_tuple(s)}))"
    again = "x = (x - m) / s"
    maps: tuple[tuple[str, str, Array, Array], ...] = (
        (
            "pixels of 0 to 255 were passed in, neither scaled nor normalized",
            "x = x / 255; " + again,
            255 * s,
            255 * m,
        ),
        (
            "pixels of 0 to 1 were passed in, without subtracting the mean and dividing by the std",
            again,
            s,
            m,
        ),
        (
            "pixels of 0 to 255 were normalized without scaling them to 0 to 1",
            "x = (x * s + m) / 255; " + again,
            255 * one,
            254 * m / s,
        ),
        ("inputs were normalized twice", "x = x * s + m", 1 / s, -m / s),
        (
            "pixels were scaled by 1/255 twice before they were normalized",
            "x = (x * s + m) * 255; " + again,
            one / 255,
            (one / 255 - 1) * m / s,
        ),
        (
            "pixels were scaled to -1 to 1 instead of normalized with the constants of training",
            "x = x / 2 + 0.5; " + again,
            2 * s,
            2 * m - 1,
        ),
        (
            "the mean was subtracted, but not divided by the std",
            "x = x / s",
            s,
            0 * one,
        ),
        (
            "pixels were scaled to -1 to 1 before they were normalized",
            "x = ((x * s + m) + 1) / 2; " + again,
            2 * one,
            (m - 1) / s,
        ),
        (
            "inputs were divided by the std twice",
            "x = x * s",
            1 / s,
            0 * one,
        ),
        (
            "brightness is inverted (1 - p)",
            "x = 1 - (x * s + m); " + again,
            -one,
            (1 - 2 * m) / s,
        ),
    )
    for what, undo, gain, offset in maps:
        yield Mistake(what, f"{names}; {undo}", gain, offset)
    if m.size == 3:
        undo = "x = (x * s + m).flip(1); " + again
        what = "red and blue are swapped (BGR images, as cv2.imread returns them)"
        yield Mistake(what, f"{names}; {undo}", s[::-1] / s, (m[::-1] - m) / s, True)


def _tuple(values: Array) -> str:
    return "(" + "".join(f"{value:.6g}, " for value in values) + ")"
