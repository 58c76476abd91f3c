"""Where in depth a shift is reported: once, where it enters, with advice for where it stands."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import site, some_rows
from torch import nn

from bnprobe.recording import LayerRecord
from bnprobe.recording.names import NO_STATISTICS
from bnprobe.recording.neighbours import Neighbours
from bnprobe.rules import Finding
from bnprobe.rules.merge_runs import (
    _following,
    _not_passed_on,
    _ruled_by_eps,
    _runs,
    _through,
    _with_others,
)
from rules.edited import edited, evidence, healthy
from rules.firing import fired
from rules.test_running_stats import LEARNED, SHIFTED, moved

ROWS = some_rows(40)
MANY = np.random.default_rng(5).normal(size=(400, 3, 14))


def test_a_shift_is_reported_where_it_enters():
    """Fails if one shift makes a finding per norm, or those behind, and the worst of them, are not counted."""
    found = fired(
        SHIFTED,
        *(site(ROWS, name, **LEARNED, **moved(by)) for name, by in zip("abc", (1, 1.5, 1.2), strict=True)),
    )
    assert found["layer"].tolist() == ["a"]
    assert "2 following norms are affected too, with a shift of up to 1.50 σ at b." in found["because"][0]
    assert "Check the preprocessing first" in found["do"][0]


def test_a_shift_after_norms_that_match_is_not_of_the_inputs():
    """Fails if the preprocessing is blamed although the inputs of the first norm match."""
    sites = [
        site(MANY, "first", **LEARNED, **moved(0, rows=MANY)),
        site(MANY, "deep", **LEARNED, **moved(1, rows=MANY)),
        site(MANY, "mended", **LEARNED, **moved(0, rows=MANY)),
        site(MANY, "again", **LEARNED, **moved(1, rows=MANY)),
    ]
    found = fired(SHIFTED, *sites)
    assert found["layer"].tolist() == ["deep", "again"]
    assert "between first and this norm" in found["do"][0]
    assert "between mended and this norm" in found["do"][1]
    assert not found["do"].str.contains("preprocessing").any()
    assert "affected too" not in found["because"][0]


def shifted_by(name: str, by: float, scale: float = 1.0, follows: str = "relu") -> LayerRecord:
    return site(MANY, name, neighbours=Neighbours(follows), **LEARNED, **moved(by, scale, MANY))


@pytest.mark.parametrize(
    ("first", "starts"),
    [
        (0.2, "Inputs match far better at a"),
        (0.35, "Another range, mean or std of the inputs does not do this"),
        (0.45, "Check the preprocessing first"),
    ],
)
def test_a_first_norm_that_is_off_by_far_less_clears_the_inputs_too(first: float, starts: str):
    """Fails if the preprocessing is blamed for statistics older than the weights because the first norm is a little off,
    or cleared where it may have passed on what the next one sees."""
    (do,) = fired(SHIFTED, shifted_by("a", first), shifted_by("b", 0.8), shifted_by("c", 0.8))["do"]
    assert do.startswith(starts)
    assert ("an earlier checkpoint" in do) == (first < 0.4)


@pytest.mark.parametrize(
    ("shifts", "starts"),
    [
        ((0.6, 1.9, 2.5, 3.0), "Another range, mean or std of the inputs does not do this"),
        ((0.6, 0.7, 0.8, 0.9), "Check the preprocessing first"),
    ],
)
def test_what_grows_more_than_inputs_do_is_not_of_the_inputs(shifts: tuple[float, ...], starts: str):
    """Fails if inputs are blamed where the first norm is off and the others by several times as much, or cleared else."""
    found = fired(SHIFTED, *map(shifted_by, "abcd", shifts))
    assert found["layer"].tolist() == ["a"]
    assert found["do"][0].startswith(starts)
    assert found["says"][0].endswith("by more from norm to norm.") == (shifts[-1] > 1)


@pytest.mark.parametrize(("first", "of_every_norm"), [(0.9, False), (1.1, True)])
def test_what_the_first_norm_sees_is_no_detail(first: float, of_every_norm: bool):
    """Fails if inputs are said to differ in what the first norm hardly sees, where that norm is off by its whole σ."""
    sites = [shifted_by(name, by * first) for name, by in zip("abcd", (1, 2.5, 3, 4), strict=True)]
    advice = fired(SHIFTED, *sites)["do"][0]
    assert ("hardly sees" in advice) is not of_every_norm
    assert ("sum over neighbors" in advice) is of_every_norm


@pytest.mark.parametrize(("scale", "named"), [(1.4, True), (1.0, False)])
def test_branches_that_training_drops_are_the_first_thing_to_look_for(scale: float, named: bool):
    """Fails if stochastic depth without its rescaling is put down to the inputs or the weights alone."""
    same = shifted_by("a", 0), shifted_by("b", 0), shifted_by("c", 0, follows="add, relu")
    (do,) = fired(SHIFTED, *same, shifted_by("d", 0.9, scale), shifted_by("e", 1.2, scale, "add, relu"))["do"]
    assert do.startswith("Inputs match up to the sum that c enters") == named


@pytest.mark.parametrize(
    ("first", "starts"), [(0.2, "Inputs match far better at a"), (0.35, "Check the preprocessing")]
)
def test_inputs_that_are_surely_off_do_not_match(first: float, starts: str):
    """Fails if weights or statistics are blamed where the first of two norms is off as well, by less than the second."""
    (do,) = fired(SHIFTED, shifted_by("a", first), shifted_by("b", 0.8))["do"]
    assert do.startswith(starts)


@pytest.mark.parametrize(("eps", "counts"), [(1e-5, False), (0.04, False), (0.3, True)])
def test_an_eps_that_counts_is_the_first_suspect_where_the_variance_falls(eps: float, counts: bool):
    """Fails if weights are blamed where every norm divides by a good part of eps, or eps where it is nothing."""
    scales = (0.7, 0.5, 0.35, 0.2)
    sites = [replace(shifted_by(name, 0.1, s), eps=eps) for name, s in zip("abcd", scales, strict=True)]
    (do,) = fired(SHIFTED, *sites)["do"]
    share = np.median([np.median(eps / (MANY.var((0, 2)) / s + eps)) for s in scales])
    assert (share >= 0.05) == counts
    start = (
        f"eps is 0.3, {share:.0%} of what a typical norm divides by" if counts else "Images cannot do this"
    )
    assert do.startswith(start)
    assert "weights averaged" in do
    for code in re.findall(r"`(for n in [^`]*)`", do):
        model = nn.Sequential(nn.BatchNorm1d(2, eps=eps), nn.ReLU(), nn.LayerNorm(2, eps=eps))
        exec(code, {"model": model})
        assert [model[i].eps for i in (0, 2)] == [1e-5, 1e-5]


@pytest.mark.parametrize(("last", "suspected"), [(0.4, True), (2.5, False)])
def test_an_eps_that_counts_is_no_suspect_where_the_variance_grows(last: float, suspected: bool):
    """Fails if the first norm, which sees inputs as in training, hides an eps, or a larger eps is to make outputs larger."""
    steps = ((0.0, 1.0), (0.2, 1.0), (0.4, 1.0), (0.6, last))
    sites = [replace(shifted_by(name, *step), eps=0.3) for name, step in zip("abcd", steps, strict=True)]
    (do,) = fired(SHIFTED, *sites)["do"]
    assert do.startswith("eps is 0.3") == suspected


def test_what_inputs_cannot_pass_on_is_a_shift_of_its_own():
    """Fails if wrong statistics of all norms are told as a mistake of preprocessing, because that fits the first norm."""

    def left(*discrepancies: float) -> list[float]:
        return _not_passed_on(pd.DataFrame({"discrepancy": discrepancies}))["discrepancy"].tolist()

    assert left(1.25, 1.29, 1.51, 0.8) == []  # inputs times 3.4, in a mobilenet_v2
    assert left(1.34, 0.93, 3.41, 1.35) == [3.41, 1.35]  # 1/deviation stored as variance, in all its norms
    assert left(1.34, float("nan"), 3.41) == [3.41]
    assert left(1.0) == left(1.0, 2.0) == []


def test_norms_without_usable_statistics_stand_outside():
    """Fails if a layer norm, or one that was never updated, counts as one that agrees."""
    silent = [site(ROWS, "ln", "layer_norm"), site(ROWS, "new", **LEARNED, running_mean=0, running_var=1)]
    found = fired(
        SHIFTED,
        *silent,
        site(ROWS, "a", **LEARNED, **moved(1)),
        site(ROWS, "ln2", "layer_norm"),
        site(ROWS, "b", **LEARNED, **moved(1)),
    )
    assert found["layer"].tolist() == ["a"]
    assert "Check the preprocessing first" in found["do"][0]


def test_a_norm_that_eps_rules_does_not_vouch_for_the_inputs():
    """Fails if inputs 1/255 of those meant, which match beside eps whatever they are, clear the preprocessing."""
    first = {"running_mean": MANY.mean((0, 2)), "running_var": MANY.var((0, 2))}
    vouches = site(MANY, "first", eps=1e-5, gamma=1.5, beta=0.1, **first)
    deep = site(MANY, "deep", **LEARNED, **moved(1, rows=MANY))
    assert "between first and this norm" in fired(SHIFTED, vouches, deep)["do"][0]
    small = {"running_mean": first["running_mean"] / 100, "running_var": first["running_var"] / 1e4}
    ruled = site(MANY / 100, "first", eps=1e-3, gamma=1.5, beta=0.1, **small)
    assert "Check the preprocessing first" in fired(SHIFTED, ruled, deep)["do"][0]


@pytest.mark.parametrize(("scale", "cleared"), [(1.0, True), (0.01, False)], ids=["clear", "ruled by eps"])
def test_a_first_norm_that_eps_rules_does_not_clear_the_inputs(scale: float, cleared: bool):
    """Fails if inputs divided by 255 are said to be right, because a shift grows behind a norm where eps hides it."""
    first = {"running_mean": MANY.mean((0, 2)) * scale, "running_var": MANY.var((0, 2)) * scale**2}
    deep = (
        site(MANY, name, **LEARNED, **moved(by, rows=MANY))
        for name, by in zip("abc", (0.5, 1, 1.5), strict=True)
    )
    found = fired(SHIFTED, site(MANY * scale, "first", eps=1e-3, gamma=1.5, beta=0.1, **first), *deep)
    assert ("mean and std of the inputs are right" in found["do"][0]) == cleared


def test_large_shifts_are_readable():
    """Fails if a sentence says 19597.02 σ, or 1.3e+06 times."""
    sites = [
        site(MANY, name, **LEARNED, **moved(by, rows=MANY)) for name, by in (("a", 1818.116), ("b", 19597))
    ]
    (because,) = fired(SHIFTED, *sites)["because"]
    assert "typical shift 1,820 running σ" in because
    assert "up to 19,600 σ at b" in because


def test_shifts_with_the_same_advice_are_one_finding():
    """Fails if a drift whose norms alternate makes a finding for each, its places are not named, or the worst is lost."""
    between = {name: site(MANY, name, **LEARNED, **moved(0.45, rows=MANY)) for name in "bd"}
    sites = [
        site(MANY, "a", **LEARNED, **moved(1, rows=MANY)),
        between["b"],
        site(MANY, "c", **LEARNED, **moved(1, rows=MANY)),
        between["d"],
        site(MANY, "e", **LEARNED, **moved(1, rows=MANY)),
    ]
    (row,) = fired(SHIFTED, *sites).itertuples()
    assert row.layer == "a"
    assert "So it is again at c, e" in row.because


def table(**columns: list[Any]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    usual = {
        "layer": list("abcdefgh")[:n],
        "call": 0,
        "verdict": "same",
        "shift_rms": 1.0,
        "discrepancy": 1.0,
    }
    return pd.DataFrame({**usual, **columns})


@pytest.mark.parametrize(
    ("shifted", "verdicts", "runs"),
    [
        ("", ["same"] * 3, ["abc"]),
        ("abc", ["same"] * 3, ["abc"]),
        ("b", ["same"] * 3, ["a", "b", "c"]),
        ("ab", ["same"] * 4, ["ab", "cd"]),
        ("ac", ["mean shifted", NO_STATISTICS, "mean shifted"], ["ac"]),
        ("b", [NO_STATISTICS, NO_STATISTICS, "same"], ["b", "c"]),
        ("", [NO_STATISTICS] * 2, []),
    ],
)
def test_runs_of_norms_that_are_off(shifted: str, verdicts: list[str], runs: list[str]) -> None:
    """Fails if a run ends one norm early or late, or norms that cannot be judged break it."""
    found = _runs(table(verdict=verdicts), {(layer, 0) for layer in shifted})
    assert ["".join(run["layer"]) for run in found] == runs


@pytest.mark.parametrize(
    ("discrepancy", "left"),
    [
        ([1.0, 2.0, 1.5], ""),
        ([1.0, 2.01, 0.1], "bc"),
        ([1.0, 0.1, 3.0], "c"),
        ([1.0], ""),
        ([0.5, 1.1], "b"),
    ],
)
def test_what_a_discrepancy_of_the_inputs_passes_on(discrepancy: list[float], left: str) -> None:
    """Fails if twice the first discrepancy is more than it can pass on, or norms before the jump are told again."""
    assert "".join(_not_passed_on(table(discrepancy=discrepancy))["layer"]) == left


@pytest.mark.parametrize(
    ("shifts", "words"),
    [
        ([], ""),
        ([0.75], " 1 following norm is affected too, with a shift of up to 0.75 σ at a."),
        ([0.75, 2.5, 1.0], " 3 following norms are affected too, with a shift of up to 2.50 σ at b."),
        ([np.nan, 0.5], " 2 following norms are affected too, with a shift of up to 0.50 σ at b."),
        ([np.nan, np.nan], " 2 following norms are affected too."),
    ],
)
def test_what_is_said_of_the_norms_behind(shifts: list[float], words: str) -> None:
    """Fails if the smallest shift is named, an unknown one hides the others, or one norm is counted in the plural."""
    assert _following(table(shift_rms=shifts) if shifts else table(shift_rms=[1.0])[:0]) == words


@pytest.mark.parametrize(("n", "at"), [(1, "a"), (2, "ab"), (5, "abcde"), (6, "acdef"), (8, "acefh")])
def test_a_course_is_told_by_five_norms_at_most(n: int, at: str) -> None:
    """Fails if the first or the last norm is left out, or more than three between them are named."""
    known = table(discrepancy=[float(i) for i in range(n)])
    told = [part.rpartition(" at ")[2] for part in _through(known, "discrepancy").split(", ")]
    assert (told[0], told[-1], len(told)) == ("a", "abcdefgh"[n - 1], len(at))
    assert _through(known, "discrepancy").startswith("0 at a")
    steps = np.diff(["abcdefgh".index(name) for name in told])
    assert not len(steps) or steps.max() - steps.min() <= 1


def off(layer: str, severity: str = "warning", do: str = "Do.") -> Finding:
    return Finding(severity, layer, "Off.", "By much.", do)


def test_places_of_which_the_same_is_said_are_named_once() -> None:
    """Fails if the least severe decides, a place is left out, or one place is told as if there were others."""
    assert _with_others(off("a")) == off("a")
    both = _with_others(off("a", "info"), off("b", "critical"), off("c", "warning"))
    assert (both.severity, both.layer) == ("critical", "a")
    assert both.because == "By much. So it is again at b, c, between which inputs match better."


def test_norms_that_eps_rules() -> None:
    """Fails if a typical variance as large as eps is ruled by it, or one channel decides."""
    base = evidence(healthy("a"))
    for var, ruled in (([1e-6, 1e-6, 1.0], True), ([1e-5, 1e-5, 1.0], False), ([1e-6, 1.0, 1.0], False)):
        assert _ruled_by_eps(edited(base, {"running_var": var}, eps=1e-5)) == ({"a"} if ruled else set())
