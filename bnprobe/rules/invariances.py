"""A rule about what must not move an output: of a model that predicts next tokens, what comes later."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.rules.by_hand import CODE
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count, number


def future_leaks(evidence: Evidence) -> Iterator[Finding]:
    """Outputs of earlier tokens that change with the last one, in a model that is meant not to see it."""
    for _, row in evidence.invariances.iterrows():
        if row["probe"] != "causality" or row["holds"] is not False or not row["meant"]:
            continue
        culprit = row["culprit"]
        yield Finding(
            "critical",
            row["first_norm"],
            f"{culprit} lets earlier tokens see later ones: their outputs change with the last token."
            if culprit
            else "Earlier tokens see later ones: their outputs change with the last token.",
            f"another last token moves outputs of earlier ones by up to {number(row['largest_change'])} (outputs reach "
            f"{number(row['largest_output'])}; {count(row['n'], 'sequence')}); {_where(row)}.",
            f"{_remedy(row)} Train again: this loss was reached by looking at the answer, which is not there when text is "
            "generated. If the model is to see both sides, pass causal=False.",
        )


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
    if "attention" in kind or "attn" in kind:
        return "Give the attention a causal mask: is_causal=True in scaled_dot_product_attention."
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
)
