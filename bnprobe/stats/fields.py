"""The numbers kept of every channel of a tensor, declared once: their order, how parts add, where the record has them.

One read of a tensor leaves one array, a row for each name of FIELDS and a column for each channel (see
`reductions.packing`). The reference, the CPU's loops and the GPU's kernels write the rows in this order and add two
such arrays by the rules below; `recording.LayerRecord` merges, and `recording.validation` checks, by `RECORDED`.

To add a statistic, say the sum of |x|: one entry of TERMS here, `Sum("absolute", {"pre": "pre_absolute"}, whole=False,
of=abs)`, and the steps that CONTRIBUTING.md lists.

From then on `tests/reductions/test_contract.py` asks every engine for it, and tests of records, merging and files do.
A sum that follows from the input's where a map is known (as `nonfinite` does) needs a rule in `add_mapped` too;
without one it is known of what was read, the "pre" side, and not of what is derived from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from bnprobe.stats.images import ImageMoments
from bnprobe.stats.moments import Array, Moments


@dataclass(frozen=True)
class Sum:
    """A number per channel that adds up, over values, images, calls and machines.

    `record` names the field of `LayerRecord` for each side of the norm on which it is kept: "pre" of the
    input, "post" of the output, "gate" of the output as far as it follows from the input. `whole` says whether
    it counts something. `of` is what a finite value of the input adds, for arrays of numpy and tensors alike; None
    for a sum that takes more than one value of the input, which `reductions.reference` has lines of its own for.
    """

    name: str
    record: Mapping[str, str]
    whole: bool = True
    of: Callable[[Any], Any] | None = None


TERMS = (Sum("positive", {"gate": "n_positive"}),)
"""To which every value adds a term of its own."""

SUMS = (Sum("nonfinite", {"pre": "pre_nonfinite", "post": "post_nonfinite"}), *TERMS)
"""What just adds: values that are not finite, which follow from how many are, and the terms."""

OF_MOMENTS = tuple(field.name for field in fields(Moments))
OF_IMAGES = tuple("images" if field.name == "n" else field.name for field in fields(ImageMoments))
"""What `Moments.merge` and `ImageMoments.merge` add; `n` of the latter counts images."""

FIELDS = (*OF_MOMENTS, *OF_IMAGES, *(sum_.name for sum_ in SUMS))
"""The rows, in order."""

N, MEAN, M2, M3, M4, LOW, HIGH = range(len(OF_MOMENTS))
ORIGIN, IMAGES, A, B, AA, BB, AB = (len(OF_MOMENTS) + i for i in range(len(OF_IMAGES)))
NONFINITE, FIRST_TERM = (len(OF_MOMENTS) + len(OF_IMAGES) + i for i in range(2))
POSITIVE = FIELDS.index("positive")
"""Their numbers, for code that cannot look names up."""


def recorded(sides: Mapping[str, Array]) -> dict[str, Array]:
    """What the record keeps of the packed readings of each side of a norm, by the names of its fields."""
    return {
        field: sides[side][FIELDS.index(sum_.name)]
        for sum_ in SUMS
        for side, field in sum_.record.items()
        if side in sides
    }


RECORDED = {field: sum_ for sum_ in SUMS for field in sum_.record.values()}
"""The sums by the names of `LayerRecord`'s fields."""
