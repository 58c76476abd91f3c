"""Rules about tokens: loud ones, streams that a block overwrites or leaves as they are, directions in common."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise

import pandas as pd

from bnprobe.recording.names import (
    ATTENTION_OUTPUT,
    CROSS_ATTENTION_OUTPUT,
    IN_BRANCHES,
    MLP_OUTPUT,
    QUERY,
    said,
)
from bnprobe.rules.by_hand import CODE, TRAINING
from bnprobe.rules.newness import affine_at_start, beyond_first_steps
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.wording import count, number

SHARP_IF_SCALED = 0.3
"""Share of the largest entropy below which attention is sharp where its logits are multiplied by too much."""

WITH_A_NORM = 2.0
"""Times as far as others a branch may move the stream that ends in a norm: outputs of size 1 beside embeddings of 0.02, as
OLMo 2 begins, are 50, and healthy trained networks have 30."""

ENDS_OF_BRANCHES = (ATTENTION_OUTPUT, CROSS_ATTENTION_OUTPUT, MLP_OUTPUT)
"""Roles of norms at the end of a branch."""

BEFORE_SQUARES = 256.0
"""Largest input whose square half precision holds."""


def loud_stretch(layers: pd.DataFrame, limits: Limits = DEFAULT) -> pd.DataFrame | None:
    """The norms in a row where tokens at some positions are loud, those with the loudest token; None without any.

    Their index are the places of the rows in the table.
    """
    layers = layers.reset_index(drop=True)
    is_sink = (layers["loudest_token"] > limits.sink_scale) & (
        layers["position_share"] > limits.sink_position
    )
    stretches = [
        layers.loc[[i for i, _ in group]]
        for sink, group in groupby(is_sink.items(), key=lambda item: item[1])
        if sink
    ]
    return max(stretches, key=lambda one: one["loudest_token"].max(), default=None)


def sink_tokens(evidence: Evidence) -> Iterator[Finding]:
    """Where tokens at some positions are many times as loud as the others, once for the network."""
    limits, stretch = evidence.limits, loud_stretch(evidence.layers, evidence.limits)
    if stretch is None:
        return
    loudest = stretch.iloc[int(stretch["loudest_token"].argmax())]
    first, last = stretch.iloc[0]["layer"], stretch.iloc[-1]["layer"]
    where = f"from {said(first)} to {said(last)}" if first != last else f"at {said(first)}"
    known = loudest["loudest_position"] >= 0
    tokens = f"the token at position {loudest['loudest_position']:.0f} is" if known else "one token is"
    yield Finding(
        "info",
        str(first),
        f"A few tokens are far louder than the others: {where} {tokens} up to {number(loudest['loudest_token'])} times as "
        "loud as the median token.",
        f"{loudest['loudest_channel_share']:.0%} of its energy is in channel {loudest['loudest_channel']:.0f}; "
        f"position accounts for {loudest['position_share']:.0%} of the variance of log scales (threshold "
        f"{limits.sink_position:.0%}), {loudest['loud_share']:.1%} of the tokens are loud.",
        "Nothing: trained language models park attention there, and need it. It is made by what comes directly before "
        f"{said(first)}. Give such tokens a scale of their own when quantizing, and leave them out of averages over tokens.",
    )


def overflowing_squares(layers: pd.DataFrame) -> pd.Series:
    """Which norms, in the order of the table of layers, take squares of inputs that half precision does not hold."""
    of_tokens = (layers["kind"] == "rms_norm") & (layers["n_tokens"] > 0)
    return of_tokens & (layers["largest_input"] > BEFORE_SQUARES)


def squares(evidence: Evidence) -> Iterator[Finding]:
    """Inputs whose squares half precision does not hold, in norms that take squares of what they are given."""
    large = evidence.layers[overflowing_squares(evidence.layers)]
    if large.empty:
        return
    half = large[large["input_dtype"] == "float16"]
    erased = half[half["zero_rows"] > 0]
    which = erased if len(erased) else large
    worst = which.iloc[int(which["largest_input"].argmax())]
    yield Finding(
        "critical" if len(erased) else "info",
        str(worst["layer"]),
        "Squares of the inputs overflow in float16, and the tokens with them are erased."
        if len(erased)
        else "Squares of the inputs do not fit into float16: a norm that computes in it would erase these tokens.",
        f"the largest input is {number(worst['largest_input'])}; its square is infinite in float16 from "
        f"{BEFORE_SQUARES:g} on, and 1/√∞ is 0, without NaN. That holds in {count(len(large), 'norm')}.",
        "Compute norms in float32, as torch's and those of transformers do (`x.float()` before the square), or run the "
        "model in bfloat16, which rounds its results to 2 or 3 digits.",
    )


def overwritten(evidence: Evidence) -> Iterator[Finding]:
    """Blocks that add so much that what was in the stream is lost."""
    layers = evidence.layers
    ends_in_norm = layers["norm_role"].shift().isin(ENDS_OF_BRANCHES)
    tops = ends_in_norm.map({False: 1.0, True: WITH_A_NORM}) * evidence.limits.overwritten
    beyond = layers["branch"] > tops
    for (_, row), top in zip(layers[beyond].iterrows(), tops[beyond], strict=True):
        yield Finding(
            "warning",
            row["layer"],
            "What was added to the residual stream before this norm overwrites the stream.",
            f"the stream moved by {number(row['branch'])} times its size since the previous norm on it (threshold {top:g}; "
            "trained networks reach 20).",
            "In training: warm the learning rate up, clip gradients, and scale the last layer of each branch down at "
            "initialization. In a trained model: go back to a checkpoint from before its activations grew.",
            call=row["call"],
        )


def saturated(evidence: Evidence) -> Iterator[Finding]:
    """Attention so sharp that no gradient gets past it: by its logits, or in most layers by what multiplies them."""
    limits = evidence.limits
    known = evidence.layers[
        evidence.layers["largest_logit"].notna() & (evidence.layers["norm_role"] != QUERY)
    ]
    if known.empty:
        return
    sharp = known["attention_evenness"] < limits.uneven_attention
    scaled = (known["attention_factor"] > limits.attention_factor) & (
        known["attention_evenness"] < SHARP_IF_SCALED
    )
    found = known[sharp & (known["largest_logit"] > limits.largest_logit)]
    by_scale = 2 * scaled.sum() > len(known)
    if by_scale:
        found = known[scaled]
    if found.empty:
        return
    worst = found.iloc[int(found["attention_evenness"].argmin())]
    factor = worst["attention_factor"]
    yield Finding(
        "warning",
        str(worst["layer"]),
        f"Attention saturates: its logits are multiplied by {number(factor)}/√d, where 1/√d is usual."
        if by_scale
        else "Attention saturates: queries look at next to nothing but one key, and hardly any gradient gets past that.",
        f"the entropy of attention is {worst['attention_evenness']:.0%} of the largest possible (trained networks have 28% "
        f"and more), its logits reach {number(worst['largest_logit'])} (threshold {limits.largest_logit:g}); that holds in "
        f"{len(found)} of {count(len(known), 'attention layer')}.",
        "Divide the products of queries and keys by √d once: the argument `scale` of scaled_dot_product_attention. Trained "
        "weights go with the scale that they were trained with."
        if by_scale
        else "In training: lower the learning rate, warm it up and clip gradients, or put norms on queries and keys "
        "(QK-norm). In a trained model: go back to a checkpoint from before its logits grew.",
        call=int(worst["call"]),
    )


def may_saturate(evidence: Evidence) -> Iterator[Finding]:
    """Weights that allow logits far beyond those of trained networks, where no attention was seen; once for the network."""
    layers, top = evidence.layers, evidence.limits.qk_bound
    if layers["largest_logit"].notna().any():
        return
    found = layers[layers["qk_bound"] > top]
    if found.empty:
        return
    worst = found.iloc[int(found["qk_bound"].argmax())]
    yield Finding(
        "info",
        str(worst["layer"]),
        f"By the weights, logits of attention may reach {number(worst['qk_bound'])}.",
        f"that is what the largest singular value of queries and keys allows; it is above {top:g} at {len(found)} of "
        f"{count(int(layers['qk_bound'].notna().sum()), 'norm')} before attention.",
        "Record a few batches: `largest_logit` and `attention_evenness` say whether attention does saturate.",
    )


def saturated_or_may(evidence: Evidence) -> Iterator[Finding]:
    """What attention does, or what its weights allow."""
    yield from saturated(evidence)
    yield from may_saturate(evidence)


def unchanged(evidence: Evidence) -> Iterator[Finding]:
    """Blocks that add nothing."""
    bottom, known = evidence.limits.unchanged, evidence.layers[evidence.layers["branch"].notna()]
    if len(known) > 1 and (known["branch"] < bottom).all():
        yield _identity(known, bottom)
        return
    at_start = " (as intended, if branches start at 0)" if evidence.is_new else ""
    for (before, its_channels), (row, _) in pairwise(evidence.sites):
        if not row["branch"] < bottom:
            continue
        learned_nothing = its_channels["gamma"].notna().any() and affine_at_start(its_channels)
        if not evidence.is_new and before["norm_role"] in IN_BRANCHES and learned_nothing:
            yield _never_began(row, before)
            continue
        yield Finding(
            "info",
            row["layer"],
            f"Nothing was added to the residual stream before this norm{at_start}.",
            f"the stream moved by {row['branch']:.2g} of its size since the previous norm on it (threshold {bottom:g}).",
            "Nothing, in a new network whose branches start at 0. In a trained one look at the gate or the last weights of "
            "the branch: at exactly 0 on both sides of a product no gradient arrives.",
            call=row["call"],
        )


def _never_began(row: pd.Series, before: pd.Series) -> Finding:
    """Of a block that adds nothing, and whose own norm is as it began, in a network that was trained."""
    return Finding(
        "warning",
        row["layer"],
        "Nothing was added to the residual stream before this norm, and the block never learned.",
        f"the stream moved by {row['branch']:.2g} of its size; γ and β of {said(before['layer'])}, which this block begins "
        "with, have their initial values, while other norms were trained.",
        "Look at the gate and at the last weights of this block: where both begin at 0, neither gets a gradient. Start one "
        "of them with random values, and train on. A block that was only just added needs nothing but training.",
        call=row["call"],
    )


def _identity(known: pd.DataFrame, bottom: float) -> Finding:
    """Of a network in which no block adds anything, as one with gates begins."""
    first = known.iloc[0]
    return Finding(
        "info",
        first["layer"],
        "No block adds anything to the residual stream yet: the network is the identity, as where all gates begin at 0.",
        f"before each of {count(len(known), 'norm')} the stream moved by at most {known['branch'].max():.2g} of its size "
        f"(threshold {bottom:g}).",
        "Nothing, in a new network: train it, and record it again. In a trained one look for gates that were not loaded, "
        "among the missing keys of load_state_dict.",
        call=first["call"],
    )


def collapsed(evidence: Evidence) -> Iterator[Finding]:
    """Tokens that all point the same way, in a trained network."""
    known = evidence.layers[evidence.layers["common"].notna()]
    top = evidence.limits.common_direction
    alike = known[known["common"] > top]
    if known.empty or 2 * len(alike) < len(known) or evidence.is_new:
        return
    because = (
        f"the mean cosine between tokens is above {top:g} in {len(alike)} of {count(len(known), 'norm')}, at most "
        f"{alike['common'].max():.2f}"
    )
    first = known.iloc[0]
    if first["common"] > top:
        yield _one_vector_in_all(first, because)
        return
    # what is learned first is how often each token is, which is one vector for all of them
    gamma = evidence.channels["gamma"]
    has_begun = bool(gamma.notna().any()) and not beyond_first_steps(evidence.channels)
    yield Finding(
        "info" if has_begun else "warning",
        str(alike.iloc[0]["layer"]),
        "Tokens are all alike: the norms see one direction and little else.",
        f"{because}{'; γ and β are still near their initial values' if has_begun else ''}.",
        "Look at whether training diverged or never began: this is how stacks of attention without working branches look. "
        "In a trained network look at the first norm in the list, and at the block before it.",
    )


def _one_vector_in_all(first: pd.Series, because: str) -> Finding:
    """Of tokens that are alike before any block could make them so."""
    return Finding(
        "warning",
        str(first["layer"]),
        "One vector is in every token, and outweighs what tells tokens apart.",
        f"{because}; at the first norm, before any block, it is {first['common']:.2f}.",
        "Look at what is added to the embeddings: a bias, a position embedding that is the same everywhere, or inputs whose "
        "mean was not taken off. Norms divide by the scale of that vector, and what differs between tokens shrinks.",
        call=int(first["call"]),
    )


def bare_head(evidence: Evidence) -> Iterator[Finding]:
    """A head that reads the stream as it is."""
    for _, row in evidence.layers[evidence.layers["bare_head"] == 1].iterrows():
        yield Finding(
            "info",
            row["layer"],
            "The head of the model reads the residual stream without a norm.",
            "the last weights take a sum; this norm is the last on its way.",
            "Add a norm before the head and train on: the scale of the stream, which grows with depth, sets the size of the "
            "logits. Leave it if the network is meant to be so.",
            call=row["call"],
        )


RULES = (
    Rule(
        "sink-token",
        "Are a few tokens far louder than the others?",
        "Sun et al. 2024, arXiv:2402.17762; Xiao et al. 2023, arXiv:2309.17453",
        f"no token beyond {DEFAULT.sink_scale:g} median scales, or not by its position",
        sink_tokens,
        by_hand="it is a fact about the network, and nothing is to be changed",
    ),
    Rule(
        "square-overflows",
        "Do squares of the inputs fit into half precision?",
        "https://github.com/huggingface/transformers/issues/10956, https://github.com/nntrainer/nntrainer/issues/3935",
        f"inputs up to {BEFORE_SQUARES:g} in RMS norms",
        squares,
        by_hand=CODE,
    ),
    Rule(
        "first-block-overwrites",
        "Does every block keep what was in the residual stream?",
        "Takase et al. 2023, arXiv:2312.16903",
        f"a stream that moves by at most {DEFAULT.overwritten:g} times its size",
        overwritten,
        by_hand=TRAINING,
    ),
    Rule(
        "attention-saturates",
        "Does attention look at more than one key?",
        "Wortsman et al. 2023, arXiv:2309.14322; Zhai et al. 2023, arXiv:2303.06296",
        f"logits up to {DEFAULT.largest_logit:g}, or an entropy of at least {DEFAULT.uneven_attention:.0%} of the largest "
        "possible; logits divided by √d; weights that allow logits up to {DEFAULT.qk_bound:g}",
        saturated_or_may,
        by_hand=TRAINING,
    ),
    Rule(
        "block-off",
        "Does every block add to the residual stream?",
        "Peebles & Xie 2022, arXiv:2212.09748; Kim et al. 2025, arXiv:2502.02732",
        f"a stream that moves by at least {DEFAULT.unchanged:g} of its size",
        unchanged,
        by_hand=TRAINING,
    ),
    Rule(
        "tokens-alike",
        "Do tokens differ?",
        "Dong, Cordonnier & Loukas 2021, arXiv:2103.03404",
        f"a mean cosine of at most {DEFAULT.common_direction:g} in most norms, or a new network",
        collapsed,
        by_hand=TRAINING,
    ),
    Rule(
        "no-final-norm",
        "Does a norm stand before the head?",
        "Xiong et al. 2020, arXiv:2002.04745",
        "a norm between the last sum and the last weights",
        bare_head,
        by_hand=CODE,
    ),
)
