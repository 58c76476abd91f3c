"""Rules about what must not move an output: what comes later, padding, and the other samples of a batch."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd

from bnprobe.rules.by_hand import CODE
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count, number

CALLED_ATTENTION = re.compile(r"(\w+_)?(attn|attention)\d*")
"""Names of modules that are attention: self_attn, cross_attention; attn_norm is none."""


def future_leaks(evidence: Evidence) -> Iterator[Finding]:
    """Outputs of earlier tokens that change with the last one, in a model that is meant not to see it."""
    for row in _moved(evidence, "causality"):
        culprit = row["culprit"]
        yield Finding(
            "critical",
            row["first_norm"],
            f"{culprit} lets earlier tokens see later ones: their outputs change with the last token."
            if culprit
            else "Earlier tokens see later ones: their outputs change with the last token.",
            f"another last token moves outputs of earlier ones by up to {_numbers(row, 'sequence')}; {_where(row)}.",
            f"{_remedy(row)} Train again: this loss was reached by looking at the answer, which is not there when text is "
            "generated. If the model is to see both sides, pass causal=False.",
        )


def padding_moves(evidence: Evidence) -> Iterator[Finding]:
    """Outputs of tokens that change with padding, although causality hides it.

    Not where earlier tokens see later ones, by mistake or on purpose: then they see padding, too.
    """
    rows = evidence.invariances.iterrows()
    if any(row["probe"] == "causality" and row["holds"] is False for _, row in rows):
        return
    for row in _moved(evidence, "padding"):
        yield Finding(
            "warning",
            row["first_norm"],
            f"{row['culprit']} lets padding change the outputs of tokens."
            if row["culprit"]
            else "Padding changes the outputs of tokens.",
            f"padding moves outputs of tokens by up to {_numbers(row, 'sequence')}; {_where(row)}.",
            f"{_against_padding(row)} Until then, run sequences of one length together, and compare the accuracy.",
        )


def _against_padding(row: pd.Series) -> str:
    kind = str(row["culprit_class"]).lower()
    if "norm" in kind:
        return "Take mean and std of the positions that count, or normalize each token by its own channels (LayerNorm)."
    if _is_attention(row):
        return "Give the attention the mask of what is padding."
    return "Multiply by the mask before anything there mixes positions, as convolutions and pooling do."


def _is_attention(row: pd.Series) -> bool:
    """By the class of the module, or by what the model calls it: classes may be called GQA."""
    kind, name = str(row["culprit_class"]).lower(), str(row["culprit"]).rpartition(".")[2]
    return "attention" in kind or "attn" in kind or bool(CALLED_ATTENTION.fullmatch(name))


def samples_mix(evidence: Evidence) -> Iterator[Finding]:
    """Outputs of a sample that change with the others of its batch."""
    for row in _moved(evidence, "batch"):
        yield Finding(
            "warning",
            row["first_norm"],
            f"{row['culprit']} makes the outputs of a sample depend on the rest of its batch."
            if row["culprit"]
            else "The outputs of a sample depend on the rest of its batch.",
            f"other samples beside it move outputs of a sample by up to {_numbers(row, 'sample')}; {_where(row)}.",
            f"{_against_mixing(row)} If it is meant, as in train mode, results with other batch sizes or another order "
            "cannot be compared.",
        )


def _against_mixing(row: pd.Series) -> str:
    if "norm" in str(row["culprit_class"]).lower():
        if row["culprit_stores"]:
            return "For inference call `model.eval()`, so that the norm uses its running statistics."
        return (
            "Eval mode does not change that: this norm has no running statistics, or does not use them. Build it with "
            "track_running_stats=True, or as a norm of single samples such as torch.nn.GroupNorm, and retrain."
        )
    return "Look in its forward for means, maxima, sorting or matrices over dimension 0."


def _moved(evidence: Evidence, probe: str) -> Iterator[pd.Series]:
    """The rows of a probe that does not hold although it is meant to."""
    for _, row in evidence.invariances.iterrows():
        if row["probe"] == probe and row["holds"] is False and row["meant"]:
            yield row


def _numbers(row: pd.Series, unit: str) -> str:
    return f"{number(row['largest_change'])} (outputs reach {number(row['largest_output'])}; {count(row['n'], unit)})"


def _where(row: pd.Series) -> str:
    norm = f"the first norm whose input changes is {row['first_norm']}" if row["first_norm"] else ""
    if not row["culprit"]:
        return norm or "no module was found where they part"
    facts = f"{row['culprit']} ({row['culprit_class']}) is given the same at earlier tokens and gives something else"
    return f"{facts}; {norm}" if norm else facts


def _remedy(row: pd.Series) -> str:
    kind = str(row["culprit_class"]).lower()
    if "norm" in kind:
        return "Normalize each token by its own channels alone (LayerNorm, RMSNorm)."
    if _is_attention(row):
        return (
            "Give the attention a causal mask, is_causal=True in scaled_dot_product_attention; in one of your own, take the "
            "softmax over keys (dim=-1)."
        )
    if "conv" in kind:
        return "Pad the convolution on the left only."
    return "Let nothing there mix positions without a causal mask."


RULES = (
    Rule(
        "future-leaks",
        "Do outputs of a model that predicts next tokens depend on earlier tokens alone?",
        "Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3",
        "earlier outputs that stay as they are when the last token changes, or a model that is not meant to be causal",
        future_leaks,
        by_hand=CODE,
    ),
    Rule(
        "padding-leaks",
        "Do outputs of tokens stay as they are when padding is added?",
        "https://github.com/pytorch/audio/issues/4205",
        "outputs of tokens that stay as they are when padding is added, or that depend on later tokens, too",
        padding_moves,
        by_hand=CODE,
    ),
    Rule(
        "samples-mixed",
        "Does a sample have the same outputs alone and beside others?",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1 (inference is a function of the sample alone)",
        "outputs of a sample that stay as they are beside other samples",
        samples_mix,
        by_hand=CODE,
    ),
)
