"""What each sample of a call shows after the norm: the value by which the exemplars of a channel are chosen.

That is the mean over positions, which follows from that of the input wherever the norm is an affine map per row. A norm over
channels sees each position (token) apart: there it is the largest and the smallest value, with the position that has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.reductions import WHOLE, Affine, DeviceReading, Packed, Reading, Valid
from bnprobe.stats.moments import Array

Index = npt.NDArray[np.int64]

MOST_GATHERED = 1 << 22
"""Values that are looked at together for their positions: 32 MB as float64."""


@dataclass(slots=True)
class RowValues:
    """The values of N samples by which they are ranked, from the highest and from the lowest: (N, C) each, NaN where a
    sample has none. `position` (2, N, C) is where they are among the positions of the sample, NaN where nobody looked, and
    `places` the dimensions of the output without channels, None where positions are those of the sequence already."""

    high: Array
    low: Array
    position: Array | None = None
    places: tuple[int, ...] | None = None

    def values(self) -> RowValues:
        """Itself."""
        return self


@dataclass(slots=True)
class RowMeans:
    """The means (N, C) over positions, maybe still on their device, and the map under which they are those of the output."""

    means: Array | Tensor
    map: Affine | None = None

    def values(self) -> RowValues:
        """The values after the norm, on the host."""
        means = self.means.cpu().numpy() if isinstance(self.means, Tensor) else self.means
        if self.map is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                means = (means - self.map.origin) * self.map.scale + self.map.offset
        return RowValues(means, means)


def row_means(reading: Reading) -> Array | Tensor:
    """The mean over positions of each (sample, channel); NaN where no value counted. It does not wait for a device."""
    if isinstance(reading, DeviceReading) and not reading.fetched:
        n, mean = _rows_there(reading)[:2]
        return torch.where(n > 0, mean, torch.nan)
    assert reading.rows is not None
    return np.where(reading.rows.n > 0, reading.rows.mean, np.nan)


def _rows_there(reading: DeviceReading) -> Tensor:
    rows = reading.there[2]
    assert rows is not None
    return rows


def row_peaks(
    plan: NormLayer, y: Tensor, valid: Valid | None, reading: Reading, floor: Array | None
) -> RowValues:
    """The largest and the smallest value of each sample of an output that was read.

    Positions are looked for where a value reaches the `floor` (2, C) of the scores that are kept so far, as nobody asks for
    the others; None is below all.
    """
    moments = reading.rows
    assert moments is not None
    known, rows = moments.n > 0, plan.rows(y.detach())
    high, low = (np.where(known, side, np.nan) for side in (moments.high, moments.low))
    position = np.full((2, *high.shape), np.nan)
    for side, (values, sign) in enumerate(((high, 1.0), (low, -1.0))):
        wanted = known if floor is None else known & (sign * values >= floor[side])
        samples, channels = np.nonzero(wanted)
        position[side, samples, channels] = _where(rows, valid, samples, channels, sign)
    return RowValues(high, low, position, None if isinstance(valid, Packed) else plan.places(y))


def _where(
    rows: Tensor, valid: Valid | None, samples: Index, channels: Index, sign: float
) -> npt.NDArray[np.int64]:
    """Where the largest value (`sign` 1) or the smallest (-1) of these samples and channels is, the first such position."""
    if isinstance(valid, Packed):
        found = np.zeros(len(samples), dtype=np.int64)
        for sample, part, _ in valid.cut(rows, WHOLE):
            here = np.flatnonzero(samples == sample.start)  # type: ignore[union-attr]
            found[here] = _where(part, None, np.zeros_like(here), channels[here], sign)
        return found
    step = max(MOST_GATHERED // max(rows.shape[2], 1), 1)
    parts = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(samples), step):
        n, c = (torch.from_numpy(one[start : start + step]).to(rows.device) for one in (samples, channels))
        values = rows[n, c].to(torch.float64) * sign
        counts = torch.isfinite(values)
        if valid is not None:
            counts &= torch.from_numpy(valid.mask).to(rows.device)[n]
        parts.append(torch.where(counts, values, -torch.inf).argmax(dim=1).cpu().numpy())
    return np.concatenate(parts)


def why_no_exemplars(plan: NormLayer) -> str:
    """What keeps samples of this norm from being ranked, in words; empty where nothing does."""
    own = plan.pool.positions and not plan.pool.samples and not plan.uses_running
    if own and plan.centred and (not plan.pool.channels or plan.n_groups == plan.n_channels):
        return SAME_MEAN
    return ""


SAME_MEAN = "they give every sample the same mean."
NOT_PER_SAMPLE = "their inputs do not have one row per sample of the batch, but windows, regions or steps."
