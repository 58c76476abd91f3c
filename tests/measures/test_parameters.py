"""What the layer learned and stored, as it stands."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.measures import parameters
from measures.sites import site, some_rows


def test_vectors_stand_as_they_are():
    """Fails if two of the four vectors are swapped, or a channel's value moves to another."""
    vectors = {
        name: np.arange(3.0) + i * 10
        for i, name in enumerate(("gamma", "beta", "running_mean", "running_var"))
    }
    found = parameters.channel_columns(site(some_rows(), **vectors))
    for name, values in vectors.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_what_a_layer_does_not_have_is_nan_and_not_one():
    """Fails if a norm without affine parameters is shown with gamma 1 and beta 0, as if it had learned them."""
    found = parameters.channel_columns(site(some_rows(), gamma=2))
    np.testing.assert_array_equal(found["gamma"], 2)
    for name in ("beta", "running_mean", "running_var"):
        assert found[name].shape == (3,)
        assert np.isnan(found[name]).all(), name
    assert all(math.isnan(v) for v in parameters.layer_columns(site(some_rows())).values())


def test_summary_of_the_learned_vectors():
    """Fails if the scale's typical size depends on its signs, or shares count zeros as negative."""
    found = parameters.layer_columns(
        site(some_rows(n_channels=5), gamma=[-3, -1, 0, 2, 4], beta=[-1, -1, 0, 1, -1])
    )
    assert found["gamma_abs_median"] == pytest.approx(2)
    assert found["gamma_negative"] == pytest.approx(0.4)
    assert found["beta_negative"] == pytest.approx(0.6)
