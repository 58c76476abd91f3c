"""Rules about axes: whether a norm keeps statistics for the dimension in which the layers around it have features."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.rules.by_hand import CODE
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.values import OVER_FEATURES
from bnprobe.rules.wording import count, kind_words

SEQUENTIAL = ("recurrent", "embedding", "norm")
"""Neighbors whose values are (samples, positions, features) without a doubt; a linear layer may act on positions."""


def features_in_the_last_dimension(evidence: Evidence) -> Iterator[Finding]:
    """Batch norms over (N, positions, features), which take dimension 1 for the channels."""
    for row in evidence.rows:
        around, n_last = str(row["features_elsewhere"]), row["n_last"]
        if around and row["kind"] in OVER_FEATURES and not row["call"]:
            yield _over_positions(row, around)
        if around and row["kind"] == "instance_norm" and not row["call"]:
            yield _over_samples(row, around)
        if not around or row["kind"] != "batch_norm" or row["call"] or row["n_channels"] == 1:
            continue  # a single channel was put there on purpose: one mean and variance for all
        certain = any(name in around for name in SEQUENTIAL)
        yield Finding(
            "warning" if certain else "info",
            row["layer"],
            "This batch norm takes positions for channels: it normalizes all features of a time step or position together.",
            f"its input is (N, {row['n_channels']}, {n_last}) and it keeps statistics for dimension 1, while its neighbors "
            f"have their features in the last dimension ({around}).",
            f"If dimension 1 is time or position, build the norm with {n_last} channels and call it on the transposed "
            "input, `y = norm(x.transpose(1, 2)).transpose(1, 2)`, then retrain: a trained model does not keep its "
            "results. If each position is meant to have statistics of its own, nothing is wrong.",
        )


def _over_positions(row: pd.Series, around: str) -> Finding:
    """A layer norm over the width of an image or the steps of a sequence, between convolutions."""
    between = "before" in around and "after" in around
    return Finding(
        "warning" if between else "info",
        row["layer"],
        f"This {kind_words(row['kind'])} takes positions for features: it normalizes along the last dimension, which is the "
        "width or time.",
        f"it normalizes over the {count(row['n_channels'], 'value')} of the last dimension, while its neighbors have as "
        f"many features in another one ({around}).",
        "To normalize over features, move them to the end, `y = norm(x.movedim(1, -1)).movedim(-1, 1)`, then retrain: a "
        "trained model does not keep its results. If the last dimension is frequency, or the norm is meant to act along it, "
        "nothing is wrong.",
    )


def _over_samples(row: pd.Series, around: str) -> Finding:
    """An instance norm of rows (N, features), which torch takes for one sample of N channels."""
    n_last = row["n_last"]
    vectors = ", and γ and β belong to places in the batch, not to features" if row["learns"] else ""
    return Finding(
        "warning",
        row["layer"],
        "This instance norm takes samples for channels: it normalizes all features of a sample together, as a layer norm "
        f"does{vectors}.",
        f"its input is ({row['n_channels']}, {n_last}), two dimensions, which it takes for one sample (channels, "
        f"positions), while its neighbors have their features in the last one ({around}).",
        f"Rows of features have no positions to take mean and std over. Use `torch.nn.LayerNorm({n_last})`, or "
        f"`torch.nn.BatchNorm1d({n_last})` to normalize each feature over the batch, and retrain: a trained model does not "
        "keep its results.",
    )


RULES = (
    Rule(
        "positions-as-channels",
        "Does every batch norm over sequences keep its statistics for features?",
        "torch.nn.BatchNorm1d, whose input is (N, C, L); "
        "https://github.com/xieyulai/LSTM-for-Human-Activity-Recognition-using-2D-Pose_Pytorch/issues/2",
        "layers before or after it that have their features in dimension 1, or an input of other than 3 dimensions (of an "
        "instance norm, 2)",
        features_in_the_last_dimension,
        by_hand=CODE,
    ),
)
