"""Norms whose mean and variance are detached: a gradient passes them as if both were constants."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.rules.rule import Evidence, Finding

NOTHING_REMOVED = 1e-5
"""Share of the gradient's energy below which a norm removes nothing of it: of n values that it normalizes together it
removes 2 / n or so."""


def is_detached(row: pd.Series, evidence: Evidence) -> bool:
    """Whether a gradient passes a norm as if its mean and variance were constants, though it took them from its input.

    Two signs: nothing of the gradient's energy is removed, as it also is where what arrives is free of those parts already;
    and the gradient at the input does not sum to 0, as it then would.
    """
    own = row["normalized_by"] in ("batch", "sample") and row["kind"] != "rms_norm"
    if not (own and row["n_backward"] > 0 and abs(row["energy_removed_layer"]) < NOTHING_REMOVED):
        return False
    centre = row["gap_centre"]
    if row["normalized_by"] == "sample" and np.isnan(centre):  # it sums to 0 over channels
        channels = evidence.channels
        mine = channels[(channels["layer"] == row["layer"]) & (channels["call"] == row["call"])]
        means = mine["dx_mean"].to_numpy(float)
        centre = abs(means.sum()) / np.sqrt(np.square(means).sum()) if means.any() else 0.0
    return bool(centre > evidence.limits.gradient_gap)


def detached(row: pd.Series, gaps: str) -> Finding:
    """What is said of it; `gaps` are identities that are violated, as the end of a sentence."""
    return Finding(
        "warning",
        row["layer"],
        "The gradient passes this norm as if its mean and variance were constants: they are detached from its input.",
        f"of the gradient's energy it removes {abs(row['energy_removed_layer']):.1g}, and a norm whose mean and variance "
        f"depend on its input removes what points along them{gaps}.",
        "Look in its forward for torch.no_grad(), detach() or .data around mean and variance: only what updates running "
        "statistics belongs there. The weights before it then get gradients in directions that change no output, and grow. "
        "Results stay as they are; train on with the change.",
        call=row["call"],
    )
