"""Rules about files whose running statistics are not those of the weights before them: exchanged, reordered, or folded."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.recording.names import said
from bnprobe.recording.terms import MISFIT
from bnprobe.rules.by_hand import ANOTHER_FILE
from bnprobe.rules.remedies import path
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.swapped import AFFINE, STATISTICS, swapped_norms
from bnprobe.rules.wording import count, first_few

FEWEST_NORMS = 6
"""Norms with a known fit, without which a network does not show how well its means follow."""

FEWEST_OTHERS, WELL = 2, 0.95
"""Fewer show it where all others, so many at least, follow so well; one that follows by less than `FITS` stands out then."""

FEWEST_OF_ALL, NONE_WELL = 3, 0.8
"""Norms that say together that none of them follows the weights before it, where the best one follows by less than this: in
small networks with sin, tanh or sign in place of ReLU the best one has .9 and more."""

FITS = 0.55
"""Correlation that most norms must have: what a file does not show of its blocks makes it less in all of them."""

MOST = 0.8
"""Share of the norms that must have it."""

FOLDED = 0.9
"""Share of the norms that must fit better unfolded: 98% and more where they were folded and kept, 17% at most in healthy
networks."""

BETTER = 0.01
"""By how much, typically, in correlation: the least was 0.019, at a MobileNetV2."""

MOST_NAMED = 4
"""Norms spelt out in a sentence."""


def misfits(evidence: Evidence) -> Iterator[Finding]:
    """Norms whose running means do not follow the weights before them, while those of all others do."""
    known = known_fits(evidence)
    others, in_layouts = known[known["means_fit"] >= FITS], known[known["fits_layout"] != ""]
    if len(in_layouts):
        yield from _in_other_layouts(in_layouts, len(known))
        return
    exchanged_vectors = any(swapped_norms(evidence, AFFINE)) or any(swapped_norms(evidence, STATISTICS))
    if _none_follows(known) and not exchanged_vectors:
        yield _all_at_once(known)
        return
    well = len(others) >= FEWEST_OTHERS and bool((others["means_fit"] >= WELL).all())
    enough = len(known) >= FEWEST_NORMS and len(others) >= MOST * len(known)
    if not (enough or well):
        return
    limit = FITS if well else MISFIT
    found = known[known["means_fit"] < limit]
    of_others = f"{others['means_fit'].min():.2f} and more at {count(len(others), 'other norm')}"
    exchanged = found[found["fits_like"] != ""]
    if len(exchanged):
        facts = [
            f"the weights before {said(row['layer'])} fit those of {said(row['fits_like'])}, not its own "
            f"(correlation {row['means_fit']:.2f})"
            for _, row in exchanged.iterrows()
        ]
        yield Finding(
            "critical",
            str(exchanged.iloc[0]["layer"]) if len(exchanged) == 1 else "",
            f"{count(len(exchanged), 'norm')} {'holds' if len(exchanged) == 1 else 'hold'} the running statistics of other "
            "norms.",
            f"by their running means over channels, {'; '.join(facts[:MOST_NAMED])}"
            f"{f'; and {len(facts) - MOST_NAMED} more' * (len(facts) > MOST_NAMED)}. It is {of_others}.",
            "Compare the names in the converter: a table that exchanges two names does this, and shapes agree, so that "
            "nothing fails on loading. Comparing with the original file shows which vectors moved.",
        )
    named = {*exchanged["layer"], *exchanged["fits_like"]}
    for _, row in found[~found["layer"].isin(named) & (found["directly_fed"] == 1)].iterrows():
        yield Finding(
            "warning",
            row["layer"],
            "The running statistics of this norm are not those of the weights before it.",
            f"its running means correlate by {row['means_fit']:.2f} over channels with what the previous norm and the "
            f"weights between imply (threshold {limit:g}); {of_others}.",
            "Look for channels that were put into another order (pruning, a converter) in the norm alone or the weights "
            "alone, and for weights that were initialized again or replaced. If both are meant to be so, re-estimate the "
            "statistics with bnprobe recalibrate.",
        )


def _in_other_layouts(found: pd.DataFrame, n_known: int) -> Iterator[Finding]:
    """Norms whose means follow the weights before them once these are put into another layout."""
    for layout, rows in found.groupby("fits_layout"):
        does, undo = _LAYOUTS[str(layout)]
        producers = [path(str(feeder)) for feeder in rows["feeder"]]
        yield Finding(
            "critical",
            str(rows.iloc[0]["layer"]) if len(rows) == 1 else "",
            f"The weights before {count(len(rows), 'norm')} {does}.",
            f"put right, they imply the running means of {first_few([said(layer) for layer in rows['layer']])} in their "
            f"pattern over channels; as they are stored the correlation is {rows['means_fit'].median():.2f} "
            f"({len(rows)} of {count(n_known, 'norm')} with a known fit).",
            "Correct the converter for every layer of this kind: shapes agree, so that nothing fails on loading. In the "
            f"model: `for m in map(model.get_submodule, {producers}): w = m.weight.data; m.weight.data = {undo}`.",
        )


_LAYOUTS = {
    "transposed": (
        "are transposed: outputs and inputs are exchanged",
        "w.transpose(0, 1).contiguous()",
    ),
    "reshaped": (
        "were reshaped where they had to be transposed",
        "w.reshape(*w.shape[2:], w.shape[1], w.shape[0]).movedim((-1, -2), (0, 1)).contiguous()",
    ),
}
"""What became of weights, and how it is undone: numbers in the order (positions, inputs, outputs) go to torch's."""


def _none_follows(known: pd.DataFrame) -> bool:
    """Whether the means of no norm follow the weights before it, of those whose weights take the previous norm's output;
    neither negated, nor with the norm taken out of the weights, of which other rules speak."""
    direct = known[known["directly_fed"] == 1]
    fits = direct["means_fit"]
    if len(fits) < FEWEST_OF_ALL or not fits.median() < MISFIT:
        return False
    ways = direct[["means_fit", "means_fit_unfolded", "means_fit_negated"]]
    return not bool((ways >= NONE_WELL).any(axis=None))


def _all_at_once(known: pd.DataFrame) -> Finding:
    fits = known.loc[known["directly_fed"] == 1, "means_fit"]
    return Finding(
        "warning",
        "",
        "The running statistics of the norms are not those of the weights before them.",
        f"running means correlate by {fits.median():.2f} over channels with what the previous norm and the weights between "
        f"imply, typically of {count(len(fits), 'norm')}, and by {fits.max():.2f} at best (threshold {NONE_WELL:g}); in "
        "networks as they were trained it is 0.9 and more somewhere.",
        "Look for a converter that puts channels or kernels into another order in the norms alone or the weights alone, and "
        "for weights that were initialized again. Do not re-estimate the statistics before that is known: γ and β are in "
        "the same order.",
    )


def kept(evidence: Evidence) -> Iterator[Finding]:
    """Norms that are in the weights before them already."""
    known = known_fits(evidence)
    better = known["means_fit_unfolded"] - known["means_fit"]
    known, better = known[better.notna()], better.dropna()
    if len(known) < FEWEST_NORMS or (better > 0).mean() < FOLDED or better.median() < BETTER:
        return
    n = int((better > 0).sum())
    yield Finding(
        "critical",
        "",
        "The norms were folded into the weights before them and are still there: they act twice.",
        f"at {n} of {count(len(known), 'norm')} the running means follow the weights better once γ / √(running_var + eps) "
        f"is taken out of them (typical correlation over channels {known['means_fit_unfolded'].median():.3f}, as they are "
        f"{known['means_fit'].median():.3f}).",
        "Load the weights from before folding, or take the norms out of the model: γ = 1, β = 0, running_mean = 0 and "
        "running_var = 1 in every one.",
    )


def known_fits(evidence: Evidence) -> pd.DataFrame:
    """The norms of a file whose means are known to fit the weights before them, well or badly."""
    rows = evidence.layers
    return rows[(rows["call"] == 0) & rows["means_fit"].notna()]


RULES = (
    Rule(
        "statistics-misplaced",
        "Are the running statistics of a file those of the weights before them?",
        "Nagel et al. 2019, arXiv:1906.04721, section 4.2",
        f"a correlation over channels of running and implied means of at least {MISFIT:g}, also where weights would fit "
        f"transposed or reshaped, or one below {FITS:g} in a fifth of the norms",
        misfits,
        by_hand=ANOTHER_FILE,
    ),
    Rule(
        "folded-and-kept",
        "Are norms that were folded into weights gone from the file?",
        "Jacob et al. 2018, arXiv:1712.05877, section 3.2",
        "running means that follow the weights as they are, in a tenth of the norms",
        kept,
        by_hand=ANOTHER_FILE,
    ),
)
