"""Rules about gradients: what fires each one, and its nearest healthy neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import call_log, gradient, site, some_rows
from support import oracles

from bnprobe.measures import tables
from bnprobe.recording import About, LayerRecord, ProducerRecord, Recording
from bnprobe.rules import judge
from bnprobe.rules.edits import Freeze, Reinitialize, Remedy, SetGamma
from bnprobe.rules.gradient import _not_reached, _starts_at_zero
from bnprobe.stats import Moments
from rules.edited import edited, evidence, findings, healthy
from rules.firing import fired

ROWS = some_rows()
LEARNED = {"gamma": [0.5, -0.7, 1.2], "beta": [0.1, 0, -0.3]}
ONE_PASS = Moments(**oracles.moments(np.ones((1, 3))))
BREAKS, SILENT, VIOLATED = "gradient-breaks", "gradient-no-signal", "identity-violated"


def norm(layer: str = "a", dy: np.ndarray = ROWS, call: int = 0, **changes: Any) -> LayerRecord:
    """A norm whose backward passes are known; steady gradients, no violated identity."""
    return site(ROWS, layer, call=call, **LEARNED, gradient=gradient(dy, **changes))


def over_passes(signal: float, n: int, n_channels: int = 3) -> Moments:
    """Gradients over n passes with this mean and a standard deviation of 1 (divisor n - 1)."""
    noise = np.resize([1.0, -1.0], n)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return Moments(**oracles.moments((signal + noise)[:, None] * np.ones((1, n_channels))))


# gradient-breaks


def test_a_gradient_that_vanishes_on_its_way_back():
    """Fails if the direction is read forwards, the layers are exchanged, or the factor is upside down."""
    (row,) = fired(BREAKS, norm("first", ROWS / 100), norm("second")).itertuples()
    assert (row.severity, row.layer) == ("warning", "first")
    assert "vanishes" in row.says
    assert "at second" in row.because
    assert "a factor of 0.01 " in row.because


def test_a_gradient_that_explodes_on_its_way_back():
    """Fails if only one side is watched."""
    (row,) = fired(BREAKS, norm("first", ROWS * 100), norm("second")).itertuples()
    assert row.layer == "first"
    assert "explodes" in row.says
    assert "a factor of 1e+02 " in row.because


@pytest.mark.parametrize(("factor", "fires"), [(29.9, 0), (30.1, 1), (1 / 29.9, 0), (1 / 30.1, 1)])
def test_a_step_of_less_than_thirty_is_no_break(factor, fires):
    """Fails if the threshold moves, or is on energies instead of lengths."""
    assert len(fired(BREAKS, norm("first", ROWS * factor), norm("second"))) == fires


def test_neighbours_are_compared_and_not_ends():
    """Fails if a slow change over depth counts as a break, or each norm is compared with the last."""
    slow = [norm(f"n{i}", ROWS * 10.0**i) for i in range(6)]
    assert fired(BREAKS, *slow).empty
    jump = [*slow[:3], norm("high", ROWS * 1e6), norm("higher", ROWS * 1e7)]
    assert fired(BREAKS, *jump)["layer"].tolist() == ["n2"]


def test_norms_that_no_gradient_reached_are_stepped_over():
    """Fails if a norm that was never run backward breaks the chain, or a zero counts as vanished."""
    bare, dead = site(ROWS, "bare", **LEARNED), norm("dead", ROWS * 0)
    assert fired(BREAKS, norm("first"), bare, dead, norm("second")).empty
    found = fired(BREAKS, norm("first", ROWS * 100), bare, dead, norm("second"))
    assert found["layer"].tolist() == ["first"]


def test_a_break_names_the_call():
    """Fails if the second call of a norm is reported as the first."""
    found = fired(BREAKS, norm("bn", ROWS), norm("bn", ROWS * 100, call=1), norm("last"))
    assert found["call"].tolist() == [0, 1]


# gradient-no-signal


def test_a_break_names_the_call_of_the_following_norm():
    """Fails if both calls of one layer have one name in the sentence."""
    (row,) = fired(BREAKS, norm("shared", ROWS / 100), norm("shared", call=1)).itertuples()
    assert "at shared (call 2) and" in row.because


def test_a_norm_that_no_gradient_reaches():
    """Fails if a dead end is silent, or counted by its noise."""
    (row,) = fired(SILENT, norm("dead", ROWS * 0, n_passes=1), norm("fine")).itertuples()
    assert (row.severity, row.layer) == ("warning", "dead")
    assert "No gradient reaches" in row.says
    assert "1 backward pass" in row.because
    assert "1 backward passes" not in row.because


def test_one_channel_with_a_gradient_is_a_way():
    """Fails if any dead channel makes the layer a dead end."""
    dy = ROWS * 0
    dy[0, 1, 0] = 1e-6
    assert fired(SILENT, norm("a", dy)).empty


@pytest.mark.parametrize(("snr", "n", "fires"), [(0.0, 400, 1), (0.0, 250, 0), (0.0, 46, 0), (0.1, 400, 0)])
def test_gradients_that_are_noise(snr, n, fires):
    """Fails if the upper bound is not asked for, which noise of 250 passes leaves above 0.1, or noise is a warning: at the
    end of training it is expected."""
    passes = over_passes(snr, n)
    found = fired(SILENT, norm(n_passes=n, gamma=passes, beta=passes))
    assert len(found) == fires
    if fires:
        assert found["severity"][0] == "info"
        assert (
            "signal-to-noise ratio at most 0.084 over 400 backward passes of 5 samples" in found["because"][0]
        )


@pytest.mark.parametrize("loud", ["gamma", "beta"])
def test_a_signal_on_one_of_the_two_is_enough(loud):
    """Fails if a norm is called noise because of gamma, or of beta, alone."""
    passes = {"gamma": over_passes(0.0, 400), "beta": over_passes(0.0, 400), loud: over_passes(1.0, 400)}
    assert fired(SILENT, norm(n_passes=400, **passes)).empty


def test_frozen_vectors_are_not_called_noise():
    """Fails if NaN is less than the threshold: there is nothing to learn where nothing is learned."""
    assert fired(SILENT, norm(n_passes=8, gamma=None, beta=None, importance=None)).empty


def test_one_of_the_two_frozen():
    """Fails if the NaN of the frozen one hides the noise of the other."""
    assert len(fired(SILENT, norm(n_passes=400, gamma=None, beta=over_passes(0.0, 400)))) == 1


# gradient-not-finite


@pytest.mark.parametrize(("arising", "told"), [(0, ["b"]), (1, ["b", "a"]), (3, ["b", "a"])])
def test_gradients_that_break_in_a_norm_of_their_own_are_told_as_well(arising: int, told: list[str]):
    """Fails if a norm in which gradients become NaN, even in one pass, hides behind a later one that has them too."""
    passes = {"n_backward": 3, "n_backward_nonfinite": 3, "n_backward_scaled": 0}
    both = evidence(healthy("a"), healthy("b"))
    both = edited(edited(both, **passes, n_backward_arising=arising), at=1, **passes, n_backward_arising=0)
    assert [one.layer for one in findings("gradient-not-finite", both)] == told


# identity-violated


def producer(gap: float) -> ProducerRecord:
    return ProducerRecord(*[over_passes(5.0, 3)] * 3, np.array([0.0, gap, np.nan]))


@pytest.mark.parametrize("name", ["gap_centre", "gap_map", "gap_weight"])
@pytest.mark.parametrize(("gap", "fires"), [(0.0099, 0), (0.0101, 1)])
def test_a_violated_identity(name, gap, fires):
    """Fails if one of the three is not looked at, its name is lost, or rounding of half precision fires."""
    changes = {"producer": producer(gap)} if name == "gap_weight" else {name: np.array([0.0, gap, np.nan])}
    removes = 2 * (ROWS**2).sum(
        (0, 2)
    )  # twice what is left, as of no norm whose mean and variance are detached
    found = fired(VIOLATED, norm(energy=removes, **changes), norm("fine"))
    assert len(found) == fires
    if fires:
        assert (found["layer"][0], found["severity"][0]) == ("a", "info")
        assert f"{name} {gap:.2g}" in found["because"][0]


def test_only_what_is_violated_is_named():
    """Fails if a gap that is fine is listed with one that is not."""
    (row,) = fired(VIOLATED, norm(gap_centre=np.full(3, 0.5), producer=producer(1e-6))).itertuples()
    assert "gap_centre 0.5" in row.because
    assert "gap_weight" not in row.because


# All of them


def test_healthy_gradients_are_left_in_peace():
    """Fails if a rule about gradients fires on steady ones."""
    found = judge(tables(Recording(About("net"), (norm("a"), norm("b", ROWS * 2)))))
    assert not set(found["rule"]) & {BREAKS, SILENT, VIOLATED}


def test_a_recording_without_backward_passes_is_not_judged():
    """Fails if NaN or the 0 of n_backward is a finding."""
    bare = [site(ROWS, name, **LEARNED) for name in "ab"]
    for rule in (BREAKS, SILENT, VIOLATED):
        assert fired(rule, *bare).empty


@pytest.mark.parametrize(
    "changes",
    [
        {"dx": None, "gamma": None, "beta": None, "importance": None},
        {"dy": ROWS * np.nan, "energy": np.zeros(3)},
        {"gap_centre": np.full(3, np.nan), "producer": producer(np.nan)},
        {"n_passes": 8, "gamma": ONE_PASS, "beta": ONE_PASS},
    ],
    ids=["no gradients", "nothing finite", "no gaps", "no noise known"],
)
def test_no_rule_raises_on_what_is_not_there(changes):
    """Fails if a rule cannot stand NaN; warnings are errors here."""
    layers = [norm("a", **changes), norm("b"), norm("c", **changes)]
    found = judge(tables(Recording(About("net"), tuple(layers))))
    assert not set(found["rule"]) & {BREAKS, SILENT, VIOLATED}


def learning(layer: str, with_gradient: bool, call: int = 0, **circumstances: Any) -> LayerRecord:
    """A norm called in passes that compute gradients, which come by or do not."""
    way = {"gradient": gradient(ROWS)} if with_gradient else {}
    return site(
        ROWS,
        layer,
        call=call,
        **LEARNED,
        **way,
        call_log=call_log(**{"n_calls_learning": 3, **circumstances}),
    )


def test_norms_that_no_backward_pass_reaches_are_reported_once():
    """Fails if norms before a detach() are silent, reported one by one, or at the wrong end."""
    cut = [learning(name, False) for name in ("a", "b", "c")]
    (row,) = fired(SILENT, *cut, learning("d", True)).itertuples()
    assert (row.severity, row.layer) == ("warning", "c")
    assert "nor in the 2 previous norms (b, a)" in row.because
    assert "no backward pass in 3 calls" in row.because
    assert "['a', 'b', 'c']" in row.do
    found = fired(SILENT, learning("a", False), learning("b", True), learning("c", False))
    assert found["layer"].tolist() == ["a", "c"]


def test_norms_that_are_not_meant_to_learn_need_no_gradient():
    """Fails if a frozen norm, an evaluation, or a run without backward is called cut off."""
    frozen = learning("a", False, gamma_learns=False, beta_learns=False)
    evaluated = learning("b", False, n_calls_learning=0)
    assert fired(SILENT, frozen, evaluated, learning("c", True)).empty
    assert fired(SILENT, learning("a", False), learning("b", False)).empty


def test_one_use_with_a_gradient_is_enough():
    """Fails if a branch whose gradient is stopped on purpose hides that the norm learns by another."""
    assert fired(SILENT, learning("a", True), learning("a", False, call=1), learning("b", True)).empty


@pytest.mark.parametrize(("n", "new", "may_be"), [(7, True, True), (8, True, False), (7, False, False)])
def test_a_new_network_may_start_with_a_gradient_of_zero(n: int, new: bool, may_be: bool):
    """Fails if a branch that starts at 0 has more than seven passes to get a gradient, or a trained one has any."""
    start = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0, "n_batches_tracked": 0}
    found = evidence(healthy(**start) if new else healthy())
    assert found.is_new is new
    assert bool(_starts_at_zero(pd.Series({"n_backward": n}), found)) is may_be


NAN_PASSES = {
    "n_backward": 4,
    "n_backward_nonfinite": 3,
    "n_backward_scaled": 0,
    "n_backward_arising": 0,
    "n_nonfinite": 0,
    "constant_rows": 0.0,
}
ARRIVE = "NaN or infinite gradients arrive at this norm: they arise after it, on the way to the loss."
BECOME = "Gradients become NaN or infinite in this norm: those at its output are finite."
NO_COUNTS = dict.fromkeys(
    ("dy_nonfinite", "dx_nonfinite", "grad_gamma_nonfinite", "grad_beta_nonfinite"), 0.0
)


@pytest.mark.parametrize(
    ("row", "severity", "says", "because", "do"),
    [
        (
            {},
            "critical",
            ARRIVE,
            "in 3 of 4 backward passes: dL/dy in 1 of 3 channels.",
            "Look between it and the loss, for",
        ),
        (
            {"n_backward_arising": 1},
            "critical",
            BECOME,
            "in 1 of 4 backward passes, and arrive at it in 2 more: dL/dy in 1 of 3 channels.",
            "A root at a variance of exactly 0",
        ),
        (
            {"n_backward_arising": 3, "eps": 0.0, "constant_rows": 0.25},
            "critical",
            BECOME,
            "in 3 of 4 backward passes: dL/dy in 1 of 3 channels.",
            "Its eps is 0. The variance of 25% of its rows is 0. A root",
        ),
        (
            {"n_backward_scaled": 3},
            "info",
            ARRIVE[:-1] + ", under a loss scale too high for these passes.",
            "in 3 of 4 backward passes: dL/dy in 1 of 3 channels.",
            "Nothing: the scaler skips these steps",
        ),
        (
            {"n_backward_scaled": 2},
            "critical",
            ARRIVE,
            "in 3 of 4 backward passes: dL/dy in 1 of 3 channels.",
            "Look between it and the loss, for",
        ),
        (
            {"n_backward_scaled": 4, "n_backward_nonfinite": 4},
            "critical",
            ARRIVE,
            "in 4 of 4 backward passes: dL/dy in 1 of 3 channels.",
            "Look between it and the loss, for",
        ),
        (
            {"n_nonfinite": 1},
            "critical",
            ARRIVE,
            "in 3 of 4 backward passes: dL/dy in 1 of 3 channels. Values that are not finite entered norms as well; see "
            "values-not-finite.",
            "Look between it and the loss, for",
        ),
    ],
)
def test_what_is_said_of_gradients_that_are_not_finite(
    row: dict[str, Any], severity: str, says: str, because: str, do: str
) -> None:
    """Fails if passes are counted wrongly, a scaler that does its work is a fault, or the place to look is another."""
    cells = {**NO_COUNTS, "dy_nonfinite": [0.0, 2.0, 0.0]}
    (one,) = findings("gradient-not-finite", edited(evidence(), cells, **{**NAN_PASSES, **row}))
    assert (one.severity, one.says, one.because, one.channels) == (severity, says, because, (1,))
    assert one.do.startswith(do)


def test_the_last_norm_of_a_broken_gradient_is_told_with_those_before_it() -> None:
    """Fails if norms are counted from the wrong end, the sound norm after it is not named, or one without a pass is."""
    names = "abcde"
    base = evidence(*map(healthy, names))
    for i, bad in enumerate((3, 3, 3, 0, 0)):
        cells = {name: [float(bad)] * 2 + [0.0] for name in NO_COUNTS}
        given = {**NAN_PASSES, "n_backward_nonfinite": bad, "n_backward": 0 if i == 3 else 4}
        base = edited(base, cells, at=i, **given)
    (one,) = findings("gradient-not-finite", base)
    assert (one.layer, one.channels) == ("c", (0, 1))
    assert one.because == (
        "in 3 of 4 backward passes: dL/dy in 2, dL/dx in 2, dL/dγ in 2, dL/dβ in 2 of 3 channels; 2 previous norms received "
        "such gradients."
    )
    assert one.do.startswith("Look between it and e, whose gradients are finite, for")


@pytest.mark.parametrize(
    ("typical", "remedy"), [(0.5, Remedy((SetGamma("b"),))), (0.0, None), (np.nan, None)]
)
def test_a_break_may_be_the_scale_of_the_following_norm(typical: float, remedy: Remedy | None) -> None:
    """Fails if a scale that is not there is to be set, or that of the wrong norm."""
    both = edited(evidence(healthy("a"), healthy("b")), grad_out=100.0)
    both = edited(both, at=1, grad_out=1.0, gamma_abs_median=typical)
    (one,) = findings(BREAKS, both)
    assert (one.layer, one.remedy) == ("a", remedy)
    assert one.because == "its length is 1.00e+00 at b and 1.00e+02 here, a factor of 1e+02 (threshold 30)."
    assert ("The following norm's typical |γ| is 0.5" in one.do) is (remedy is not None)


def test_lengths_of_zero_are_no_neighbours() -> None:
    """Fails if a norm that got nothing at all, or next to nothing, is held against the others."""
    three = evidence(*map(healthy, "abc"))
    for i, length in enumerate((1.0, 0.0, 2.0)):
        three = edited(three, at=i, grad_out=length)
    assert findings(BREAKS, three) == []
    assert [one.layer for one in findings(BREAKS, edited(three, at=1, grad_out=0.01))] == ["a", "b"]


def test_a_norm_without_a_gradient_is_to_be_made_anew_as_a_whole() -> None:
    """Fails if not every channel is, or a gradient in some channels counts as none."""
    base = edited(evidence(), n_backward=1, no_gradient=1.0)
    (one,) = findings(SILENT, base)
    assert one.remedy == Remedy((Reinitialize("bn", (0, 1, 2)),))
    assert one.severity == "warning"
    assert findings(SILENT, edited(base, n_backward=0)) == []


@pytest.mark.parametrize(
    ("n_calls", "samples"), [(0, "10 samples"), (1, "10 samples"), (4, "2 samples"), (10, "1 sample")]
)
def test_noise_is_told_with_the_samples_of_a_call(n_calls: int, samples: str) -> None:
    """Fails if the samples of all calls are those of one."""
    row = {"n_backward": 9, "no_gradient": 0.0, "gamma_snr_upper": 0.05, "beta_snr_upper": 0.01}
    base = edited(evidence(), **row, n_images=10, n_calls=n_calls)
    (one,) = findings(SILENT, base)
    assert one.because == (
        f"signal-to-noise ratio at most 0.05 over 9 backward passes of {samples} (threshold 0.1)."
    )


@pytest.mark.parametrize(
    ("run", "before"),
    [
        (["a"], ""),
        (["a", "b"], ", nor in the previous norm (a)"),
        (["a", "b", "c"], ", nor in the 2 previous norms (b, a)"),
        (["a", "b", "c", "d"], ", nor in the 3 previous norms (c, b, a)"),
        (["a", "b", "c", "d", "e"], ", nor in the 4 previous norms (d, c, b, ...)"),
    ],
)
def test_a_run_of_norms_without_a_gradient(run: list[str], before: str) -> None:
    """Fails if names are in the wrong order, too many or too few, or the count includes the last."""
    one = _not_reached(run, 3, 7)
    assert one.layer == run[-1]
    assert one.because == f"no backward pass in 3 calls{before}, while other norms had up to 7."
    assert one.remedy == Remedy((Freeze(tuple(run), eval_mode=True),))
