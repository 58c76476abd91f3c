"""One call, condensed: the map of each kind against the formula from its paper, and how a misfit is met."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support import oracles
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.calls import InputReading, formula_check, observe_after, observe_before, vectors_of

N, C, P, EPS = 2, 6, 35, 0.05
"""A large eps, so that leaving it out shows."""

GAMMA = torch.tensor([1.5, -0.7, 0.0, 0.2, 3.0, -1.0], dtype=torch.float64)
SCALE = np.where(GAMMA.numpy() == 0, 1, np.abs(GAMMA.numpy()))
BETA = torch.tensor([0.3, -1.0, 0.7, 0.0, -0.2, 2.0], dtype=torch.float64)
MEAN = torch.tensor([0.0, 4.0, -1.0, 0.5, 9.0, 1.0], dtype=torch.float64)
VAR = torch.tensor([1.0, 0.3, 2.0, 0.0, 5.0, 0.1], dtype=torch.float64)


def plan(kind: str, **changes: Any) -> NormLayer:
    kinds: dict[str, dict[str, Any]] = {
        "batch": {"pools": "batch"},
        "stored": {"pools": "batch", "running_mean": MEAN, "running_var": VAR, "uses_running": True},
        "instance": {"pools": "instance"},
        "group": {"pools": "group", "n_groups": 2},
        "layer": {"pools": "channels"},
        "rms": {"pools": "channels", "centred": False},
        "batch without the mean": {"pools": "batch", "centred": False},
    }
    named = {"kind": kind, "n_channels": C, "eps": EPS, "weight": GAMMA, "bias": BETA}
    return NormLayer(**{**named, **kinds[kind], **changes})


LEARNT_GAMMA, LEARNT_BETA = GAMMA.numpy(), BETA.numpy()
KINDS = ("batch", "stored", "instance", "group", "layer", "rms")


def formula(kind: str, x: np.ndarray, gamma: Any = LEARNT_GAMMA, beta: Any = LEARNT_BETA) -> np.ndarray:
    match kind:
        case "batch":
            return oracles.batch_norm(x, gamma, beta, EPS)
        case "stored":
            return oracles.stored_norm(x, MEAN.numpy(), VAR.numpy(), gamma, beta, EPS)
        case "instance":
            return oracles.group_norm(x, C, gamma, beta, EPS)
        case "group":
            return oracles.group_norm(x, 2, gamma, beta, EPS)
        case "layer":
            return oracles.layer_norm(x, gamma, beta, EPS)
    return oracles.rms_norm(x, gamma, beta, EPS)


@pytest.fixture
def x(rng: np.random.Generator) -> Tensor:
    rows = rng.gamma(0.7, size=(N, C, P)) * (1 + rng.gamma(2.0, size=(N, 1, 1)))
    return torch.tensor(rows * np.array([1, 10, 0.1, 2, 1, 5])[:, None] + np.arange(C)[:, None])


def before_of(plan: NormLayer, x: Tensor, **changes: Any) -> InputReading:
    named: dict[str, Any] = {
        "plan": plan,
        "vectors": vectors_of(plan),
        "x": x,
        "training": False,
        "memory": vectors_of(plan),
        "reference": None,
        "histograms": True,
        "keep_sample": True,
    }
    return observe_before(**{**named, **changes})


@pytest.mark.parametrize("vectors", [True, False], ids=["with vectors", "without"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_expected_is_the_formula(kind: str, vectors: bool, x: Tensor):
    """Fails if eps, a divisor, a pooling axis or a missing vector is not as in the paper of the kind."""
    own = plan(kind) if vectors else plan(kind, weight=None, bias=None)
    before = before_of(own, x)
    expected = formula(kind, x.numpy().copy(), *((GAMMA.numpy(), BETA.numpy()) if vectors else (None, None)))
    np.testing.assert_allclose(formula_check.expected_output(before, x), expected, rtol=1e-10, atol=1e-10)
    assert (before.map is None) == (kind in ("layer", "rms"))


def test_a_norm_that_does_not_centre_pools_the_mean_square(x: Tensor):
    """Fails if the variance is taken where the norm divides by the root mean square."""
    before = before_of(plan("batch without the mean"), x)
    rows = x.numpy()
    scale = GAMMA.numpy() / np.sqrt((rows**2).mean((0, 2)) + EPS)
    expected = rows * scale[:, None] + BETA.numpy()[:, None]
    np.testing.assert_allclose(formula_check.expected_output(before, x), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_finished_by_deriving_where_that_is_exact(kind: str, x: Tensor):
    """Fails if a map that varies inside a row is used for deriving, or a fitting one is not."""
    y = torch.tensor(formula(kind, x.numpy().copy()))
    seen = observe_after([before_of(plan(kind), x)], y, None, True)
    assert seen.output == ("read" if kind in ("layer", "rms") else "derived")
    assert seen.mismatch < 1e-12
    oracles.assert_same_moments(seen.post, oracles.channel_moments(y.numpy()))
    np.testing.assert_array_equal(seen.n_positive, oracles.n_positive(y.numpy()))
    np.testing.assert_array_equal(seen.post_counts, oracles.histogram(y.numpy(), BETA.numpy(), SCALE))
    assert seen.n_images == N
    assert seen.before.sample is None


@pytest.mark.parametrize("kind", ["batch", "stored", "instance", "group"])
def test_a_misfit_is_read(kind: str, x: Tensor):
    """Fails if the output of another formula (here: clipped below) is derived all the same."""
    y = torch.tensor(formula(kind, x.numpy().copy())).clamp(min=0)
    seen = observe_after([before_of(plan(kind), x)], y, None, True)
    assert seen.output == "read"
    oracles.assert_same_moments(seen.post, oracles.channel_moments(y.numpy()))
    np.testing.assert_array_equal(seen.n_positive, oracles.n_positive(y.numpy()))


def test_a_misfit_of_one_in_a_thousand_is_seen(x: Tensor):
    """Fails if the tolerance of float32 is so wide that another eps passes."""
    y = torch.tensor(formula("batch", x.numpy().copy())).float()
    assert observe_after([before_of(plan("batch"), x.float())], y, None, True).output == "derived"
    assert observe_after([before_of(plan("batch"), x.float())], y * 1.001, None, True).output == "read"


def test_the_plan_that_fits_is_taken(x: Tensor):
    """Fails if the first plan is believed without comparing, or the order of trying decides."""
    tries = [before_of(plan(kind), x) for kind in ("stored", "group", "batch")]
    for kind in ("stored", "group", "batch"):
        seen = observe_after(tries, torch.tensor(formula(kind, x.numpy().copy())), None, True)
        assert seen.before.plan.kind == kind
        assert seen.output == "derived"


def test_when_no_plan_fits_the_best_by_its_class_is_kept(x: Tensor):
    """Fails if, with an output of no known formula, the plan that lies nearest by chance is reported."""
    tries = [before_of(plan(kind), x) for kind in ("stored", "batch")]
    near_batch = torch.tensor(formula("batch", x.numpy().copy())) + 0.1
    seen = observe_after(tries, near_batch, None, True)
    assert (seen.output, seen.before.plan.kind) == ("read", "stored")


@pytest.mark.parametrize("y", [None, "text", torch.ones(4), torch.ones(N, C, P, dtype=torch.int64)], ids=type)
@pytest.mark.parametrize("kind", ["stored", "batch"])
def test_an_output_that_cannot_be_compared_is_derived(kind: str, y: object, x: Tensor):
    """Fails if a norm that hands on something else than a tensor breaks the pass, or is reported as checked."""
    seen = observe_after([before_of(plan(kind), x)], y, None, True)
    assert seen.output == "derived"
    assert not seen.mismatch < np.inf
    oracles.assert_same_moments(seen.post, oracles.channel_moments(formula(kind, x.numpy().copy())))


def test_an_output_that_can_neither_be_derived_nor_read_stays_empty(x: Tensor):
    """Fails if the input's numbers are shown for an output that nobody saw."""
    seen = observe_after([before_of(plan("layer"), x)], None, None, True)
    assert seen.output == "read"
    np.testing.assert_array_equal(seen.post.n, np.zeros(C))
    assert seen.post_counts is None


def test_what_is_settled_is_not_compared_again(x: Tensor):
    """Fails if every call pays for the check of the first."""
    y = torch.tensor(formula("batch", x.numpy().copy()))
    first = before_of(plan("batch"), x)
    later = before_of(plan("batch"), x, reference=first.reference, keep_sample=False)
    assert later.sample is None
    seen = observe_after([later], y, "derived", True)
    assert np.isnan(seen.mismatch)
    read = observe_after([later], y, "read", True)
    oracles.assert_same_moments(read.post, {name: getattr(seen.post, name) for name in oracles.FIELDS})


def test_only_a_part_of_a_large_first_batch_is_compared(x: Tensor, monkeypatch: pytest.MonkeyPatch):
    """Fails if the copy for the check grows with the batch; samples after the first may differ unseen."""
    monkeypatch.setattr(formula_check, "CHECKED_VALUES", 1)
    before = before_of(plan("batch"), x)
    assert before.sample.shape == (1, C, P)
    assert before.sample.data_ptr() != x.data_ptr()
    y = torch.tensor(formula("batch", x.numpy().copy()))
    y[1] += 1
    assert observe_after([before], y, None, True).mismatch < 1e-12
    y[0] += 1
    assert observe_after([before], y, None, True).mismatch > 0.01


def test_data_far_from_zero_do_not_look_like_a_misfit():
    """Fails if the rounding of a float32 input at 1e4 is taken for another formula."""
    x = torch.randn(N, C, P) + 1e4
    layer = torch.nn.BatchNorm1d(C).train()
    own = NormLayer("batch_norm", "batch", C, layer.eps, weight=layer.weight, bias=layer.bias)
    assert observe_after([before_of(own, x)], layer(x), None, True).output == "derived"


def test_reference_is_the_stored_statistics_or_the_first_batch(x: Tensor):
    """Fails if counts of two recordings of one checkpoint would stand on different scales."""
    stored = before_of(plan("stored"), x).reference
    np.testing.assert_array_equal(stored.centre, MEAN)
    np.testing.assert_allclose(stored.scale, np.sqrt(VAR.numpy() + EPS))
    batch = before_of(plan("batch"), x)
    np.testing.assert_allclose(batch.reference.centre, x.numpy().mean((0, 2)))
    np.testing.assert_allclose(batch.reference.scale, np.sqrt(x.numpy().var((0, 2)) + EPS))
    other = x * 3 + 1
    later = before_of(plan("batch"), other, reference=batch.reference)
    assert later.reference is batch.reference
    centre, scale = batch.reference.centre, batch.reference.scale
    np.testing.assert_array_equal(later.pre_counts, oracles.histogram(other.numpy(), centre, scale))
    np.testing.assert_array_equal(later.reading.images.origin, centre)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -5.0])
def test_poisoned_statistics_get_a_usable_scale(x: Tensor, poison: float):
    """Fails if one NaN in running_var makes every count of the channel NaN, or each merge a sheet more."""
    var = VAR.clone()
    var[1] = poison
    before = before_of(plan("stored", running_var=var), x)
    assert (before.reference.centre[1], before.reference.scale[1]) == (0.0, 1.0)
    assert before.pre_counts[1].sum() == N * P
    y = torch.tensor(formula("stored", x.numpy().copy()))
    y[:, 1] = torch.nan if poison != torch.inf else BETA[1]
    seen = observe_after([before], y, None, True)
    expected = oracles.channel_moments(y.numpy())
    np.testing.assert_array_equal(seen.post.n, expected["n"])
    np.testing.assert_array_equal(seen.post_nonfinite, oracles.n_nonfinite(y.numpy()))


def test_counts_are_turned_only_while_the_weights_stand(x: Tensor):
    """Fails if the output's counts are taken from the input's after gamma has moved off the first scale."""
    first = before_of(plan("stored"), x)
    moved = plan("stored", weight=GAMMA * -1.7, bias=BETA + 0.3)
    before = before_of(moved, x, reference=first.reference, keep_sample=False)
    y = formula("stored", x.numpy().copy(), (GAMMA * -1.7).numpy(), (BETA + 0.3).numpy())
    seen = observe_after([before], torch.tensor(y), "derived", True)
    expected = oracles.histogram(y, first.reference.beta, SCALE)
    np.testing.assert_array_equal(seen.post_counts, expected)


def test_vectors_are_copies_with_the_plans_offset():
    """Fails if a record shares memory with the model, or 1 + w is recorded as w."""
    weight = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    own = NormLayer("k", "batch", 4, 0.0, weight=weight, weight_offset=1.0)
    vectors = vectors_of(own)
    weight += 5
    assert vectors.gamma.tolist() == [1, 2, 3, 4]
    assert vectors.gamma.dtype == np.float64
    assert vectors.beta is None


def test_input_is_read_before_the_layer_may_overwrite_it(x: Tensor):
    """Fails if something of the input is read again after an in-place norm has run."""
    original = x.clone()
    before = before_of(plan("stored"), x)
    x.copy_(torch.tensor(formula("stored", original.numpy().copy())))
    seen = observe_after([before], x, None, True)
    oracles.assert_same_moments(seen.before.reading.moments, oracles.channel_moments(original.numpy()))
    assert seen.output == "derived"
    assert replace(seen.before).sample is None
