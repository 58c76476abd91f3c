"""The calls of a site dealt to folds, added up where their readings are."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bnprobe.probe.calls.histogram_scale import HistogramScale
from bnprobe.probe.calls.observation import InputReading
from bnprobe.reductions import FOLD_ROWS, DeviceReading, FoldRows, new_folds
from bnprobe.stats import N_FOLDS, Folds
from bnprobe.stats.fields import AA, IMAGES, A
from bnprobe.stats.moments import Array


class FoldSums:
    """A `Folds` that can be written to: `add` each call, or add it `there`, on its device.

    Made of what every reading already holds of its images: nothing is read for it.
    """

    def __init__(self) -> None:
        self._n_batches = 0
        self._reference: HistogramScale | None = None
        """That of the first call, about whose centre all squares are taken."""
        self._sums: Array | None = None
        """Rows for the origin, for what is within batches, and three for each fold."""
        self._there: Tensor | None = None
        """The same on the device, of calls that are still there."""

    def add(self, before: InputReading, continues: bool = False) -> None:
        """Add one call; to the batch of the last one if its sequences go on."""
        reading = before.reading
        if not reading.n_images:
            return
        reference, row = self._next(before, continues)
        if self._sums is None:
            self._sums = np.zeros((FOLD_ROWS, len(reference.centre)))
            self._sums[0] = reference.centre
        if before.reference is not reference:  # two threads, each with a first call
            reading = reading.about(reference.centre)
        new = reading.packed
        self._sums[1] += new[AA]
        self._sums[row] += new[IMAGES]
        self._sums[row + 1 : row + 3] += new[A:AA] * new[IMAGES]

    def there(self, before: InputReading, reading: DeviceReading, continues: bool = False) -> FoldRows:
        """The fold of one more call, on the device of its reading."""
        reference, row = self._next(before, continues)
        if self._there is None:
            self._there = new_folds(reference.centre, reading)
        return FoldRows(self._there, row)

    def _next(self, before: InputReading, continues: bool) -> tuple[HistogramScale, int]:
        """The reference of the site, and the first row of the fold that this call belongs to."""
        self._reference = self._reference or before.reference
        if not (continues and self._n_batches):
            self._n_batches += 1
        return self._reference, 2 + 3 * ((self._n_batches - 1) % N_FOLDS)

    def fetch(self) -> None:
        """Fetch what is still on the device."""
        if self._there is None:
            return
        home, self._there = self._there.cpu().numpy(), None
        if self._sums is None:
            self._sums = home
        else:
            self._sums[1:] += home[1:]

    def finished(self) -> Folds | None:
        """A snapshot of everything that was fetched; None before a call with images."""
        if self._sums is None:
            return None
        origin, within, *folds = self._sums.copy()
        n, a, b = (np.array(folds[i::3][: self._n_batches]) for i in range(3))
        return Folds(origin, n, a, b, within, self._n_batches)
