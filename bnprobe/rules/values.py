"""Rules about the values that were seen: not finite, too few, or without effect."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import said
from bnprobe.rules.edits import CleanInputs, InFloat32, Reinitialize, remedy
from bnprobe.rules.remedies import REINITIALIZE, made_new, made_new_edit
from bnprobe.rules.rule import Evidence, Finding, Rule, indices, share_severity, unsound
from bnprobe.rules.swapped import scaled_by_beta
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count, first_few, out_of, some

OVER_FEATURES = ("layer_norm", "rms_norm")
"""Kinds that normalize over the last dimension; their outputs mostly go into linear layers, whatever the size of γ."""

VECTORS = (("gamma", "γ"), ("beta", "β"))
"""Columns and their letters."""


WHICH_SAMPLES = (
    "print([(i, x.isfinite().flatten(1).all(1).logical_not().nonzero().flatten().tolist()) "
    "for i, (x, y) in enumerate(batches) if not x.isfinite().all()])"
)
"""Code that names the batches that were recorded and have values that are not finite, each with its samples."""


def not_finite(evidence: Evidence) -> Iterator[Finding]:
    """NaN or infinite inputs, γ or β, in the order in which the data reach them."""
    table = evidence.channels
    learned = [
        finding
        for row, channels in evidence.sites_with(unsound(table, "gamma", "beta"))
        for finding in _learned(row, channels)
    ]
    order = {
        site: i for i, site in enumerate(zip(evidence.layers["layer"], evidence.layers["call"], strict=True))
    }
    # what follows a norm whose outputs are never finite gets that from it
    source = min((order[one.layer, one.call] for one in learned), default=len(order))
    sites = list(evidence.sites_with(table["n_nonfinite"] > 0))
    entered = _entered([site for site in sites if order[site[0]["layer"], site[0]["call"]] <= source])
    yield from sorted([*learned, *entered], key=lambda one: order[one.layer, one.call])


def _entered(sites: list[tuple[pd.Series, pd.DataFrame]]) -> Iterator[Finding]:
    """Where values that are not finite enter first; the norms that get them from there belong to that."""
    while sites:
        (row, channels), *later = sites
        passed_on = [one for one, _ in later if not one["first_nonfinite"] < row["first_nonfinite"]]
        sites = [site for site in later if site[0]["first_nonfinite"] < row["first_nonfinite"]]
        bad = channels[channels["n_nonfinite"] > 0]
        yield Finding(
            "critical",
            row["layer"],
            "NaN or infinite values enter this norm.",
            f"{count(bad['n_nonfinite'].sum(), 'value')} in {out_of(bad, channels)}, left out of all other numbers"
            f"{_since(row)}.{_passed_on(passed_on)}",
            f"Batches and samples whose input is not finite: `{WHICH_SAMPLES}`. Where there are some, find what makes "
            "them, or clean them: `x = torch.nan_to_num(x, 0.0, 0.0, 0.0)`. Where there are none, it arises inside the "
            "network, before this norm; if half precision overflowed, run that part in "
            f"float32: `model.float()`.{_of_weights(row, channels)}",
            indices(bad),
            row["call"],
            remedy(CleanInputs(), InFloat32("")),
        )


def _since(row: pd.Series) -> str:
    """In which call that began; nothing where it is not known, as on a GPU."""
    first = row["first_nonfinite"]
    return f", first in call {int(first) + 1} of {int(row['n_calls'])}" if first >= 0 else ""


def _passed_on(later: list[pd.Series]) -> str:
    """The norms that follow, which get the same values or what became of them."""
    if not later:
        return ""
    named = first_few([said(one["layer"], one["call"]) for one in later])
    return f" {count(len(later), 'following norm')} {'gets' if len(later) == 1 else 'get'} such values as well: {named}."


def _of_weights(row: pd.Series, channels: pd.DataFrame) -> str:
    """That some channels are never finite while others are: one bad sample spoils all of them, one filter its own."""
    none = (channels["n_nonfinite"] > 0) & (channels["n_values"] == 0)
    if not row["feeder"] or not none.any() or (channels["n_nonfinite"] > 0).all():
        return ""
    return (
        f" In {out_of(channels[none], channels)} no value is finite, while others are clean: check the weights of "
        f"{said(row['feeder'])} for these channels, and load a checkpoint in which they are finite."
    )


def _learned(row: pd.Series, channels: pd.DataFrame) -> Iterator[Finding]:
    """γ or β that make outputs NaN or infinite, whatever the input."""
    bad = {name: _not_finite_in(channels[column], name in row["stores"]) for column, name in VECTORS}
    found = channels[np.logical_or.reduce(list(bad.values()))]
    if len(found) and row["call"] == 0:
        which = " and ".join(name for name, values in bad.items() if values.any())
        yield Finding(
            "critical",
            row["layer"],
            f"{which} of this layer {'are' if 'and' in which else 'is'} NaN or infinite, and so are its outputs, whatever "
            "the input.",
            f"not finite in {out_of(found, channels)}.",
            "One step with a non-finite gradient causes this: load a checkpoint from before it, and skip such steps "
            "(torch.amp.GradScaler) or clip gradients. To continue from here, reinitialize these channels, which changes "
            f"results until they are trained again: {made_new(row, found, channels)}.",
            indices(found),
            row["call"],
            remedy(made_new_edit(row, found, channels)),
        )


def _not_finite_in(vector: pd.Series, there: bool) -> pd.Series:
    """Infinite, or NaN: in all channels of one that is not there, too."""
    return ~(vector.abs() < np.inf) & there


def constant(evidence: Evidence) -> Iterator[Finding]:
    """Channels whose learned scale is next to nothing."""
    limit, exchanged = evidence.limits.constant_gamma, scaled_by_beta(evidence)
    for row, channels in evidence.sites_with(evidence.channels["gamma"].abs() < limit):
        if row["layer"] in exchanged:
            continue
        flat = channels[["channel", "gamma", "filter_norm"]][channels["gamma"].abs() < limit]
        whole = len(flat) == len(channels)
        # of a whole branch the rule about branches speaks; of a norm over features the next weights make up for a small γ
        if len(flat) and not (row["skip"] and whole) and (whole or row["kind"] not in OVER_FEATURES):
            yield Finding(
                share_severity(_not_decayed(flat, channels, evidence), channels, evidence.limits),
                row["layer"],
                f"{some(flat, channels)} have γ near 0: their outputs hardly vary about β.",
                f"|γ| < {limit:g} in {out_of(flat, channels)}{_beside(flat, channels)}.",
                (
                    "Look for what drove γ to 0: weight decay on it, too high a learning rate, or 0 as its initial value. "
                    if whole
                    else "Such channels can be removed if β's effect is added to the bias of the next layer. Outputs "
                    "change slightly: γ is not exactly 0, and borders may be padded with zeros: measure before and after. "
                    + _decayed(channels)
                )
                + f"{REINITIALIZE}{made_new(row, flat, channels)}.",
                indices(flat),
                row["call"],
                remedy(made_new_edit(row, flat, channels)),
            )


DECAYED = 0.1
"""Typical |γ| of a layer below which most of its γ have shrunk from their initial 1."""


def _decayed(channels: pd.DataFrame) -> str:
    """What keeps γ from shrinking further, where most of the layer's have; else nothing."""
    if not channels["gamma"].abs().median() < DECAYED:
        return ""
    return "Most γ of this layer are small: if weight decay acts on them, leave norms out of it before training on. "


def _beside(flat: pd.DataFrame, channels: pd.DataFrame) -> str:
    """The largest |γ| among them beside that of the others; nothing where there are none."""
    others = channels["gamma"].drop(flat.index).abs()
    if others.empty:
        return ""
    return f" (at most {flat['gamma'].abs().max():.2g}; the others have a median of {others.median():.2g})"


def _not_decayed(flat: pd.DataFrame, channels: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """Those whose filters have not decayed as well, which another rule reports."""
    short = evidence.limits.decayed_filter * channels["filter_norm"].median()
    return flat[~(flat["filter_norm"] < short)]


def few_images(evidence: Evidence) -> Iterator[Finding]:
    """Too few samples for the standard errors."""
    layers = evidence.layers
    n = int(layers["n_images"].max()) if len(layers) else 0
    few = evidence.limits.few_images
    enough_tokens = len(layers) and layers["n_tokens"].max() >= evidence.limits.few_tokens
    if 0 < n < few and not enough_tokens:
        yield Finding(
            "info",
            "",
            f"Only {count(n, 'sample')} {'was' if n == 1 else 'were'} recorded: all numbers are rough, and small shifts "
            "cannot be distinguished from chance.",
            f"fewer than {few:g} samples.",
            f"Record at least {few:g} samples; a few hundred make the standard errors small.",
        )


RULES = (
    Rule(
        "values-not-finite",
        "Are all inputs, γ and β finite?",
        "https://github.com/pytorch/pytorch/issues/88474, https://github.com/pytorch/pytorch/issues/96798",
        "no NaN and no infinity",
        not_finite,
        edits=(CleanInputs, InFloat32, Reinitialize),
    ),
    Rule(
        "channels-constant",
        "Does every channel depend on its input?",
        "Frankle, Schwab & Morcos 2020, arXiv:2003.00152; Ye et al. 2018, arXiv:1802.00124",
        f"every |γ| of at least {DEFAULT.constant_gamma:g}",
        constant,
        edits=(Reinitialize,),
    ),
    Rule(
        "few-images",
        "Were enough samples recorded?",
        "A standard deviation from n values has a relative error of about 1/√(2n): 13% at 30",
        f"{DEFAULT.few_images:g} samples or more",
        few_images,
        by_hand="it takes more samples",
        of_calls=True,
    ),
)
