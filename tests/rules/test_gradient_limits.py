"""Gradients: jumps, noise and passes, each at and beside its limit."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bnprobe.rules import gradient
from bnprobe.rules.edits import Freeze
from bnprobe.rules.gradient import FIRST_PASSES, _not_reached, _samples, _spoilt, _where
from rules.edited import edited, edited_rows, evidence, findings, frame, healthy

LIMITS = evidence().limits
STEP, NOISE = LIMITS.gradient_step, LIMITS.silent_snr


@pytest.mark.parametrize(
    ("lengths", "way"),
    [
        ((STEP * 1.001, 1.0), "explodes"),
        ((STEP * 0.999, 1.0), ""),
        ((1.0, STEP * 1.001), "vanishes"),
        ((1.0, STEP * 0.999), ""),
        ((STEP * 1.5, 0.0, 1.0), "explodes"),
        ((1.0, math.nan, STEP * 1.5), "vanishes"),
        ((1.0, 2.0), ""),
        ((1.0,), ""),
    ],
)
def test_a_jump_between_neighbours(lengths: tuple[float, ...], way: str) -> None:
    """Fails if the limit is elsewhere or on one side only, the way is turned over, or what has no gradient is a neighbor."""
    found = findings("gradient-breaks", edited_rows(*({"grad_out": length} for length in lengths)))
    assert [one.layer for one in found] == (["a"] if way else [])
    for one in found:
        assert f"The gradient {way} between" in one.says


@pytest.mark.parametrize(
    ("rows", "way"),
    [
        # the branch of the first norm, seen at the second, gives a thousandth to the stream, and gets a thousandth
        (((1e-3, math.nan), (1.0, 1e-3)), ""),
        (((1e-3 / STEP * 1.01, math.nan), (1.0, 1e-3)), ""),
        (((1e-3 / STEP * 0.99, math.nan), (1.0, 1e-3)), "vanishes"),
        # that of the second, seen at the third
        (((1.0, math.nan), (1e-3, 0.5), (1.0, 1e-3)), ""),
        # a branch that gives more than there was is no reason for more of the gradient
        (((STEP * 1.01, math.nan), (1.0, 40.0)), "explodes"),
        # a norm within the branch
        (((1e-3, math.nan), (1e-3, math.nan), (1.0, 1e-3)), ""),
        # queries and keys, which even attention gives next to nothing, are beside the way
        (((1.0, math.nan), (1e-5, math.nan, "query"), (1e-5, math.nan, "key"), (1.0, 1.0)), ""),
        (((1e-5, math.nan), (1.0, math.nan, "query"), (1.0, 1.0)), "vanishes"),
        # one whose output is the stream gets all of the gradient, and the next one, in a branch, a thousandth
        (((1.0, math.nan, "embedding"), (1e-3, math.nan), (1.0, 1e-3)), ""),
        (((1e-3, math.nan, "embedding"), (1.0, 1e-3)), "vanishes"),
    ],
)
def test_a_branch_gets_of_the_gradient_what_it_gives(rows: Any, way: str) -> None:
    """Fails if gates that begin near 0 are a gradient that vanishes, or hide one that does."""
    sites = ({"grad_out": g, "branch": b, "norm_role": next(iter(role), "MLP")} for g, b, *role in rows)
    found = findings("gradient-breaks", edited_rows(*sites))
    assert [one.says.split()[2] for one in found] == ([way] if way else [])


SILENT = {"n_backward": 3, "no_gradient": 0.0, "gamma_snr_upper": math.nan, "beta_snr_upper": math.nan}


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({}, ""),
        ({"no_gradient": 1.0}, "No gradient reaches"),
        ({"no_gradient": 0.99}, ""),
        ({"no_gradient": 1.0, "n_backward": 0}, ""),
        ({"no_gradient": 1.0, "n_backward": 1}, "No gradient reaches"),
        ({"gamma_snr_upper": NOISE * 0.999}, "mostly noise"),
        ({"gamma_snr_upper": NOISE}, ""),
        ({"gamma_snr_upper": 0.0}, "mostly noise"),
        ({"beta_snr_upper": NOISE * 0.999}, "mostly noise"),
        ({"gamma_snr_upper": NOISE * 0.5, "beta_snr_upper": NOISE * 1.01}, ""),
        ({"gamma_snr_upper": NOISE * 1.01, "beta_snr_upper": 0.0}, ""),
    ],
)
def test_gradients_that_say_nothing(cells: dict[str, Any], says: str) -> None:
    """Fails if the smaller of two ratios decides, one that is not known does, or a limit includes itself."""
    found = findings("gradient-no-signal", edited_rows({**SILENT, **cells}))
    assert [says in one.says for one in found] == ([True] if says else [])


@pytest.mark.parametrize(
    ("images", "calls", "says"),
    [
        (10, 4, "2 samples"),
        (11, 4, "3 samples"),
        (4, 4, "1 sample"),
        (7, 0, "7 samples"),
        (7, 1, "7 samples"),
    ],
)
def test_samples_of_a_typical_call(images: int, calls: int, says: str) -> None:
    """Fails if no call is divided by, or two calls are one."""
    assert _samples({"n_images": images, "n_calls": calls}) == says  # type: ignore[arg-type]


def test_a_few_first_passes_are_the_first() -> None:
    """Fails if as many passes as that are still the first ones, of a new network whose branches begin at 0."""
    from bnprobe.rules.gradient import _starts_at_zero

    new: Any = type("Evidence", (), {"is_new": True})
    old: Any = type("Evidence", (), {"is_new": False})
    row: Any = {"n_backward": FIRST_PASSES - 1}
    assert _starts_at_zero(row, new)
    assert not _starts_at_zero({**row, "n_backward": FIRST_PASSES}, new)
    assert not _starts_at_zero(row, old)


def test_where_gradients_are_not_finite() -> None:
    """Fails if a pass is counted for a channel, or a column that has none is named."""
    columns = {
        name: [0, 0, 0]
        for name in ("dy_nonfinite", "dx_nonfinite", "grad_gamma_nonfinite", "grad_beta_nonfinite")
    }
    channels = frame(**{**columns, "dx_nonfinite": [0, 5, 1], "grad_beta_nonfinite": [1, 0, 0]})
    assert _spoilt(channels).any(axis=1).tolist() == [True, True, True]
    assert _spoilt(channels).to_numpy().sum() == 3
    assert _where(channels) == "dL/dx in 2, dL/dβ in 1 of 3 channels"


@pytest.mark.parametrize(
    ("run", "because"),
    [
        (["a"], "no backward pass in 1 call, while other norms had up to 4."),
        (["a", "b"], "no backward pass in 1 call, nor in the previous norm (a), while"),
        (["a", "b", "c"], "nor in the 2 previous norms (b, a), while"),
        (["a", "b", "c", "d"], "nor in the 3 previous norms (c, b, a), while"),
        (["a", "b", "c", "d", "e"], "nor in the 4 previous norms (d, c, b, ...), while"),
    ],
)
def test_a_run_of_norms_that_no_pass_reaches(run: list[str], because: str) -> None:
    """Fails if the nearest three are not named in order, or more are not marked."""
    found = _not_reached(run, 1, 4)
    assert found.layer == run[-1]
    assert because in found.because
    assert found.remedy is not None
    assert found.remedy.edits == (Freeze(tuple(run), eval_mode=True),)


GAP = LIMITS.gradient_gap
BEYOND = math.nextafter(GAP, 1)


@pytest.mark.parametrize(
    ("gaps", "because"),
    [
        ({}, None),
        ({"gap_centre": GAP, "gap_map": GAP, "gap_weight": GAP}, None),
        ({"gap_centre": BEYOND, "gap_map": GAP}, f"gap_centre {GAP:.2g} (threshold {GAP:g})."),
        ({"gap_map": 0.5, "gap_weight": 0.25}, f"gap_map 0.5, gap_weight 0.25 (threshold {GAP:g})."),
        ({"gap_map": math.nan, "gap_weight": 0.25}, f"gap_weight 0.25 (threshold {GAP:g})."),
    ],
)
def test_identities_that_are_violated(gaps: dict[str, float], because: str | None) -> None:
    """Fails if a gap at the limit is beyond it, or one of several is not named."""
    row = {"gap_centre": 0.0, "gap_map": 0.0, "gap_weight": 0.0, **gaps}
    found = findings("identity-violated", edited_rows({"gap_centre": 0.0}, row))
    assert [(one.layer, one.because) for one in found] == ([("b", because)] if because else [])


@pytest.mark.parametrize(
    ("names", "cut", "told"),
    [
        ("zam", {"z", "a"}, ["a"]),
        ("zam", {"z", "m"}, ["z", "m"]),
        ("zam", {"a", "m"}, ["m"]),
        ("zam", set(), []),
    ],
)
def test_a_run_of_norms_is_one_of_execution(
    monkeypatch: pytest.MonkeyPatch, names: str, cut: set[str], told: list[str]
) -> None:
    """Fails if norms are sorted by name, so that two that follow one another are two runs, or the first is told."""
    monkeypatch.setattr(gradient, "unreached", lambda _: cut)
    monkeypatch.setattr(gradient, "kept_aside", lambda _: set())
    monkeypatch.setattr(gradient, "following_batches", lambda _: set())
    base = evidence(*map(healthy, names))
    for at, name in enumerate(names):
        base = edited(base, at=at, n_calls_learning=1, learns="both", n_backward=0 if name in cut else 3)
    assert [one.layer for one in gradient._cut_off(base)] == told


def test_the_next_norm_that_a_pass_reached_is_named() -> None:
    """Fails if the norm right after the one with NaN gradients is passed over, or one without a pass is named."""
    rows = {"n_backward": 3, "n_backward_nonfinite": 0, "n_backward_arising": 0}
    bad = {**rows, "n_backward_nonfinite": 3}
    (found,) = findings("gradient-not-finite", edited_rows(rows, bad, rows, rows))
    assert (found.layer, " c" in found.do) == ("b", True)
    (found,) = findings("gradient-not-finite", edited_rows(bad, {**rows, "n_backward": 0}, rows))
    assert (found.layer, " c" in found.do) == ("a", True)
