"""What people do to a model's inputs by mistake, each as a map of the inputs of training, and how common it is.

A map is written in pixels p of 0 to 1: inputs as in training are x = (p - mean) / std. A mistake makes gain x + offset of
them, per input channel, after an exchange of channels where it has one. It is undone by a line of code on a batch `x`, where
that is possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from bnprobe.recording import Normalize
from bnprobe.stats.moments import Array

IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CIFAR10 = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
MNIST = Normalize((0.1307,), (0.3081,))

IN_USE = (
    IMAGENET,
    HALVES,
    CIFAR10,
    Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    Normalize((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
)
"""Tried where the constants of training are not known, the most common first: ImageNet's, the symmetric ones, CIFAR-10's,
pixels that were only scaled to 0 to 1, pixels left at 0 to 255. None for one channel: some constants would always fit."""

RARE = 3.0
"""Times what it leaves that a mistake counts as, which nobody makes by accident: it must fit so much better than others."""

TWO_AT_ONCE = 2.0
"""The same for two mistakes at once, where one may do."""

EXPOSURES = np.geomspace(1 / 4, 4, 33)
"""Times as much light as in training that another camera, or another hour, may give."""

EQUAL = 0.02
"""Of the gain, and in standard deviations of the inputs: maps that differ by less are one."""


@dataclass(frozen=True)
class Mistake:
    """A map of the inputs: x' = gain x + offset of the (exchanged) channels; shapes (F,). `also` are its other names."""

    what: str
    undo: str
    gain: Array
    offset: Array
    exchanged: bool = False
    weight: float = 1.0
    also: tuple[str, ...] = ()
    constants: Normalize | None = None

    def on(self, mean: Array) -> Array:
        """The mean input after the mistake."""
        return self.gain * (mean[..., ::-1] if self.exchanged else mean) + self.offset

    @property
    def typical_gain(self) -> float:
        """Of all input channels together."""
        with np.errstate(divide="ignore"):
            return float(np.exp(np.mean(np.log(np.abs(self.gain)))))

    def is_like(self, other: Mistake) -> bool:
        """Whether both make the same of any input, but for rounding."""
        close = np.abs(self.gain - other.gain) <= EQUAL * np.abs(other.gain)
        near = np.abs(self.offset - other.offset) <= EQUAL * np.maximum(np.abs(other.gain), np.abs(self.gain))
        return self.exchanged == other.exchanged and bool((close & near).all())


AS_TRAINED = Mistake("", "", np.ones(1), np.zeros(1))
"""No mistake."""


def merged(candidates: Iterator[Mistake]) -> list[Mistake]:
    """Each map once, under its most common name; those that change nothing are left out."""
    known: list[Mistake] = []
    for mistake in candidates:
        if mistake.is_like(AS_TRAINED):
            continue
        i = next((i for i, one in enumerate(known) if one.is_like(mistake)), None)
        if i is None:
            known.append(mistake)
        elif mistake.what not in (known[i].what, *known[i].also):
            known[i] = replace(
                known[i],
                also=(*known[i].also, mistake.what),
                weight=min(known[i].weight, mistake.weight),
            )
    return known


def mistakes(constants: Normalize) -> Iterator[Mistake]:
    """What people do to inputs that should be (p - mean) / std of pixels p in 0 to 1, the most common first."""
    m, s = np.array(constants.mean), np.array(constants.std)
    names = f"m, s = (torch.tensor(v).view(-1, 1, 1) for v in ({_tuple(m)}, {_tuple(s)}))"
    for what, undo, gain, offset in (*_forgotten(m, s), *_ranges(m, s), *_normalizations(m, s)):
        yield Mistake(what, f"{names}; {undo}", gain, offset)
    yield Mistake("the images are black", "", 0 * m, -m / s)
    if m.all():
        what = "mean and std of the normalization changed places"
        yield Mistake(what, f"{names}; x = x * m + s; {AGAIN}", s / m, (m - s) / m, weight=TWO_AT_ONCE)
    if m.size == 3:
        yield from _exchanged(constants, names)
        yield from _exchanged_too(constants, names)
    yield from _other_constants(constants, names)
    yield from _inverted(m, s, names)


def exposures(constants: Normalize) -> Iterator[Mistake]:
    """No mistakes: pixels of a darker or lighter camera, all times one number."""
    m, s = np.array(constants.mean), np.array(constants.std)
    for k in EXPOSURES:
        yield Mistake("", "", np.full_like(m, k), (k - 1) * m / s)


def _inverted(m: Array, s: Array, names: str) -> Iterator[Mistake]:
    """Light and dark, alone and with a step left out: where colors seem exchanged, these may be instead."""
    what, undo = "light and dark are exchanged (1 - p)", f"x = 1 - (x * s + m); {AGAIN}"
    by = (1 - 2 * m) / s
    # of digits and drawings, black on white and white on black are both in use
    weight = 1.0 if m.size == 1 else RARE
    yield Mistake(what, f"{names}; {undo}", -np.ones_like(m), by, weight=weight)
    for left_out, first, gain, offset in _that_act(_forgotten(m, s)):
        both = f"{left_out}, and {what}"
        yield Mistake(
            both, f"{names}; {first}; {undo}", -gain, gain * by + offset, weight=weight * TWO_AT_ONCE
        )


AGAIN = "x = (x - m) / s"
CAFFE = (
    "the mean was subtracted from pixels of 0 to 255, without dividing by the std, as for Caffe's networks"
)
TWICE = "inputs were normalized twice"
EXCHANGED = "red and blue are swapped"
MEAN_ONLY = "the mean was subtracted, but not divided by the std"
HALVED = "pixels were scaled to -1 to 1 instead of normalized with the constants of training"
Map = tuple[str, str, Array, Array]


def _that_act(steps: Iterable[Map]) -> Iterator[Map]:
    """Those that change inputs at all: with a mean of 0 or a std of 1 some steps are none, and no second mistake."""
    yield from (one for one in steps if not Mistake(one[0], "", one[2], one[3]).is_like(AS_TRAINED))


def _forgotten(m: Array, s: Array) -> Iterator[Map]:
    """A step that was left out."""
    one = np.ones_like(m)
    yield (
        "pixels of 0 to 255 were passed in, neither scaled nor normalized",
        "x = x / 255; " + AGAIN,
        255 * s,
        255 * m,
    )
    yield (
        "pixels of 0 to 1 were passed in, without subtracting the mean and dividing by the std",
        AGAIN,
        s,
        m,
    )
    yield (
        "pixels of 0 to 255 were normalized without scaling them to 0 to 1",
        "x = (x * s + m) / 255; " + AGAIN,
        255 * one,
        254 * m / s,
    )


def _ranges(m: Array, s: Array) -> Iterator[Map]:
    """Pixels on a scale that is smaller."""
    one = np.ones_like(m)
    yield (
        "pixels were scaled by 1/255 twice before they were normalized",
        "x = (x * s + m) * 255; " + AGAIN,
        one / 255,
        (one / 255 - 1) * m / s,
    )
    yield (
        "pixels were scaled by 1/255 twice and not normalized",
        "x = x * 255; " + AGAIN,
        s / 255,
        m / 255,
    )
    yield "normalized inputs were divided by 255", "x = x * 255", one / 255, 0 * one


def _normalizations(m: Array, s: Array) -> Iterator[Map]:
    """Pixels on the right scale, normalized otherwise."""
    one = np.ones_like(m)
    yield TWICE, "x = x * s + m", 1 / s, -m / s
    yield (
        HALVED,
        "x = x / 2 + 0.5; " + AGAIN,
        2 * s,
        2 * m - 1,
    )
    yield MEAN_ONLY, "x = x / s", s, 0 * one
    yield "pixels were divided by the std without subtracting the mean", "x = x - m / s", one, m / s
    yield (
        "pixels were scaled to -1 to 1 before they were normalized",
        "x = ((x * s + m) + 1) / 2; " + AGAIN,
        2 * one,
        (m - 1) / s,
    )
    yield "inputs were divided by the std twice", "x = x * s", 1 / s, 0 * one
    yield CAFFE, "x = x / (255 * s)", 255 * s, 0 * one


def _exchanged(constants: Normalize, names: str) -> Iterator[Mistake]:
    """Red and blue, before or after the normalization; one name, as nobody can tell the two apart."""
    what, m, s = EXCHANGED, np.array(constants.mean), np.array(constants.std)
    undo = f"{names}; x = (x * s + m).flip(1); {AGAIN}"
    yield Mistake(what, undo, s[::-1] / s, (m[::-1] - m) / s, True, constants=constants)
    yield Mistake(
        what, f"{names}; x = x.flip(1)", np.ones_like(s), np.zeros_like(s), True, constants=constants
    )


def _exchanged_too(constants: Normalize, names: str) -> Iterator[Mistake]:
    """Red and blue as well as a step left out: an image of cv2.imread that went straight in."""
    m, s = np.array(constants.mean), np.array(constants.std)
    swap, by = s[::-1] / s, (m[::-1] - m) / s
    otherwise = [one for one in _normalizations(m, s) if one[0] in (TWICE, MEAN_ONLY, HALVED)]
    for what, undo, gain, offset in _that_act((*_forgotten(m, s), *otherwise)):
        yield Mistake(
            f"{what}, and {EXCHANGED}",
            f"{names}; {undo}; x = (x * s + m).flip(1); {AGAIN}",
            gain * swap,
            gain * by + offset,
            exchanged=True,
            weight=TWO_AT_ONCE,
            constants=constants,
        )
    if not list(_that_act([(CAFFE, "", 255 * s, 0 * m)])):
        return
    # there the mean is in the order of the pixels; for Caffe's networks both steps are usual at once
    undo = f"{names}; x = x.flip(1) / (255 * s)"
    yield Mistake(
        f"{CAFFE}, and {EXCHANGED}", undo, 255 * s[::-1], 0 * m, exchanged=True, constants=constants
    )


def _other_constants(constants: Normalize, names: str) -> Iterator[Mistake]:
    """The constants of another data set."""
    m, s = np.array(constants.mean), np.array(constants.std)
    for name, other in (("ImageNet", IMAGENET), ("CIFAR-10", CIFAR10), ("MNIST", MNIST)):
        if len(other.mean) == m.size and other != constants:
            n, t = np.array(other.mean), np.array(other.std)
            undo = f"{names}; n, t = (torch.tensor(v).view(-1, 1, 1) for v in ({_tuple(n)}, {_tuple(t)})); "
            yield Mistake(
                f"inputs were normalized with the constants of {name} instead of those of training",
                f"{undo}x = x * t + n; {AGAIN}",
                s / t,
                (m - n) / t,
            )


def _tuple(values: Array) -> str:
    return "(" + "".join(f"{value:.6g}, " for value in values) + ")"
