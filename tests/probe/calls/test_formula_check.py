"""Whether a plan says what the layer does: the expected output against the real one, and what is done where they differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import oracles
from support.models import BY_NAME, BatchNormAct2d
from support.runs import recorded
from torch import Tensor, nn

from bnprobe.norms import NormLayer
from bnprobe.probe.calls import formula_check, observe_after
from probe.calls.one_call import BETA, GAMMA, KINDS, C, N, P, before_of, formula, plan


def test_formula_is_checked_and_a_misfit_is_said():
    """Fails if the first call is not compared: a fused activation would be reported as the norm's output."""
    plain, fused = BY_NAME["subclass"], BY_NAME["fused activation"]
    honest = recorded(plain.model(), *plain.batches()).layers[0]
    assert honest.mismatch < 1e-9
    clipped = recorded(fused.model(), *fused.batches()).layers[0]
    assert clipped.mismatch > 0.01
    assert clipped.post.low.min() == 0


def test_fused_activation_does_not_change_what_normalized():
    """Fails if, where no plan fits, the nearest is taken: clipped outputs lie nearer to the batch's map.

    Stored statistics 0 and 1, values from -10 to 1: ReLU takes away up to 10, the batch's map differs by 3.
    """
    model = nn.Sequential(BatchNormAct2d(3)).eval()
    x = 1 - torch.linspace(0, 11, 2 * 3 * 35).reshape(2, 3, 5, 7) ** 1.0
    record = recorded(model, x).layers[0]
    assert (record.output, record.normalized_by) == ("read", "running")


@pytest.mark.parametrize("vectors", [True, False], ids=["with vectors", "without"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_expected_is_the_formula(kind: str, vectors: bool, x: Tensor):
    """Fails if eps, a divisor, a pooling axis or a missing vector is not as in the paper of the kind."""
    own = plan(kind) if vectors else plan(kind, weight=None, bias=None)
    before = before_of(own, x)
    expected = formula(kind, x.numpy().copy(), *((GAMMA.numpy(), BETA.numpy()) if vectors else (None, None)))
    np.testing.assert_allclose(formula_check.expected_output(before, x), expected, rtol=1e-10, atol=1e-10)
    assert (before.map is None) == (kind in ("layer", "rms"))


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


@pytest.mark.parametrize(("mean", "output"), [(3e3, "derived"), (3e4, "read")])
def test_data_far_from_zero_do_not_look_like_a_misfit(mean: float, output: str):
    """Fails if the rounding of a float32 input far from 0 is taken for another formula, or if the output is derived where
    its digits are rounding."""
    x = torch.randn(N, C, P) + mean
    layer = torch.nn.BatchNorm1d(C).train()
    own = NormLayer("batch_norm", "batch", C, layer.eps, weight=layer.weight, bias=layer.bias)
    seen = observe_after([before_of(own, x)], layer(x), None, True)
    assert (seen.output, seen.check.fits) == (output, True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_do_not_count(bad: float, x: Tensor):
    """Fails if one broken value hides a misfit of the others, by its size or by being compared itself."""
    x, y = x.clone(), torch.tensor(formula("batch", x.numpy().copy()))
    whole = formula_check.mismatch_of(before_of(plan("batch"), x), 1.01 * y)
    y[0, 0, 0] = bad
    before = before_of(plan("batch"), x)
    assert formula_check.mismatch_of(before, y) < 1e-12
    assert formula_check.mismatch_of(before, 1.01 * y) == pytest.approx(whole, rel=0.2)
    assert formula_check.mismatch_of(before, torch.full_like(y, bad)) == 0.0
