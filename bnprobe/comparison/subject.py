"""What is compared at all: two sets of data, two modes, two states of the weights, or nothing that differs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from bnprobe.comparison.significance import ROUNDING


class What(NamedTuple):
    """Numbers of sites that differ, and of how many; `same_inputs` is None where no data went through both."""

    n_sites: int
    n_identical: int
    n_affine: int
    n_running: int
    n_modes: int
    n_filters: int
    same_inputs: bool | None

    @property
    def same_weights(self) -> bool:
        """Whether gamma, beta and the running statistics are the same everywhere."""
        return not (self.n_affine or self.n_running)


def what(layers: pd.DataFrame, channels: pd.DataFrame) -> What:
    """From the tables of a comparison.

    Both sides saw the same images where the inputs of the first norm agree but for rounding: there, nothing
    but the images and the weights before it could tell them apart.
    """
    first = layers.iloc[0]
    known = first["n_images_a"] > 0 and first["n_images_b"] > 0
    called = (layers["n_images_a"] > 0) & (layers["n_images_b"] > 0)
    modes = called & (layers["normalized_by_a"] != layers["normalized_by_b"])
    return What(
        len(layers),
        int(layers["identical"].sum()),
        _differing(channels, ("gamma", "beta")),
        _differing(channels, ("running_mean", "running_var")),
        int(modes.sum()),
        int(layers["filters_differ"].sum()),
        bool(first["n_images_a"] == first["n_images_b"] and first["pre_gap"] < ROUNDING) if known else None,
    )


def _differing(channels: pd.DataFrame, names: tuple[str, ...]) -> int:
    """Sites at which one of these vectors differs at all."""
    differs = np.zeros(len(channels), dtype=bool)
    for name in names:
        a, b = channels[f"{name}_a"].to_numpy(float), channels[f"{name}_b"].to_numpy(float)
        differs |= ~((a == b) | (np.isnan(a) & np.isnan(b)))
    return int(pd.Series(differs).groupby([channels["layer"], channels["call"]]).any().sum())
