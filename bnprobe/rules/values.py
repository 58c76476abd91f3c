"""Rules about the values that passed: not finite, too few, or without effect."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.rules.remedies import module, start_anew
from bnprobe.rules.rule import Evidence, Finding, Rule, how_many, indices, share_severity
from bnprobe.rules.thresholds import DEFAULT

VECTORS = (("gamma", "γ"), ("beta", "β"))
"""Columns and their letters."""


def not_finite(evidence: Evidence) -> Iterator[Finding]:
    """NaN or infinite inputs, γ or β."""
    for row, channels in evidence.sites:
        yield from _entered(row, channels)
        yield from _learned(row, channels)


def _entered(row: pd.Series, channels: pd.DataFrame) -> Iterator[Finding]:
    bad = channels[channels["n_nonfinite"] > 0]
    if len(bad):
        yield Finding(
            "critical",
            row["layer"],
            "Values that are NaN or infinite entered this layer.",
            f"{int(bad['n_nonfinite'].sum())} values in {len(bad)} of {len(channels)} channels; "
            "they were left out of every other number.",
            "Look at the first layer in this list. Where an image is not finite, mend it: "
            "`x = torch.nan_to_num(x, 0.0, 0.0, 0.0)`; where half precision overflowed, run that part in "
            f"float32: `model.float()`.{_of_weights(row, channels)}",
            indices(bad),
            row["call"],
        )


def _of_weights(row: pd.Series, channels: pd.DataFrame) -> str:
    """That some channels are never finite while others are: one image spoils all of them, one filter its own."""
    none = (channels["n_nonfinite"] > 0) & (channels["n_values"] == 0)
    if not row["feeder"] or not none.any() or (channels["n_nonfinite"] > 0).all():
        return ""
    return (
        f" In {int(none.sum())} of {len(channels)} channels no value is finite, and in others every one: look at the "
        f"weights of {row['feeder']} for these channels, and load a checkpoint in which they are finite."
    )


def _learned(row: pd.Series, channels: pd.DataFrame) -> Iterator[Finding]:
    """γ or β that spoil what leaves, whatever enters."""
    bad = {name: _spoilt(channels[column], name, row["learns"]) for column, name in VECTORS}
    found = channels[np.logical_or.reduce(list(bad.values()))]
    if len(found) and row["call"] == 0:
        which = " and ".join(name for name, values in bad.items() if values.any())
        yield Finding(
            "critical",
            row["layer"],
            f"{which} of this layer {'are' if 'and' in which else 'is'} NaN or infinite: so is what leaves it, whatever "
            "enters.",
            f"not finite in {len(found)} of {len(channels)} channels.",
            "One step with a gradient that was not finite does this: load a checkpoint from before it, and skip such steps "
            "(torch.amp.GradScaler) or clip gradients. To go on from here, let these channels start anew: "
            f"{start_anew(row['layer'], indices(found), len(channels))}.",
            indices(found),
            row["call"],
        )


def _spoilt(vector: pd.Series, name: str, learns: str) -> pd.Series:
    """Infinite, or NaN in a vector that is there: one that is missing is NaN in all channels."""
    there = bool(vector.notna().any()) or learns in ("both", name)
    return vector.isin((np.inf, -np.inf)) | (vector.isna() & there)


def constant(evidence: Evidence) -> Iterator[Finding]:
    """Channels whose learned scale is next to nothing."""
    limit = evidence.limits.constant_gamma
    for row, channels in evidence.sites:
        flat = channels[channels["gamma"].abs() < limit]
        whole = len(flat) == len(channels)
        # of a whole branch the rule about branches speaks
        if len(flat) and not (row["skip"] and whole):
            yield Finding(
                share_severity(_not_withered(flat, channels, evidence), channels, evidence.limits),
                row["layer"],
                f"{how_many(flat, channels)} pass on a constant: "
                + ("nothing of the input gets through." if whole else "the network learned not to use them."),
                f"{len(flat)} of {len(channels)} channels have |γ| < {limit:g}; their output is β, which may be needed.",
                (
                    "Look for what pulled γ down: weight decay on it, a learning rate too high, a start at 0. "
                    if whole
                    else "They can be removed if β is carried into the next layer's bias; measure before and after. "
                )
                + f"To let them start anew: {start_anew(row['layer'], indices(flat), len(channels))}.",
                indices(flat),
                row["call"],
            )


def _not_withered(flat: pd.DataFrame, channels: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """Those whose filters have not decayed besides, of which another rule tells."""
    short = evidence.limits.decayed_filter * channels["filter_norm"].median()
    return flat[~(flat["filter_norm"] < short)]


def few_images(evidence: Evidence) -> Iterator[Finding]:
    """Too few samples for the standard errors."""
    layers = evidence.layers
    n = int(layers["n_images"].max()) if len(layers) else 0
    few = evidence.limits.few_images
    if 0 < n < few:
        yield Finding(
            "info",
            "",
            f"Only {n} image{'s were' if n > 1 else ' was'} seen: every number is rough, and no shift can be told for sure.",
            f"fewer than {few:g} images.",
            f"Record at least {few:g} images; a few hundred make the standard errors small.",
        )


def beyond_the_formula(evidence: Evidence) -> Iterator[Finding]:
    """Layers that do something besides normalizing."""
    for row, _ in evidence.sites:
        if row["output"] == "read" and row["mismatch"] > evidence.limits.formula_mismatch:
            yield Finding(
                "info",
                row["layer"],
                f"This {row['class_name']} does more than a {row['kind'].replace('_', ' ')}: its output was read as it is.",
                "the output could not be compared with the formula."
                if row["mismatch"] == float("inf")
                else f"output and formula differ by {row['mismatch']:.2g} of the largest output at the first call.",
                "A fused activation is the usual reason. If the layer is your own, describe it with bnprobe.register_norm.",
                call=row["call"],
            )


def unread(evidence: Evidence) -> Iterator[Finding]:
    """Norm layers that were never called, and modules that look like one but are not understood."""
    for _, row in evidence.unread.iterrows():
        if row["why"] == "never called":
            yield _never_called(str(row["layer"]), _functions(evidence))
        elif row["why"] == "not understood":
            path = str(row["layer"]).partition(" (")[0]
            yield Finding(
                "warning",
                row["layer"],
                "This module looks like a norm by its name, but is not understood: it is in no table.",
                "its class is unknown, and its attributes do not tell what it pools over.",
                f"Teach it, here as an RMS norm over the last dimension: `bnprobe.register_norm(type({module(path)}), "
                'lambda m: bnprobe.NormLayer("rms_norm", "channels", m.scale.numel(), 1e-6, channels="last", '
                "weight=m.scale))`.",
            )


def _functions(evidence: Evidence) -> list[str]:
    """Sites of functional norms, which may have been given the vectors of any module."""
    layers = evidence.layers
    return list(layers["layer"][layers["class_name"].astype(str).str.startswith("F.")].unique())


def _never_called(layer: str, functions: list[str]) -> Finding:
    says = "This norm layer was never called"
    if functions:
        named = ", ".join(functions[:3]) + (", ..." if len(functions) > 3 else "")
        return Finding(
            "info",
            layer,
            f"{says} as a module: a functional norm may use its vectors.",
            f"no forward pass reached it through model(...), but functional norms were called: {named}.",
            "Look there whether it is given this module's vectors; do not replace the module before you know. If they "
            "are used nowhere, it can be left out.",
        )
    return Finding(
        "warning",
        layer,
        f"{says}.",
        "no forward pass reached it through model(...).",
        "Check that it is used: another norm may stand in its place. A layer whose .forward is called directly is "
        "not seen. If the network is meant without it: "
        f'`model.set_submodule("{layer}", torch.nn.Identity())`.',
    )


RULES = (
    Rule(
        "values-not-finite",
        "Are all inputs finite, and γ and β?",
        "https://github.com/pytorch/pytorch/issues/88474, https://github.com/pytorch/pytorch/issues/96798",
        "no NaN and no infinity",
        not_finite,
    ),
    Rule(
        "layer-unread",
        "Is there a norm that gave no numbers?",
        "https://github.com/pytorch/pytorch/issues/117925 (forward called directly); "
        "https://github.com/pytorch/pytorch/issues/37233 (fused modules)",
        "every norm called and understood",
        unread,
    ),
    Rule(
        "channels-constant",
        "Are there channels that the network switched off?",
        "Frankle, Schwab & Morcos 2020, arXiv:2003.00152; Ye et al. 2018, arXiv:1802.00124",
        f"every |γ| of at least {DEFAULT.constant_gamma:g}",
        constant,
    ),
    Rule(
        "few-images",
        "Were enough images seen?",
        "A standard deviation from n values has a relative error of about 1/√(2n): 13 % at 30",
        f"{DEFAULT.few_images:g} images or more",
        few_images,
    ),
    Rule(
        "more-than-a-norm",
        "Does a layer do more than its kind?",
        "Recomputed from the input at the first call; a norm with its activation inside is timm's BatchNormAct2d, 2021",
        "output and formula agree",
        beyond_the_formula,
    ),
)
