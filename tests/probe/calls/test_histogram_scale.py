"""Where the values of a site are counted: by its running statistics, or by its first batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import oracles
from torch import Tensor

from bnprobe.probe.calls import observe_after
from probe.calls.one_call import BETA, EPS, MEAN, VAR, N, P, before_of, formula, plan


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
