"""Which channels of the model's input are off, where no step of preprocessing explains what the first norm measures.

The means before the first norm moved by matrix @ d, where d is what each channel of the input moved by. Channels that came
in another order, one that is empty and one that was not scaled each leave a trace in all norm channels at once, by the
weights. Only such few channels, or such orders, are named as explain nearly all of that, and clearly more than any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from bnprobe.measures import padding
from bnprobe.measures.causes import fit, samples
from bnprobe.measures.padding import Equations
from bnprobe.measures.verdict import never_updated, stores_statistics
from bnprobe.recording import LayerRecord, Normalize, Recording
from bnprobe.recording.names import OF_CHANNELS
from bnprobe.stats.moments import Array

FEWEST = 4
"""Channels of the input from which some can be off by themselves: of the colors of photographs any may be, by the light."""

FEW = 4
"""Of so many channels one is a few."""

MOST = 3
"""Channels that are off together up to which they are named."""

LEFT = 0.05
"""Share of the squared shift that may be left over."""

CLEAR = 3.0
"""Times what is left over that must be left, in squares, once another channel takes the place of any of those named."""

NOISE = 0.1
"""Of the means, in running σ (root mean square): what other samples of the same kind differ by."""

SPARE = 3
"""Channels of the norm beyond those that are named."""

EMPTY = 0.03
"""Of the mean in training: what is as good as 0."""

MOST_ORDERED = 64
"""Channels up to which orders are tried."""


LEAST_OFF = 0.5
"""Shift of the first norm's means, in running σ (root mean square), from which it is worth a cause."""

SAME_GAIN = 0.2
"""Of the log of the std: what all channels may differ by in a gain that they share, and less than it is."""


@dataclass(frozen=True)
class Off:
    """What is off in the channels, in words; the order in which they came (None where that is not it), and the share of the
    squared shift that this explains."""

    what: str
    order: tuple[int, ...] | None
    explains: float


def of_channels(recording: Recording, mean: Array | None) -> Iterator[dict[str, Any]]:
    """A row for `inputs.preprocessing` where few channels of the input are off, or their order; `mean` is the mean input of
    training, None where the running means do not show it."""
    record = next((r for r in recording.layers if r.neighbours and r.neighbours.stem), None)
    if record is None or not _is_comparable(record):
        return
    equations, given = padding.equations(record), recording.about.normalize
    n = equations.matrix.shape[1]
    given = given if given is not None and len(given.mean) == n else None
    away = fit.rms(((equations.seen - equations.running) / equations.sigma) ** 2)
    off = channels_off(equations, mean, given, _called(record)) if away > LEAST_OFF else None
    if off is None:
        return
    yield {
        "layer": record.layer,
        "mistake": off.what,
        "undo": f"x = x[:, {np.argsort(off.order).tolist()}]" if off.order else "",
        "map": ((1.0,) * n, (0.0,) * n, False),
        "shift": away,
        "scale": float(np.exp(np.nanmedian(_log_scales(record)))),
        "scale_predicted": 1.0,
        "discrepancy": away,
        "left_over": away * (1 - off.explains) ** 0.5,
        "explains": off.explains,
        "constants": OF_CHANNELS,
        "misfit": 0.0,
        "weight": 1.0,
        "also": "",
        "rarer": "",
        "certain": False,
        "light": False,
    }


def _called(record: LayerRecord) -> str:
    assert record.neighbours is not None
    assert record.neighbours.stem is not None
    return "channel" if record.neighbours.stem.n_sides else "feature"


def _is_comparable(record: LayerRecord) -> bool:
    """Whether all samples differ from the running statistics, in more than one gain that all channels share."""
    if not stores_statistics(record) or never_updated(record) or not (record.pre.n > 0).any():
        return False
    return not in_one_gain(record) and not samples.few(record) > 0


def in_one_gain(record: LayerRecord) -> bool:
    """Whether all channels vary by the same factor more, or less, than the running variance says."""
    logs = _log_gains(record)
    return bool(logs.size > 0 and np.std(logs) < SAME_GAIN < abs(np.median(logs)))


def gain_of(record: LayerRecord) -> float:
    """The typical std relative to the running one; NaN where no channel tells."""
    logs = _log_gains(record)
    return float(np.exp(np.median(logs))) if logs.size else float("nan")


def _log_gains(record: LayerRecord) -> Array:
    """Log of the std relative to the running one, of the channels that eps does not rule and that vary at all."""
    measured, running = fit.seen(record), fit.stored(record)
    known = (running.var > record.eps) & (measured.var > 0) & np.isfinite(measured.var)
    return np.asarray(np.log(measured.var[known] / running.var[known]) / 2)


def _log_scales(record: LayerRecord) -> Array:
    """Log of the std relative to the running one, eps in both, (C,)."""
    measured, running = fit.seen(record), fit.stored(record)
    with np.errstate(all="ignore"):
        return np.asarray(np.log((measured.var + record.eps) / (running.var + record.eps)) / 2)


def channels_off(
    equations: Equations, mean: Array | None, given: Normalize | None, what: str = "channel"
) -> Off | None:
    """The order of the channels that explains the shift, or else the few that do.

    `mean` is the mean input of training, where it is known, and `what` a channel is called.
    """
    away = (equations.seen - equations.running) / equations.sigma
    weighed = equations.weighed(equations.matrix)
    if weighed.shape[1] < FEWEST or not (away**2).sum() > 0:
        return None
    # an order has no numbers to fit, so that it comes before two channels that were exchanged
    ordered = None if mean is None else _order(weighed, away, mean, given, what)
    found = None if ordered else _few(weighed, away)
    if found is None:
        return ordered
    channels, moved, left = found
    return Off(_words(channels, moved, mean, given, what), None, 1 - left)


def _least_clear(left: float, away: Array) -> float:
    """What must be left over for an explanation to be worse than one that leaves this much."""
    return CLEAR * max(left, NOISE**2 / float((away**2).mean()))


def _few(weighed: Array, away: Array) -> tuple[tuple[int, ...], Array, float] | None:
    """The fewest channels that explain the shift, what each moved by, and what they leave; None where others do as well."""
    n, n_channels = weighed.shape
    chosen: list[int] = []
    for _ in range(min(MOST, n_channels // FEW, n - SPARE)):
        left = [_left(weighed, away, [*chosen, c]) if c not in chosen else 1.0 for c in range(n_channels)]
        chosen.append(int(np.argmin(left)))
        if min(left) <= LEFT:
            return None if _may_be_others(weighed, away, chosen, min(left)) else _moved(weighed, away, chosen)
    return None


def _moved(weighed: Array, away: Array, chosen: list[int]) -> tuple[tuple[int, ...], Array, float]:
    channels = sorted(chosen)
    moved = np.linalg.lstsq(weighed[:, channels], away, rcond=None)[0]
    return tuple(channels), np.asarray(moved), _left(weighed, away, channels)


def _may_be_others(weighed: Array, away: Array, chosen: list[int], left: float) -> bool:
    """Whether another channel does nearly as well in the place of one of these."""
    least = _least_clear(left, away)
    others = [c for c in range(weighed.shape[1]) if c not in chosen]
    kept = [[one for one in chosen if one != out] for out in chosen]
    return any(_left(weighed, away, [*rest, c]) < least for rest in kept for c in others)


def _left(weighed: Array, away: Array, channels: list[int]) -> float:
    """Share of the squared shift that is left when these channels may move."""
    part = weighed[:, channels]
    rest = away - part @ np.linalg.lstsq(part, away, rcond=None)[0]
    return float((rest**2).sum() / (away**2).sum())


def _words(
    channels: tuple[int, ...], moved: Array, mean: Array | None, given: Normalize | None, what: str
) -> str:
    """What became of the channels, as far as their means say."""
    one = len(channels) == 1
    which = f"input {what} {channels[0]} alone " if one else f"input {what}s {_list(channels)} alone "
    if mean is None:
        return f"{which}{'is' if one else 'are'} off: by {_each(f'{m:+.3g}' for m in moved)} in the mean"
    # in the units of the files where the constants tell, since a channel is empty there
    place = list(channels)
    std, at = (
        (np.ones(len(place)), np.zeros(len(place)))
        if given is None
        else (np.array(given.std)[place], np.array(given.mean)[place])
    )
    before = mean[place] * std + at
    now = before + moved * std
    numbers = _each(f"mean {b:.3g} in training, {n:z.3g} here" for b, n in zip(before, now, strict=True))
    if (np.abs(now) <= EMPTY * np.abs(before)).all():
        return f"{which}{'is' if one else 'are'} missing or empty ({numbers})"
    return f"{which}{'has another range' if one else 'have other ranges'} ({numbers})"


def _order(weighed: Array, away: Array, mean: Array, given: Normalize | None, called: str) -> Off | None:
    """The order that explains the shift; without its numbers where several do."""
    n = mean.size
    if n > MOST_ORDERED:
        return None
    std, at = (np.ones(n), np.zeros(n)) if given is None else (np.array(given.std), np.array(given.mean))
    files = mean * std + at
    tried: dict[tuple[int, ...], float] = {}
    for order in dict.fromkeys(_orders(n)):
        index = list(order)
        after = [mean[index], (files[index] - at) / std]
        left = [float(((away - weighed @ (one - mean)) ** 2).sum() / (away**2).sum()) for one in after]
        tried[order] = min(left)
    ranked = sorted(tried, key=lambda order: tried[order])
    best, least = ranked[0], tried[ranked[0]]
    if least > LEFT:
        return None
    what = f"the input {called}s are in another order"
    if tried[ranked[1]] < _least_clear(least, away):
        return Off(f"{what}, of which several would do", None, 1 - least)
    return Off(f"{what}: {_list(best)}", best, 1 - least)


def _orders(n: int) -> Iterator[tuple[int, ...]]:
    """Orders that channels come in by mistake: a run of them reversed, two exchanged, one moved to another place."""
    for i, j in combinations(range(n), 2):
        as_is = list(range(n))
        yield tuple(as_is[:i] + as_is[i : j + 1][::-1] + as_is[j + 1 :])
        swapped = as_is.copy()
        swapped[i], swapped[j] = j, i
        yield tuple(swapped)
        run = as_is[i : j + 1]
        yield tuple(as_is[:i] + run[1:] + run[:1] + as_is[j + 1 :])
        yield tuple(as_is[:i] + run[-1:] + run[:-1] + as_is[j + 1 :])


def _list(channels: tuple[int, ...]) -> str:
    return ", ".join(map(str, channels))


def _each(texts: Iterator[str]) -> str:
    return "; ".join(texts)
