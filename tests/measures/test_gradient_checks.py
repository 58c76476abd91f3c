"""The identities of gradients: the largest gap of a layer, and nothing where there was nothing to check."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures.gradient_checks import COLUMNS, layer_columns
from bnprobe.recording import LayerRecord, ProducerRecord
from bnprobe.stats import Moments
from measures.sites import gradient, site, some_rows

ROWS = some_rows(6)


def record(**changes: object) -> LayerRecord:
    return site(ROWS, gamma=1, beta=0, gradient=gradient(ROWS, **changes))


def test_gaps_are_the_largest_that_there_are():
    """Fails if a mean hides one violated channel, or a channel without the identity makes the layer NaN."""
    weights = ProducerRecord(*[Moments.empty(3)] * 3, np.array([0, 1e-7, math.nan]))
    found = layer_columns(
        record(gap_centre=np.array([1e-9, math.nan, 0.2]), gap_map=np.full(3, math.nan), producer=weights)
    )
    assert found["gap_centre"] == pytest.approx(0.2)
    assert math.isnan(found["gap_map"])
    assert found["gap_weight"] == pytest.approx(1e-7)


@pytest.mark.parametrize(
    "gradients", [None, replace(record().gradient, n_passes=0)], ids=["none", "no passes"]
)
def test_what_was_not_checked_is_nan(gradients):
    """Fails if an identity that nobody checked is said to hold."""
    found = layer_columns(replace(record(), gradient=gradients))
    assert list(found) == [column.name for column in COLUMNS]
    assert all(math.isnan(value) for value in found.values())
    assert math.isnan(layer_columns(record())["gap_weight"]), "without weights before the norm"
