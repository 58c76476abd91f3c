"""A reading in one array: what a tensor's numbers come to, ready to be added to a total in place.

One row for each of `stats.fields.FIELDS`, for all channels. The dataclasses of `stats` are how these numbers
are understood, and own the formulas; a row is how they are kept while calls come in, because a merge of
dataclasses takes as long as reading a small tensor. `add` and `add_mapped` are the reference of what the
engines do in one go; `reductions.dispatch` chooses among them.
"""

from __future__ import annotations

import numpy as np

from bnprobe.reductions.request import Affine
from bnprobe.stats import ImageMoments, Moments
from bnprobe.stats.fields import NONFINITE, ORIGIN, SUMS, N
from bnprobe.stats.moments import Array

_NAMES = tuple(sum_.name for sum_ in SUMS)


def packed(moments: Moments, images: ImageMoments | None = None, **sums: Array | None) -> Array:
    """One array of shape (len(FIELDS), C); zeros for images, or sums by name, that are not given."""
    if not sums.keys() <= set(_NAMES):
        raise TypeError(f"no such sums: {', '.join(sorted(sums.keys() - set(_NAMES)))}.")
    nothing = np.zeros(moments.shape)
    images = images or ImageMoments.empty(nothing)
    found = (sums.get(name) for name in _NAMES)
    return np.array(
        [
            *vars(moments).values(),
            *vars(images).values(),
            *(nothing if sum_ is None else sum_ for sum_ in found),
        ]
    )


def moments_of(rows: Array) -> Moments:
    """The moments; views of the rows."""
    return Moments(*rows[N:ORIGIN])


def images_of(rows: Array) -> ImageMoments:
    """The image moments; views of the rows."""
    return ImageMoments(*rows[ORIGIN:NONFINITE])


def with_images(rows: Array, images: ImageMoments) -> Array:
    """A copy with other image moments."""
    rows = rows.copy()
    rows[ORIGIN:NONFINITE] = np.array(list(vars(images).values()))
    return rows


def add(total: Array, new: Array) -> None:
    """Merge `new` into `total`, in place: `Moments.merge` and `ImageMoments.merge`; sums just add."""
    moments = moments_of(total).merge(moments_of(new))
    images = images_of(total).merge(images_of(new))
    total[NONFINITE:] += new[NONFINITE:]
    total[N:ORIGIN] = np.array(list(vars(moments).values()))
    total[ORIGIN:NONFINITE] = np.array(list(vars(images).values()))


def add_mapped(total: Array, new: Array, map_: Affine) -> None:
    """Merge the image of `new` under an affine map per channel into `total`, in place: `Moments.affine`.

    What the map makes of finite values, and is not finite, counts as such; images and terms are not known
    after a map, and stay as they are.
    """
    before = moments_of(new)
    after = before.affine(map_.scale, map_.offset, map_.origin)
    total[N:ORIGIN] = np.array(list(vars(moments_of(total).merge(after)).values()))
    total[NONFINITE] += before.n + new[NONFINITE] - after.n
