"""One call of a norm: read before, finished after, by deriving where that is exact and by reading where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import oracles
from torch import Tensor

from bnprobe.probe.calls import observe_after
from probe.calls.one_call import BETA, GAMMA, KINDS, SCALE, C, N, before_of, formula, plan


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


def test_counts_are_turned_only_while_the_weights_stand(x: Tensor):
    """Fails if the output's counts are taken from the input's after gamma has moved off the first scale."""
    first = before_of(plan("stored"), x)
    moved = plan("stored", weight=GAMMA * -1.7, bias=BETA + 0.3)
    before = before_of(moved, x, reference=first.reference, keep_sample=False)
    y = formula("stored", x.numpy().copy(), (GAMMA * -1.7).numpy(), (BETA + 0.3).numpy())
    seen = observe_after([before], torch.tensor(y), "derived", True)
    expected = oracles.histogram(y, first.reference.beta, SCALE)
    np.testing.assert_array_equal(seen.post_counts, expected)


def test_input_is_read_before_the_layer_may_overwrite_it(x: Tensor):
    """Fails if something of the input is read again after an in-place norm has run."""
    original = x.clone()
    before = before_of(plan("stored"), x)
    x.copy_(torch.tensor(formula("stored", original.numpy().copy())))
    seen = observe_after([before], x, None, True)
    oracles.assert_same_moments(seen.before.reading.moments, oracles.channel_moments(original.numpy()))
    assert seen.output == "derived"
    assert replace(seen.before).sample is None
