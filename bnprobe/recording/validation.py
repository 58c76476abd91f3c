"""What no run can have written, beside the laws of the statistics: asked of every file before it is believed.

Numbers that are counts are whole, not negative and no more than a float64 counts; sums of squares are not
negative. A network that diverged writes NaN and infinity in many places, so those are let in elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np

from bnprobe.recording.about import About
from bnprobe.recording.layer_record import LayerRecord
from bnprobe.stats.fields import RECORDED

MOST = 2**53
"""Up to here float64 tells neighboring whole numbers apart."""

COUNTS = {
    *("n", "dy_nonfinite", "counts", "labels"),
    *("dx_values", "dy_passes", "dx_passes", "gamma_passes", "beta_passes"),
    *(name for name, sum_ in RECORDED.items() if sum_.whole),
}
NOT_NEGATIVE = ("aa", "bb", "energy", "norm", "within")
OUTPUTS = ("derived", "read")


def violations(about: About, layers: Iterable[LayerRecord]) -> Iterator[str]:
    """Each thing that no run writes, with its place."""
    yield from _odd_fields(about, "about")
    if not 0 <= about.seconds < math.inf:
        yield f"about / seconds: a run cannot take {about.seconds} s."
    for record in layers:
        yield from _odd_fields(record, record.site)
        if not 0 <= record.eps < math.inf:
            yield f"{record.site} / eps: expected a number that is not negative, found {record.eps}."
        if record.momentum is not None and math.isinf(record.momentum):
            yield f"{record.site} / momentum: expected a finite number, found {record.momentum}."
        if record.output not in OUTPUTS:
            yield f"{record.site} / output: expected {' or '.join(OUTPUTS)}, found {record.output[:40]!r}."


def _odd_fields(value: object, at: str) -> Iterator[str]:
    own: type = type(value)
    for name in _names(own):
        part = getattr(value, name)
        kind: type = type(part)
        if kind is np.ndarray:
            if name in COUNTS and not _are_counts(part):
                yield f"{at} / {name}: expected counts, found numbers that are negative, broken or too large."
            elif name in NOT_NEGATIVE and bool((part < 0).any()):
                yield f"{at} / {name}: sums of squares are not negative."
        elif kind is int:
            if not 0 <= part <= MOST:
                found = f"a number {'below 0' if part < 0 else 'of astronomical size'}"
                yield f"{at} / {name}: expected a count, found {found}."
        elif _names(kind):
            yield from _odd_fields(part, f"{at} / {name}")


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass; none of another type. Asked once of each, since a file holds thousands of values."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def _are_counts(array: Any) -> bool:
    if not array.size:
        return True
    # not NaN either, which is neither
    return bool(array.min() >= 0 and array.max() <= MOST and (array == np.floor(array)).all())
