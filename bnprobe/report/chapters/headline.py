"""The headline: is something wrong, in one sentence with its number; what matters most comes first."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shape import median
from bnprobe.measures.verdict import ENOUGH
from bnprobe.recording.names import GUESSED, SAME, SHIFTED
from bnprobe.report.chapters.chapter import against, all_norms, highest, named, norms, running_sds
from bnprobe.report.chapters.findings import where_worst, worst_finding
from bnprobe.report.chapters.nothing_found import nothing_found, nothing_serious
from bnprobe.report.chapters.spine import MOST_SILENT
from bnprobe.report.chapters.working import working
from bnprobe.report.numbers import count
from bnprobe.report.page.blocks import Headline
from bnprobe.rules.causes import cause_of
from bnprobe.rules.newness import each_at_start, every
from bnprobe.rules.rule import Evidence

NOT_THE_DATA = (
    "calls-differ",
    "instance-norm-stored",
    "statistics-alike",
    "statistics-never-updated",
    "statistics-outdated",
    "statistics-scaled",
    "statistics-young",
    "vectors-swapped",
)
"""Rules whose warning says by itself why running statistics do not match the data: it is not the data."""


def headline(tables: Tables, findings: pd.DataFrame, unit: str) -> Headline:
    """What to know first: the first of these that holds.

    A critical finding; an untrained network, or one that has only begun to train; a warning that says why the running
    statistics do not match the data; that the data do not match them; that many channels do not work; that the data match,
    or do not quite; a warning; that no rule found a problem. A warning lifts the state of what stands before it, and is said
    with it.
    """
    serious = worst_finding(findings)
    new = fresh(tables)
    used = judged_layers(tables)
    match = matching(used, unit)
    if new and not is_critical(findings):
        return _split("untrained", new)
    if serious and (is_critical(findings) or not match or is_explained(tables, findings)):
        first = findings[findings["severity"] != "info"].iloc[0]
        title = str(first["says"]).removesuffix(".")
        return Headline(str(first["severity"]), title, where_worst(findings), serious)
    if not match:
        return nothing_found(tables, findings)
    known = used[used["var_ratio_median"].notna()]
    other = worst_finding(findings[findings["rule"] != "data-shifted"])  # the mismatch is the headline itself
    idle = many_idle(tables) if _agree(known) or _slightly(known) else ""
    if idle and not _hardly_judged(known):
        detail = f"{match} {other}".strip()
        return Headline("warning" if serious else "notice", idle, detail, f"{idle}. {detail}")
    if _agree(known):
        state = "notice" if serious else "unknown" if _hardly_judged(known) else "good"
        return _split(state, match, other)
    return _split("warning" if serious else "notice", match, other)


def many_idle(tables: Tables) -> str:
    """That a good part of all channels does not work; empty where that is not so."""
    found = working(tables.channels)
    if found.n_silent < MOST_SILENT * found.n_channels:
        return ""
    return f"{found.n_silent:,} of {found.n_channels:,} channels pass nothing on"


def is_critical(findings: pd.DataFrame) -> bool:
    """Whether anything was found that comes before all else."""
    return bool((findings["severity"] == "critical").any())


def is_explained(tables: Tables, findings: pd.DataFrame) -> bool:
    """Whether the worst finding says why the running statistics do not match the data, which are not to blame."""
    serious = findings[findings["severity"] != "info"]
    if serious.empty:
        return False
    worst = serious.iloc[0]
    known = worst["rule"] == "data-shifted" and cause_of(Evidence.of(tables), worst) is not None
    return known or worst["rule"] in NOT_THE_DATA


def _split(state: str, sentence: str, more: str = "") -> Headline:
    """What stands before the colon as the title, and the rest as its detail, with `more` that a reader must know."""
    title, _, detail = sentence.partition(": ")
    detail = f"{detail[:1].upper()}{detail[1:]} {more}".strip()
    return Headline(state, title.removesuffix("."), detail, f"{sentence} {more}".strip())


def with_guess(first: Headline, tables: Tables, preprocessing: str, unit: str) -> Headline:
    """The headline about the data with what was guessed of how they were made: a mismatch may come from that alone."""
    guessed = re.search(rf"\(([^()]+): {GUESSED}\)", preprocessing)
    match = matching(judged_layers(tables), unit)
    if guessed is None or not match or match not in first.text:
        return first
    *some, last = guessed[1].split(", ")
    all_of = f"{', '.join(some)} and {last}" if some else last
    options = ", ".join(f"--{name}" for name in (*some, last))
    said = f"The {all_of} of the inputs {'are' if some else 'is'} guessed (the usual for ImageNet): if training used "
    said += f"{'others' if some else 'another'}, give {'them' if some else 'it'} ({options})."
    return replace(first, detail=f"{first.detail} {said}".strip(), text=f"{first.text} {said}")


def after(first: Headline, tables: Tables, findings: pd.DataFrame, unit: str) -> list[str]:
    """What else is to be said right after the headline: how the data match, and the worst finding."""
    used, serious = judged_layers(tables), worst_finding(findings)
    if fresh(tables) or is_explained(tables, findings):
        more = [serious]
    else:
        more = [matching(used, unit), serious or no_finding(tables.layers, used, findings, unit)]
    return [rest for sentence in more if (rest := _unsaid(sentence, first.text))]


def _unsaid(sentence: str, said: str) -> str:
    """The sentence, or nothing where `said` holds it already, a finding up to the place where it was found."""
    if sentence in said:
        return ""
    finding, place, _ = sentence.partition(").")
    return "" if place and finding + place in said else sentence


def judged_layers(tables: Tables) -> pd.DataFrame:
    """The layers whose running statistics say something: not those that follow the batches of this run."""
    following = tables.layers["normalized_by"].isin(("batch", "sample")) & (tables.layers["memory_moved"] > 0)
    return tables.layers[~never_updated(tables) & ~following]


def fresh(tables: Tables) -> str:
    """That the network has learned nothing yet, or hardly anything; empty where it has."""
    return untrained(tables) or begun(tables)


def untrained(tables: Tables) -> str:
    """That the network is untrained, as far as its norms can tell; empty where one of them learned anything."""
    channels = tables.channels
    gamma, beta = channels["gamma"].dropna(), channels["beta"].dropna()
    if (beta != 0).any() or not gamma.isin((0, 1)).all():
        return ""  # of most trained networks, without a look at each site
    stored = channels["running_mean"].notna()
    # γ of the last norm of a residual branch is often 0 at the start
    one, zero = channels["gamma"].isna() | (channels["gamma"] == 1), channels["gamma"] == 0
    learned, never = not (every(channels, one) | every(channels, zero)).all(), never_updated(tables)
    updated = stored.any() and bool(
        (~never & tables.layers["layer"].isin(channels["layer"][stored].unique())).any()
    )
    if learned or updated or not (len(gamma) or stored.any()):
        return ""
    zeros = " or 0" if (gamma == 0).any() else ""
    before = " before this recording" if (tables.layers["memory_moved"] > 0).any() else ""
    facts = [
        *([f"every γ is 1{zeros}"] if len(gamma) else []),
        *(["every β is 0"] if len(beta) else []),
        *([f"the running statistics were never updated{before}"] if stored.any() else []),
    ]
    if not stored.any():  # other weights may have learned while the optimizer did not have these
        return f"The norms of this network are untrained: {_listing(facts)}."
    return f"This network is untrained: {_listing(facts)}."


def begun(tables: Tables) -> str:
    """That training has only begun, so that nothing is said of data or channels yet; empty where it went on."""
    if not Evidence.of(tables).is_new:
        return ""
    counted = tables.layers["n_batches_tracked"].max()
    after = f", after {count(int(counted), 'batch')}" if counted > 0 else ""
    affine = tables.channels["gamma"].notna().any()
    near = "its γ and β are near" if affine else "its running statistics are in good part"
    return f"This network has only begun to train: {near} their initial values{after}."


def _listing(facts: list[str]) -> str:
    if len(facts) < 3:
        return " and ".join(facts)
    return f"{', '.join(facts[:-1])}, and {facts[-1]}"


def never_updated(tables: Tables) -> pd.Series:
    """Sites with running means of 0 and variances of 1 everywhere, before the recording."""
    layers, channels = tables.layers, tables.channels
    if not (channels["running_var"] == 1).any():  # of a trained network, without a look at each site
        return pd.Series(False, index=layers.index)
    return each_at_start(layers, channels)


def matching(layers: pd.DataFrame, unit: str) -> str:
    """Whether the data match the running statistics, and where they match least; nothing without any."""
    known = layers[layers["var_ratio_median"].notna()]
    if known.empty:
        return ""
    yours = "Your images" if unit == "image" else "Your inputs"
    judged, n = _judged(known)
    far = f"As far as {count(int(known['n_images'].max()), unit)} can tell, {yours[0].lower()}{yours[1:]}"
    if judged.empty:
        match, words = ("match", _typical_words) if _agree(known) else ("do not match", _worst_words)
        return f"{far} {match} the training data: {words(known)}."
    left = len(known) - len(judged)
    if _agree(known) and left:
        return (
            f"{_partly(yours, unit, len(judged), left)}: over {all_norms(len(known))}, {_typically(known)}."
        )
    if _agree(known):
        return f"{yours} match the training data: {_typical_words(known)}."
    if not n:  # those that could not be judged are far off
        return f"{yours} may not match the training data: {_worst_words(known)}."
    where = f"at {all_norms(n)}" if n == len(judged) else f"at {n} of {norms(len(judged))}"
    where += " that could be judged" * bool(left)
    shifted = judged[judged["verdict"].isin(SHIFTED)]
    return (
        f"{yours} do not {'quite ' if mildly(shifted) else ''}match the training data: {where} the inputs differ "
        f"from the running statistics beyond sampling error, and {_worst_words(shifted)}."
    )


def _partly(yours: str, unit: str, n: int, left: int) -> str:
    """That `n` norms match, and that samples are too few for the `left` others; what holds for most of them comes first."""
    few = f"{left:,} {'has' if left == 1 else 'have'} too few {unit}s to say"
    if left <= n:
        return f"{yours} match the training data at {n:,} of {norms(n + left)}; {few}"
    others = f"the other {norms(n)} match" if n > 1 else "the other norm matches"
    return f"Too few {unit}s to say whether they match the training data at {left:,} of {norms(n + left)}; {others}"


def _typical_words(known: pd.DataFrame) -> str:
    ratio, shift = _typical(known)
    where = "a typical norm" if len(known) > 1 else named(known.iloc[0])
    return f"at {where} the mean is off by {running_sds(shift)}, and the variance is {_of_running(ratio)}"


def _typically(known: pd.DataFrame) -> str:
    """The same where the sentence has named the norms."""
    ratio, shift = _typical(known)
    return f"the mean is typically off by {running_sds(shift)}, and the variance is {_of_running(ratio)}"


def _of_running(ratio: float) -> str:
    return against(ratio, "the running variance")


def _worst_words(known: pd.DataFrame) -> str:
    """The variance furthest off, or where no variance is far off, the mean."""
    off = np.abs(np.log(known["var_ratio_median"].clip(lower=1e-12)))
    far = known.loc[off.idxmax()]
    if not 0.8 < far["var_ratio_median"] < 1.25:
        return f"at worst their variance is {against(far['var_ratio_median'], 'the running variance')} ({named(far)})"
    far = highest(known, "shift_rms")
    return f"at worst their mean is off by {running_sds(far['shift_rms'])} ({named(far)})"


def mildly(known: pd.DataFrame) -> bool:
    """Whether no norm is so far off that it needs to be said bluntly."""
    return bool(known["var_ratio_median"].between(0.5, 2).all() and (known["shift_rms"] < 0.5).all())


def _slightly(known: pd.DataFrame) -> bool:
    """Whether the data do not quite match, and no norm needs that said bluntly."""
    judged, n = _judged(known)
    return n > 0 and mildly(judged[judged["verdict"].isin(SHIFTED)])


def _typical(known: pd.DataFrame) -> tuple[float, float]:
    """Variance ratio and shift of the middle norm."""
    return median(known["var_ratio_median"].to_numpy()), median(known["shift_rms"].to_numpy())


def _is_close(ratio: float, shift: float) -> bool:
    return 0.8 < ratio < 1.25 and shift < 0.25


def _judged(known: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The norms with a verdict on whether the data match, and how many of them do not."""
    judged = known[known["verdict"].isin((SAME, *SHIFTED))]
    return judged, int(judged["verdict"].isin(SHIFTED).sum())


def _hardly_judged(known: pd.DataFrame) -> bool:
    """Whether samples were too few for most norms: what the others say is no yes."""
    return 2 * len(_judged(known)[0]) < len(known)


def _agree(known: pd.DataFrame) -> bool:
    """Whether no norm is shifted, and those that could not be judged are close, all but a few and typically."""
    judged, n = _judged(known)
    if n or len(judged) == len(known):
        return not n
    pairs = zip(known["var_ratio_median"], known["shift_rms"], strict=True)
    far = np.mean([not _is_close(ratio, shift) for ratio, shift in pairs])
    return _is_close(*_typical(known)) and bool(far < ENOUGH)


def no_finding(layers: pd.DataFrame, used: pd.DataFrame, findings: pd.DataFrame, unit: str) -> str:
    """That no rule warns; a mismatch below all thresholds at those `used` is not nothing, nor are notes."""
    n = _judged(used)[1]
    measured = used[used["var_ratio_median"].notna()]
    check = "Check accuracy on these data before you rely on it."
    if n:
        return f"The mismatch is significant but below the warning level. {check}"
    if not measured.empty and not _agree(measured):
        return f"Any mismatch is below the warning level, and too few {unit}s were run to judge it. {check}"
    return nothing_serious(findings, layers)
