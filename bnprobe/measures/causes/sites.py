"""Causes that concern one norm: each predicts what it measures from its running statistics and a number or two.

A number that is fitted must serve all channels at once, so that with C channels 2 C numbers are predicted by one.

name       predicts                                                      from
young      mean m/(1 − a), variance (v − a)/(1 − a)                      a = (1 − momentum)^updates, nothing fitted
dropout    the same mean; variance v − p/(1 − p) Σ w² E[x²]              p and the weights; E[x²] fitted, one for all
groups     the same mean; variance v + f V, 0 < f ≤ 1                    V, the variance between samples; f fitted
one group  mean m ± t √V, variance v + f V                               t and f fitted, the signs as measured;
                                                                         not where other channels would do as well
coarse     mean and variance farther from 0 and 1, towards those         nothing fitted
           measured, by what updates of half precision lose
factor     mean m/k, variance v/k                                        k fitted
gain       mean g m, variance g² v                                       g fitted
spread     the same mean, variance g² v                                  g fitted
moved      mean m ± t √v, variance g² v                                  t and g fitted, the signs as measured

m, v: running mean and variance. `gain`, `spread` and `moved` have no name of their own: what comes before the norm is
larger or smaller, by light, by contrast or by weights. They are here so that nothing else is named where they would do as
well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bnprobe.measures.causes import fit
from bnprobe.measures.causes.fit import Moments2
from bnprobe.recording import BATCH, Dropout, LayerRecord
from bnprobe.recording.terms import EPSILONS
from bnprobe.stats.moments import Array

LEAST_LEFT = 0.01
"""Weight of the initial 0 and 1 in the running statistics from which it is worth a thought."""

FAR = 3.0
"""Factor, up or down, from which statistics may be off by a factor of a conversion; less is chance or other data."""

SHARES = np.linspace(0.05, 1.0, 20)
"""Shares of the variance between samples that are tried as missing."""


LEAST_NOISE = 0.5
"""Of p/(1 − p) times the variance: what a dropout must have added. It adds less where inputs vary together about 0."""

VISIBLE_SCALE = 0.1
"""Of the log of the std: what variances must be off for a cause to rest on them."""

MOST_WITHIN = 2.0
"""Times the running variance that the variance within samples may be: statistics that do not know of groups hold all of it,
and where it is larger the inputs are."""

LEAST_OF_GROUP, LEAST_AWAY = 0.3, 0.3
"""Share of the variance between samples that one group lacks at least, and how far it is at least from the mean of all, in
standard deviations between groups; else the running statistics are as good as those of all."""

BY_CHANNEL = 10.0
"""Times what one group leaves of the squared shift that must be left once the same shifts stand at other channels. With a
sign for every channel, shifts of about one size are explained at any channels: other inputs that explain 3/4 of the
discrepancy leave 0.8 to 4 times as much, statistics of one client or class 30 times and more."""


@dataclass(frozen=True)
class Predicted:
    """What a cause predicts, and the numbers it rests on."""

    moments: Moments2
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hypothesis:
    """A cause: its name, what it predicts of a site (None where it does not apply), and whether it may be named."""

    name: str
    predict: Callable[[LayerRecord], Predicted | None]
    may_be_named: bool = True


def initial_weight(record: LayerRecord) -> float:
    """Weight of the initial 0 and 1 in the running statistics; NaN where the number of updates is not known."""
    m, k = record.momentum, record.n_batches_tracked
    return (1 - m) ** k if m is not None and 0 < m < 1 and k is not None and k > 0 else float("nan")


def young(record: LayerRecord) -> Predicted | None:
    """The running statistics hold their initial 0 and 1 in good part."""
    left = initial_weight(record)
    now = fit.stored(record)
    # of a variance far below 1 even a small rest of the initial 1 is a good part
    if not left >= LEAST_LEFT * min(1.0, _median(now.var)) or record.buffers_moved:
        return None
    moments = Moments2(now.mean / (1 - left), np.maximum(now.var - left, 0.0) / (1 - left))
    return Predicted(moments, {"initial_weight": left, "n_updates": record.n_batches_tracked})


def groups(record: LayerRecord) -> Predicted | None:
    """The running variance lacks the variance between groups of samples: batches of one kind, or averaged buffers."""
    n = record.pre_images.n
    if record.pools != BATCH or not (n > 1).any():
        return None
    now, measured = fit.stored(record), fit.seen(record)
    if len(now.var) > 1 and np.ptp(now.var) == 0:
        return None  # set by hand: no groups give every channel the same variance
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.where(n > 1, record.pre_images.var_between * (n - 1) / n, np.nan)
        within = _median(np.maximum(measured.var - between, 0.0) / now.var)
    if within > MOST_WITHIN:
        return None
    every = Moments2(now.mean, now.var + SHARES[:, None] * between)
    best = int(np.argmin(fit.rms_of_rows(fit.left(measured, every, record.eps))))
    return Predicted(
        Moments2(now.mean, every.var[best]),
        {"share": float(SHARES[best]), "of_var": _median(between / measured.var)},
    )


def one_group(record: LayerRecord) -> Predicted | None:
    """The running statistics are those of one group of the samples: its mean, and the variance within it."""
    base = groups(record)
    if base is None or base.facts["share"] < LEAST_OF_GROUP:
        return None
    now, measured = fit.stored(record), fit.seen(record)
    between = np.sqrt(np.maximum(base.moments.var - now.var, 0.0))
    away = measured.mean - now.mean
    with np.errstate(all="ignore"):
        t = _median((np.abs(away) / between)[between > 0])
    if not LEAST_AWAY <= t <= FAR or not _in_scale(measured, now, base.moments, record.eps):
        return None
    sigma = np.sqrt((measured.var + base.moments.var) / 2 + record.eps)
    running = np.sqrt(now.var + record.eps)
    if not _by_channel(np.abs(away) / running, running / sigma, between / sigma, t):
        return None
    return Predicted(Moments2(now.mean + np.sign(away) * t * between, base.moments.var), {"away": t})


def _by_channel(shift: Array, unit: Array, between: Array, t: float) -> bool:
    """Whether shifts of the size t · `between` are where they are predicted, and not just of the predicted sizes.

    `shift` is in running σ, of which each is `unit` as `between` counts. Expected over all permutations of the shifts, with
    the best t for them: E[(u s − t b)²] = u² E[s²] − 2 t u b E[s] + t² b².
    """
    known = np.isfinite(shift) & np.isfinite(unit) & np.isfinite(between)
    if not known.any():
        return False
    s, u, b = shift[known], unit[known], between[known]
    here = float(((u * s - t * b) ** 2).mean())
    square, product = float((b**2).mean()), float((u * b).mean() * s.mean())
    elsewhere = float((u**2).mean() * (s**2).mean()) - (product**2 / square if square > 0 else 0.0)
    return elsewhere > BY_CHANNEL * here


def _in_scale(measured: Moments2, now: Moments2, predicted: Moments2, eps: float) -> bool:
    """Whether the variances are off, visibly, and most of that is predicted: a mean may lie anywhere."""
    before, after = (fit.rms(fit.parts(measured, one, eps)[1]) for one in (now, predicted))
    return before >= VISIBLE_SCALE and after <= before / 2


def coarse(record: LayerRecord) -> Predicted | None:
    """Running statistics in half precision, which updates smaller than half a step there could not move.

    An update is momentum times a difference, so that differences up to step / (2 momentum) stay.
    """
    m, dtype = record.momentum, record.parameter_dtype
    if dtype not in HALVES or m is None or not 0 < m < 1 or record.buffers_moved:
        return None
    now, measured = fit.stored(record), fit.seen(record)
    if not (_is_of(now.mean, dtype) and _is_of(now.var, dtype)):
        return None  # kept in float32 beside weights in half precision
    mean = now.mean + _lost(now.mean, measured.mean, 0.0, _step(now.mean, dtype) / (2 * m))
    var = now.var + _lost(now.var, measured.var, 1.0, _step(now.var, dtype) / (2 * m))
    return Predicted(Moments2(mean, var), {"dtype": dtype, "momentum": m})


HALVES = ("float16", "bfloat16")

BITS = {"float16": 11, "bfloat16": 8}
"""Of the significand, with the leading one that is not stored."""


def _lost(old: Array, new: Array, start: float, most: Array) -> Array:
    """What is missing of a way that began at `start` and goes on as it came, up to a limit."""
    way = np.sign(old - start)
    missing = np.clip(new - old, -most, most)
    return np.where((way == 0) | (way == np.sign(missing)), missing, 0.0)


def _step(values: Array, dtype: str) -> Array:
    """Distance of each number from the next one of this type."""
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(np.abs(values)))
    return np.where(values == 0, 0.0, EPSILONS[dtype] * np.exp2(exponent))


def _is_of(values: Array, dtype: str) -> bool:
    """Whether each number is one of this type."""
    mantissa = np.frexp(values)[0] * 2.0 ** BITS[dtype]
    return bool((mantissa == np.round(mantissa)).all())


def factor(record: LayerRecord) -> Predicted | None:
    """Running mean and variance are both k times what they should be."""
    k = 1 / _ratio(record)
    if not k > 0 or 1 / FAR < k < FAR:
        return None
    now = fit.stored(record)
    return Predicted(Moments2(now.mean / k, now.var / k), {"factor": k})


def gain(record: LayerRecord) -> Predicted | None:
    """Everything that enters is g times as large."""
    g = _ratio(record) ** 0.5
    if not g > 0:
        return None
    now = fit.stored(record)
    return Predicted(Moments2(now.mean * g, now.var * g**2), {"gain": g})


def spread(record: LayerRecord) -> Predicted | None:
    """What enters varies g times as much about the same mean."""
    g = _ratio(record) ** 0.5
    if not g > 0:
        return None
    now = fit.stored(record)
    return Predicted(Moments2(now.mean, now.var * g**2), {"gain": g})


def moved(record: LayerRecord) -> Predicted | None:
    """Every channel's mean is as far away, in its own standard deviations, and its spread g times as large."""
    g = _ratio(record) ** 0.5
    now, measured = fit.stored(record), fit.seen(record)
    away = measured.mean - now.mean
    t = _median(np.abs(away) / np.sqrt(now.var))
    if not (g > 0 and t < np.inf):
        return None
    return Predicted(Moments2(now.mean + np.sign(away) * t * np.sqrt(now.var), now.var * g**2), {"gain": g})


def _ratio(record: LayerRecord) -> float:
    """Typical measured variance relative to the running one, where eps matters little in both; NaN where nowhere."""
    now, measured = fit.stored(record).var, fit.seen(record).var
    clear = (now > record.eps) & (measured > 0)
    return float(np.exp(_median(np.log(measured[clear] / now[clear])))) if clear.any() else float("nan")


def _median(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def dropout(record: LayerRecord, before: tuple[Dropout, ...]) -> Predicted | None:
    """The running variance holds what the dropout before this norm added in training: p/(1 − p) Σ w² E[x²].

    Where no weights lie between both, it is of the dropped values themselves: (var + mean²)/(1 − p) − mean².
    The mean square of what enters the weights is one number for all channels, and fitted; it cannot be less than a
    variance, so that the noise is a good part of p/(1 − p) times the variance without it.
    """
    folded = record.neighbours.folded if record.neighbours else None
    if record.pools != BATCH or record.n_calls_training:
        return None
    now, measured = fit.stored(record), fit.seen(record)
    p = 1 - float(np.prod([1 - one.p for one in before]))
    details = {"names": ", ".join(one.path for one in before), "p": p}
    if folded is None:
        square = now.mean**2
        return Predicted(Moments2(now.mean, np.maximum((1 - p) * (now.var + square) - square, 0.0)), details)
    noise = folded.norm**2
    lost = _median((now.var - measured.var) / noise)
    if not lost * _median(noise / measured.var) >= LEAST_NOISE * p / (1 - p):
        return None
    moments = Moments2(now.mean, np.maximum(now.var - lost * noise, 0.0))
    return Predicted(moments, details)


def dropout_before(before: tuple[Dropout, ...]) -> tuple[Hypothesis, ...]:
    """The hypothesis for a norm that these modules stand before; none where nothing does."""
    drops = tuple(one for one in before if one.p < 1)
    return (Hypothesis("dropout", partial(dropout, before=drops)),) if drops else ()


HYPOTHESES = (
    Hypothesis("young", young),
    Hypothesis("groups", groups),
    Hypothesis("one group", one_group),
    Hypothesis("coarse", coarse),
    Hypothesis("factor", factor),
    Hypothesis("gain", gain, may_be_named=False),
    Hypothesis("spread", spread, may_be_named=False),
    Hypothesis("moved", moved, may_be_named=False),
)
"""Every cause that is tried at a norm."""
