"""Causes in words: what is said of a discrepancy whose cause was found, and how it is undone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bnprobe.recording.names import said
from bnprobe.rules.edits import DivideStatistics, Recalibrate, Remedy, SetMode, remedy, undoing
from bnprobe.rules.remedies import module, recalibrate, recalibration
from bnprobe.rules.rule import Evidence

GROUPS = ("groups", "one group")
"""Causes by which samples come in groups that the running statistics do not know of."""


def cause_of(evidence: Evidence, row: pd.Series) -> pd.Series | None:
    """The cause of a norm's discrepancy that may be named; None where there is none."""
    found = evidence.causes
    if found.empty:
        return None
    here = found[(found["layer"] == row["layer"]) & (found["call"] == row["call"])]
    here = here[here["certain"]]
    return here.iloc[0] if len(here) else None


def upstream(evidence: Evidence, row: pd.Series) -> str:
    """The dropout that explains the discrepancy of an earlier norm, which may pass it on; empty where none does."""
    found = evidence.causes
    if found.empty:
        return ""
    order = list(evidence.layers["layer"])
    earlier = set(order[: order.index(row["layer"])])
    of_dropout = found[found["layer"].isin(earlier) & (found["cause"] == "dropout") & found["certain"]]
    if of_dropout.empty:
        return ""
    first = of_dropout.iloc[0]
    return (
        f" At {said(first['layer'])} dropout explains {first['explains']:.0%} of the discrepancy "
        f"({first['facts']['names']}, which is off in eval mode), and that may be passed on to this norm."
    )


def says(cause: pd.Series) -> str:
    """The cause as the end of a sentence about running statistics that do not match."""
    return _SAYS[cause["cause"]].format(**_words(cause["facts"]))


def because(cause: pd.Series) -> str:
    """How well it explains what is measured, and what the next best cause would explain."""
    if cause["cause"] == "few samples":
        return ""
    rest = max(float(cause["next_best"]), 0.0)
    share = float(cause["explains"])
    return (
        f" This explains {'more than 99%' if share > 0.99 else f'{share:.0%}'} of the discrepancy in mean and std; the "
        f"next best cause explains {rest:.0%}."
    )


def do(cause: pd.Series, row: pd.Series) -> str:
    """How the cause is undone."""
    words = _words(cause["facts"])
    return _DO[cause["cause"]].format(
        **words,
        again=recalibrate(row),
        without_dropout=WITHOUT_DROPOUT,
        divide=f"`n = {module(row['layer'])}; n.running_mean /= {words.get('factor', '')}; n.running_var /= "
        f"{words.get('factor', '')}`",
    )


def undone_by(cause: pd.Series, row: pd.Series) -> Remedy | None:
    """The same as edits, with those that undo the cause, as far as it can be undone."""
    name, facts = cause["cause"], cause["facts"]
    if name == "few samples":
        return None
    if name == "factor":
        return undoing(DivideStatistics(row["layer"], float(f"{facts['factor']:.4g}")))
    if name == "dropout":
        on = tuple(SetMode(path, training=True) for path in facts["names"].split(", "))
        return Remedy((Recalibrate(dropout=False),), cause=on)
    return remedy(recalibration(row))


WITHOUT_DROPOUT = (
    "`model.eval(); norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]; "
    "momenta = [m.momentum for m in norms]`, "
    "`for m in norms: m.reset_running_stats(); m.momentum = None; m.train()`, "
    "`with torch.no_grad(): [model(x) for x, y in loader]`, "
    "`for m, momentum in zip(norms, momenta): m.eval(); m.momentum = momentum`"
)
"""As update_bn does, which has dropout on meanwhile; without a reset, few batches leave most of what was stored."""


def _words(facts: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a cause as they are printed."""
    printed = dict(facts)
    if "factor" in facts:
        printed["factor"] = f"{facts['factor']:.4g}"
    for name in ("share", "of_var", "initial_weight", "few"):
        if name in facts:
            printed[name] = f"{facts[name]:.0%}"
    return printed


_SAYS = {
    "few samples": "they are larger, and about {few} of the samples account for that",
    "young": "they were updated too few times, and {initial_weight} of their initial 0 and 1 is left",
    "dropout": "they hold the noise of the dropout before this norm ({names}, p = {p:.2g}), which is off in eval mode",
    "groups": "their variance lacks the variance between groups of samples",
    "one group": "they come from one group of such samples only",
    "coarse": "they are stored in {dtype}, where updates of momentum {momentum:g} are rounded away",
    "factor": "running mean and variance are both {factor} times too large",
}

_DO = {
    "few samples": "See whether only these differ, as one batch that was prepared otherwise, a broken file, or a number "
    "that stands for what is missing (-999) does: "
    "`print([(i, float(x.float().mean()), float(x.float().std())) for i, (x, y) in enumerate(batches)])`. No other cause is "
    "looked for, as moments over all samples describe neither these nor the others.",
    "dropout": "Dropout before a batch norm shifts its variance between training and inference. Put the dropout after the "
    "last norm and retrain. For this model, compare the accuracy before and after re-estimating the running statistics "
    "with dropout off: {without_dropout}.",
    "groups": "Batches of one kind (one class, one client, one scene), or running variances averaged over clients or "
    "processes, cause this; so do batches of a few samples. Shuffle, or merge the statistics as those of one mixture: the "
    "variance is the mean of the variances plus the variance of the means. Or re-estimate them on mixed batches: {again}.",
    "one group": "The buffers of one client or process, or training whose last batches were all of one kind (one class), "
    "cause this. Shuffle, or re-estimate the running statistics on mixed batches: {again}.",
    "coarse": "An update is momentum times a difference, and one of less than half a step of {dtype} changes nothing. Keep "
    "norms in float32, `[m.float() for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]`, with "
    "autocast for the rest, and train on; or re-estimate the running statistics, in float32: {again}.",
    "factor": "A conversion left out a division: Caffe stores sums and, beside them, the number to divide by. Convert "
    "again, or divide here and in every norm where this is so, which changes results: {divide}.",
}
