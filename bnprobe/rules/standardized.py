"""Whether samples were standardized each by itself: their means then differ by less than those of noise would."""

from __future__ import annotations

from bnprobe.rules.rule import Evidence

FEWEST_SAMPLES, FEWEST_POSITIONS = 8, 8
"""Without which neither is known."""

OF_NOISE = 0.1
"""Variance between the means of samples, relative to that of means of as many independent values. Of white noise it is 1, of
small pictures behind a convolution that pads with zeros 0.4, of windows on levels of their own 40; 0.05 at most once each
sample is standardized."""

ADVICE = (
    "Every sample has the same mean where the first norm takes it, as where each is standardized by itself. If training "
    "standardized all samples by one mean and one std, of the whole series or of the training set, do so here."
)


def each_by_itself(evidence: Evidence) -> bool:
    """Whether the means of samples at the first norm differ by less than chance makes them."""
    row, channels = evidence.sites[0]
    if row["kind"] != "batch_norm" or row["n_images"] < FEWEST_SAMPLES:
        return False
    positions = channels["n_values"] / row["n_images"]
    # the mean of n independent values has 1/n of their variance
    of_noise = (1 - channels["share_within"]) * positions
    return bool(positions.min() >= FEWEST_POSITIONS and of_noise.median() < OF_NOISE)
