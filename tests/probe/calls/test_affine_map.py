"""The affine map that a norm is at one call."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bnprobe.probe.calls import formula_check
from probe.calls.one_call import BETA, EPS, GAMMA, before_of, plan


def test_a_norm_that_does_not_centre_pools_the_mean_square(x: Tensor):
    """Fails if the variance is taken where the norm divides by the root mean square."""
    before = before_of(plan("batch without the mean"), x)
    rows = x.numpy()
    scale = GAMMA.numpy() / np.sqrt((rows**2).mean((0, 2)) + EPS)
    expected = rows * scale[:, None] + BETA.numpy()[:, None]
    np.testing.assert_allclose(formula_check.expected_output(before, x), expected, rtol=1e-10)
