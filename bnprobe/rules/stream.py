"""Rules about what is built between norms: blocks without a residual connection, and norms of norms."""

from __future__ import annotations

from collections.abc import Iterator

from bnprobe.recording.names import ATTENTION, EMBEDDING, FINAL, INNER, KEY, QUERY, said
from bnprobe.rules.by_hand import CODE
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count

WITHOUT_SUMS = ("", ATTENTION, QUERY, KEY, INNER, EMBEDDING, FINAL)
"""Roles that need no sum; all others are read from one."""

FEWEST_BLOCKS = 2
"""Norms before attention from which a network is a stack of blocks."""


def no_residual(evidence: Evidence) -> Iterator[Finding]:
    """Stacks of attention in which nothing is added to what went in; once for the network."""
    layers = evidence.layers
    before = layers[layers["norm_role"] == ATTENTION]
    if len(before) < FEWEST_BLOCKS or not layers["norm_role"].isin(WITHOUT_SUMS).all():
        return
    if layers["branch"].notna().any() or (layers[["skip", "layer_scale"]] != "").any(axis=None):
        return
    yield Finding(
        "warning",
        str(before.iloc[0]["layer"]),
        "No block has a residual connection: what attention returns takes the place of what went in.",
        f"in the pass that was watched none of {count(len(layers), 'norm')} is given, or leads into, a sum of what enters a "
        "block with what it returns.",
        "Add the input to the output of each branch, `x = x + attention(norm(x))`, and train again: without it tokens "
        "become alike with depth, and gradients fade.",
        call=int(before.iloc[0]["call"]),
    )


def norm_of_norm(evidence: Evidence) -> Iterator[Finding]:
    """Norms that are given what another one has just normalized."""
    for _, row in evidence.layers[evidence.layers["repeats"] != ""].iterrows():
        yield Finding(
            "info",
            row["layer"],
            f"Two norms in a row: this one is given the output of {said(row['repeats'])}, and nothing else is.",
            "each token already has a scale of 1, but for γ and β of the first norm.",
            "Remove one of them before training. In a trained network keep both: the second one undoes what γ and β of the "
            "first do to the scale of a token, so results change without it.",
            call=row["call"],
        )


RULES = (
    Rule(
        "no-residual",
        "Do blocks add to what went into them?",
        "Dong, Cordonnier & Loukas 2021, arXiv:2103.03404; "
        "https://github.com/lsdefine/attention-is-all-you-need-keras/issues/17",
        f"a sum after attention, or fewer than {FEWEST_BLOCKS} norms before attention",
        no_residual,
        by_hand=CODE,
    ),
    Rule(
        "norm-repeated",
        "Is each norm given what no other norm has just normalized?",
        "Ba, Kiros & Hinton 2016, arXiv:1607.06450 (table 1); https://github.com/huggingface/diffusers/pull/1381, "
        "https://github.com/Helsinki-NLP/mammoth/pull/3",
        "weights, a sum or a second reader between two norms",
        norm_of_norm,
        by_hand=CODE,
    ),
)
