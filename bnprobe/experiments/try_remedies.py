"""Each finding's remedy carried out on the model, to see whether the finding goes and what else changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
from torch import nn

from bnprobe.errors import BnprobeError, class_name, said
from bnprobe.experiments.outputs import Metric, NoComparison
from bnprobe.experiments.run import Batches, Call
from bnprobe.experiments.snapshot import all_put_back
from bnprobe.experiments.trial import Bench, Judged, Outcome
from bnprobe.norms import ModuleTree
from bnprobe.printing import note, progress
from bnprobe.probe.record import Loss
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.recording.terms import AGREEMENT, OUTPUT
from bnprobe.rules import COMPARED, RULES
from bnprobe.rules.edits import Remedy, all_of
from bnprobe.rules.remedies import is_function
from bnprobe.rules.tried import CHANGED, GONE, REMAINS, Tried, not_tried


class Tryable(Judged, Protocol):
    """A report that shows what came of its remedies."""

    def take(self, tried: Sequence[Tried]) -> None:
        """One per finding."""


R = TypeVar("R", bound=Tryable)


def try_remedies(
    report: R,
    model: nn.Module,
    batches: Iterable[Any],
    metric: Metric | None = None,
    *,
    loss: Loss | None = None,
    call: Call | None = None,
) -> R:
    """Carry out what each finding advises, and see whether the finding goes and what else changes.

    The model is recorded on the batches as it is, and once for each remedy: those of findings that say the same are carried
    out together, as on the page. It runs in the modes it is in. Afterwards it is as it was, bit for bit. Where a finding
    names a cause, and undoing that cause leaves the discrepancy, the name is taken back.

    Args:
        report: A report on this model; its findings are tried.
        model: The model that the report is about.
        batches: A loader or list of batches, as for `bnprobe.record`, with targets where the metric needs them. They are
            read three times per remedy; re-estimated statistics come from them, too, so give other samples to learn
            what those are worth.
        metric: Function of (output, target) that returns one number per sample, shape (N,). Default: whether the
            largest score is the target's, where targets are classes.
        loss: Function of (output, target) that returns a scalar, for findings about gradients: with it a backward pass
            follows each forward pass. No step of training is made.
        call: Function of (model, batch) that runs one batch and returns the output, where `model(x)` does not.

    Returns:
        The report. Its findings have one more column, `tried`: a `Tried` each, which in words stands on its pages, too.

    Raises:
        NothingRecorded: There were no samples.
        BnprobeError: The report is of another model or of two, batches can be read only once, the metric fails or returns
            another shape or a number that is not finite, or the model lies on several devices.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).eval()
        >>> model[1].running_var.fill_(50.0); model[1].weight.data.fill_(1.5)  # doctest: +ELLIPSIS
        tensor(...)
        tensor(...)
        >>> batches = [torch.randn(50, 6) for _ in range(4)]
        >>> report = bnprobe.report(bnprobe.record(model, batches))
        >>> tried = bnprobe.try_remedies(report, model, batches).findings["tried"]
        >>> tried[0].fate
        'gone'
    """
    _demand(report, model, call)
    Batches(model, batches, "trying", n_passes=2)
    if report.findings.empty:
        note("nothing to try: the report has no findings.")
        report.take(())
        return report
    with all_put_back(model) as before:
        bench = Bench(model, before, batches, report, metric, loss, call)
        now = bench.look()
        _demand_same_norms(report, now)
        report.take(_each_tried(report, now, bench))
    return report


def _each_tried(report: Judged, now: Judged, bench: Bench) -> list[Tried]:
    """For each finding what came of it; remedies of findings that say the same are carried out together."""
    found = [_same_finding(row, now.findings) for _, row in report.findings.iterrows()]
    groups: dict[tuple[str, str], list[int]] = {}
    for at in found:
        if at is not None and now.remedies[at] is not None:
            row = now.findings.iloc[at]
            groups.setdefault((row["rule"], row["says"]), []).append(at)
    outcomes: dict[int, Tried] = {}
    with progress(len(groups), "trying", "remedies") as bar:
        for places in groups.values():
            outcomes |= _of_group(sorted(set(places)), now, bench)
            bar.update()
    return [
        outcomes[at] if at in outcomes else not_tried(_why(rule, at, report, bench))
        for at, rule in zip(found, report.findings["rule"], strict=True)
    ]


def _why(rule: str, at: int | None, report: Judged, bench: Bench) -> str:
    """Why nothing was carried out for a finding; `at` is None where it is not found on these batches."""
    by_hand = next((one.by_hand for one in (*RULES, *COMPARED) if one.id == rule), "")
    if by_hand:
        return by_hand
    if at is not None:
        return "here the advice is not one to carry out"
    learned = (report.layers["n_backward"] > 0).any() and bench.loss is None
    return "it does not show on these batches" + (
        ", which were run without a backward pass: pass loss=" if learned else ", with the model in this mode"
    )


def _of_group(places: list[int], now: Judged, bench: Bench) -> dict[int, Tried]:
    """By the positions of the findings."""
    remedies = [remedy for at in places if (remedy := now.remedies[at]) is not None]
    try:
        outcome = bench.try_out(all_of(remedies))
    except (NoComparison, LookupError) as error:
        return dict.fromkeys(places, not_tried(str(error).rstrip(".")))
    except BnprobeError:
        raise
    except Exception as error:  # a model may fail in any way when it is changed
        reason = said(error).rstrip(".")
        return dict.fromkeys(places, not_tried(f"with it the model fails ({reason})"))
    return {
        at: _tried(now, at, outcome, remedy, len(places)) for at, remedy in zip(places, remedies, strict=True)
    }


def _tried(now: Judged, at: int, outcome: Outcome, remedy: Remedy, together: int) -> Tried:
    row, effect = now.findings.iloc[at], outcome.effect
    measured = effect.metric not in (AGREEMENT, OUTPUT)
    numbers = (effect.before, effect.after, effect.low, effect.high) if measured else (np.nan,) * 4
    before, after, low, high = numbers
    return Tried(
        fate=_fate(row, now.findings, outcome.report.findings),
        n=effect.n,
        largest_change=effect.largest_change,
        largest_relative=effect.largest_relative,
        agreement=effect.agreement,
        kl=effect.kl,
        metric=effect.metric if measured else "",
        before=before,
        after=after,
        low=low,
        high=high,
        explains=_explained(row, now, outcome.without_cause) if remedy.cause else float("nan"),
        brings=tuple(sorted(_serious(outcome.report) - _serious(now))),
        together=together,
    )


def _fate(row: pd.Series, before: pd.DataFrame, after: pd.DataFrame) -> str:
    there, left = _at_place(row, before), _at_place(row, after)
    same = left[(left["says"] == row["says"]) & (left["severity"] == row["severity"])]
    if any(channels == row["channels"] for channels in same["channels"]):
        return REMAINS
    return CHANGED if len(same) or len(left) >= len(there) else GONE


def _at_place(row: pd.Series, findings: pd.DataFrame) -> pd.DataFrame:
    """The findings of the same rule at the same site."""
    same = (findings["rule"] == row["rule"]) & (findings["layer"] == row["layer"])
    there: pd.DataFrame = findings[same & (findings["call"] == row["call"])]
    return there


def _same_finding(row: pd.Series, findings: pd.DataFrame) -> int | None:
    """The position of a finding among others, by its words if several are at its place."""
    there = _at_place(row, findings)
    same = there[there["says"] == row["says"]]
    return next((int(at) for at in (*same.index, *there.index)), None)


def _explained(row: pd.Series, before: Judged, after: Judged | None) -> float:
    """Share of the squared discrepancy that is gone at a finding's site; NaN where nothing was undone."""
    if after is None:
        return float("nan")
    was, left = (_discrepancy(row, judged.layers) for judged in (before, after))
    return 1 - (left / was) ** 2 if was > 0 else float("nan")


def _discrepancy(row: pd.Series, layers: pd.DataFrame) -> float:
    here = layers[(layers["layer"] == row["layer"]) & (layers["call"] == row["call"])]
    return float(here["discrepancy"].iloc[0]) if len(here) else float("nan")


def _serious(judged: Judged) -> set[str]:
    findings = judged.findings
    return set(findings["rule"][findings["severity"] != "info"])


def _demand(report: Any, model: Any, call: Call | None) -> None:
    """Raises BnprobeError for what cannot be tried, before anything runs."""
    if not isinstance(model, nn.Module):
        raise BnprobeError(
            f"try_remedies needs a torch.nn.Module, got {class_name(model)}. Pass report, model, batches in this order."
        )
    if not hasattr(report, "take"):
        raise BnprobeError(
            f"try_remedies needs a report of one recording, got {type(report).__name__}. Pass what bnprobe.report returns."
        )
    devices = sorted({str(p.device) for p in ModuleTree.of(model).parameters().values()})
    if len(devices) > 1 and call is None:
        raise BnprobeError(
            f"the model lies on {len(devices)} devices ({', '.join(devices)}), so where a batch belongs is not known. Pass "
            "call=, a function of (model, batch) that moves the batch and returns the output."
        )
    known = {shown(path) or class_name(model) for path in ModuleTree.of(unwrap(model)[0]).modules}
    missing = [
        layer for layer in map(str, report.layers["layer"]) if layer not in known and not is_function(layer)
    ]
    if missing:
        raise _of_another(report, f"{missing[0]!r} is no module of this {class_name(model)}")


def _demand_same_norms(report: Judged, now: Judged) -> None:
    """Raises BnprobeError where a norm has another number of channels than in the report."""
    columns = ["layer", "call", "n_channels"]
    both = report.layers[columns].merge(now.layers[columns], on=["layer", "call"])
    other = both[both["n_channels_x"] != both["n_channels_y"]]
    if len(other):
        row = other.iloc[0]
        raise _of_another(
            report, f"{row['layer']} has {row['n_channels_y']} channels here and {row['n_channels_x']} there"
        )


def _of_another(report: Judged, fact: str) -> BnprobeError:
    return BnprobeError(
        f"the report is of another model ({report.recording.about.model}): {fact}. Record this model, and pass that report."
    )
