"""A reading in one array: what a tensor's moments come to, ready to be added to a total in place.

Every field of `Moments` and of `ImageMoments`, and the non-finite count, one row each for all channels.
The dataclasses of `stats` are how these numbers are understood, and own the formulas; a row is how they
are kept while calls come in, because a merge of dataclasses takes as long as reading a small tensor.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from bnprobe.stats import ImageMoments, Moments
from bnprobe.stats.moments import Array

MOMENTS = ("n", "mean", "m2", "m3", "m4", "low", "high")
IMAGES = ("origin", "images", "a", "b", "aa", "bb", "ab")
FIELDS = (*MOMENTS, *IMAGES, "bad", "positive")
"""The rows, in order; `images` counts images, `bad` non-finite values, `positive` what passed a gate."""

N_MOMENTS, N_IMAGES = len(MOMENTS), len(IMAGES)
N_SEEN, IMAGES_SEEN, BAD, POSITIVE = (FIELDS.index(name) for name in ("n", "images", "bad", "positive"))


def packed(
    moments: Moments,
    images: ImageMoments | None = None,
    bad: Array | None = None,
    positive: Array | None = None,
) -> Array:
    """One array of shape (len(FIELDS), C); without images, or counts, where none are given."""
    nothing = np.zeros(moments.shape)
    images = images or ImageMoments.empty(nothing)
    counts = (nothing if count is None else count for count in (bad, positive))
    return np.array([*vars(moments).values(), *vars(images).values(), *counts])


def moments_of(rows: Array) -> Moments:
    """The moments; views of the rows."""
    return Moments(*rows[:N_MOMENTS])


def images_of(rows: Array) -> ImageMoments:
    """The image moments; views of the rows."""
    return ImageMoments(*rows[N_MOMENTS : N_MOMENTS + N_IMAGES])


def add(total: Array, new: Array) -> None:
    """Merge `new` into `total`, in place: `Moments.merge` and `ImageMoments.merge`."""
    loops = _loops()
    if loops is not None:
        loops.add(total, new)
        return
    counts = total[BAD:] + new[BAD:]
    total[:] = packed(
        moments_of(total).merge(moments_of(new)), images_of(total).merge(images_of(new)), *counts
    )


def add_mapped(total: Array, new: Array, map_: Any) -> None:
    """Merge the image of `new` under an affine map per channel into `total`, in place: `Moments.affine`.

    What the map makes of finite values, and is not finite, counts as bad; images and what passed a gate
    are not known after a map, and stay as they are.
    """
    loops = _loops()
    if loops is not None:
        loops.add_mapped(total, new, map_)
        return
    before = moments_of(new)
    after = before.affine(map_.scale, map_.offset, map_.origin)
    total[:N_MOMENTS] = np.array(list(vars(moments_of(total).merge(after)).values()))
    total[BAD] += before.n + new[BAD] - after.n


@cache
def _loops() -> Any:
    """The compiled loops, or None."""
    from bnprobe.reductions import compiled

    return compiled()
