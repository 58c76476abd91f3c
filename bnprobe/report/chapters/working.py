"""Which channels pass something on: counted once, for the tile, the spine and what was learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bnprobe.rules.values import OVER_FEATURES

ROLES_NOT_WORKING = ("dead", "constant")


@dataclass(frozen=True)
class Working:
    """How many channels of every norm do not work, and of how many; shape (norms,), in the order of the table of layers.

    `known` counts those of which it is known whether they pass anything on.
    """

    silent: NDArray[np.int64]
    sizes: NDArray[np.int64]
    known: NDArray[np.int64]

    @property
    def n_silent(self) -> int:
        """Channels of all norms that do not work."""
        return int(self.silent.sum())

    @property
    def n_channels(self) -> int:
        """Channels of all norms."""
        return int(self.sizes.sum())

    @property
    def n_known(self) -> int:
        """Channels of all norms of which it is known."""
        return int(self.known.sum())

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of every norm's channels that do not work, from 0 to 1."""
        return np.asarray(self.silent / self.sizes)


def working(channels: pd.DataFrame) -> Working:
    """Of the table of channels: those that are dead or constant by their role, or cut to nothing on these data."""
    # of features a γ near 0 is no sign of idleness: the weights that follow may make up for it
    small_gamma_only = (channels["role"] == "constant") & channels["kind"].isin(OVER_FEATURES)
    silent = channels["role"].isin(ROLES_NOT_WORKING) & ~small_gamma_only | (channels["passes"] == 0)
    known = channels["passes"].notna() | (channels["role"] != "unknown") | channels["dead_predicted"].notna()
    by_norm = pd.DataFrame({"silent": silent, "known": known}).groupby(
        [channels["layer"], channels["call"]], sort=False
    )
    sums = by_norm.sum()
    return Working(*(np.asarray(one, np.int64) for one in (sums["silent"], by_norm.size(), sums["known"])))
