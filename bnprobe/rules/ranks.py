"""Rules about ranks of one process group that differ: in their running statistics, and in what they are fed."""

from __future__ import annotations

from collections.abc import Iterator

from bnprobe.rules.by_hand import BATCHES
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count, sigmas

BEYOND_CHANCE = 4.0
"""Times what chance gives that the inputs of two ranks must be apart: a channel alone gets there once in 16,000 times."""


def ranks_drifted(evidence: Evidence) -> Iterator[Finding]:
    """Ranks of one model whose norms do not store the same running statistics."""
    layers = evidence.layers
    found = layers[(layers["ranks_stored_apart"] > 0) & (layers["call"] == 0)]
    if found.empty:
        return
    worst = found.sort_values("ranks_stored_apart", ascending=False, kind="stable").iloc[0]
    apart = worst["ranks_stored_apart"]
    yield Finding(
        "warning" if apart >= evidence.limits.ranks_apart else "info",
        worst["layer"],
        "Ranks do not store the same running statistics: what is saved, and what this page shows, is that of the first.",
        f"{worst['ranks_stored_apart_of']} are {sigmas(apart)} running σ apart at {worst['layer']}, and those of "
        f"{count(len(found), 'norm')} are not the same (a warning from {evidence.limits.ranks_apart:g}).",
        "Normalize with the batches of all ranks (torch.nn.SyncBatchNorm.convert_sync_batchnorm, before the model is "
        "wrapped), or let DistributedDataParallel send its buffers before each pass, as it does by default. Before each "
        "rank evaluates by itself, send the buffers of rank 0 to all.",
    )


def ranks_unlike(evidence: Evidence) -> Iterator[Finding]:
    """Ranks that are fed data of different kinds."""
    layers, limit = evidence.layers, evidence.limits.ranks_apart
    apart, chance = layers["ranks_apart"], layers["ranks_apart_chance"]
    found = layers[(apart >= limit) & (apart >= BEYOND_CHANCE * chance)]
    if found.empty:
        return
    first = found.iloc[0]
    learns = bool((found["n_calls_learning"] > 0).any())
    yield Finding(
        "warning" if learns else "info",
        first["layer"],
        "Ranks are fed data of different kinds" + _consequence(learns),
        f"The inputs of {first['ranks_apart_of']} are {sigmas(first['ranks_apart'])} σ apart here, the first of "
        f"{count(len(found), 'norm')} (threshold {limit:g}); by chance it would be {sigmas(first['ranks_apart_chance'])}.",
        "Compare what the data loaders of these ranks give: the same preprocessing, and a sampler that shuffles before it "
        "deals samples out, such as DistributedSampler(dataset, shuffle=True) with set_epoch(epoch) in every epoch.",
        call=first["call"],
    )


def _consequence(learns: bool) -> str:
    if learns:
        return ": each batch norm that is not synchronized learns the statistics of its own part."
    return ". Sums over all ranks are right; statistics of one of them would not be."


RULES = (
    Rule(
        "ranks-drifted",
        "Do all ranks store the same running statistics?",
        "https://github.com/pytorch/pytorch/issues/30718",
        "running statistics that are the same on all ranks to the last bit, and recordings of one process",
        ranks_drifted,
        by_hand="it takes the other processes, and one is at hand",
    ),
    Rule(
        "ranks-unlike",
        "Are all ranks fed data of one kind?",
        "Goyal et al. 2017, arXiv:1706.02677, section 3",
        f"means of inputs less than {DEFAULT.ranks_apart:g} σ apart, or within {BEYOND_CHANCE:g} times chance",
        ranks_unlike,
        by_hand=BATCHES,
    ),
)
