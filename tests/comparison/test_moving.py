"""What the page of a comparison carries for its moving part."""

from __future__ import annotations

import json

import numpy as np
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.comparison.page.moving import data_of

ROWS = some_rows(40, 12, 2)


def compared(b_rows, order=None) -> bnprobe.Comparison:
    """Two sides; the channels of the second in another order and with numbers a millionth larger, if one is given."""
    rng = np.random.default_rng(0)
    gamma, beta = rng.uniform(0.2, 1.5, 12), rng.normal(size=12)
    # the same numbers to the last bit would be channels that were put into another order, not another training
    larger = 1.0 if order is None else 1 + 1e-6
    order = np.arange(12) if order is None else order
    a = recording(site(ROWS, "bn", gamma=gamma, beta=beta, **memory_of(ROWS)))
    memory = {name: values[order] * larger for name, values in memory_of(ROWS).items()}
    b = recording(
        site(b_rows[:, order], "bn", gamma=gamma[order] * larger, beta=beta[order] * larger, **memory)
    )
    return bnprobe.compare(a, b)


def carried(comparison: bnprobe.Comparison) -> dict:
    return json.loads(data_of(comparison._pairs, comparison._tables, comparison.findings).manifest)


def test_both_sides_have_the_same_colors():
    """Fails if A and B are painted on scales of their own, so that equal colors are other values."""
    manifest = carried(compared(ROWS * 3))
    for a, b, _ in manifest["sides"].values():
        if a and b:
            assert {**manifest["paints"][a], "label": ""} == {**manifest["paints"][b], "label": ""}
            assert manifest["paints"][a]["scale"] in ("share", "names") or manifest["paints"][a]["limits"]


def test_the_largest_difference_is_shown_first():
    """Fails if the map of two recordings that differ in their inputs begins with γ, which is the same."""
    assert carried(compared(ROWS + 2))["first"] == "pre_shift"
    assert carried(compared(ROWS))["sides"]["gamma"][:2] == ["gamma_a", "gamma_b"]


def test_sides_trained_apart_are_compared_in_the_order_of_size():
    """Fails if channel 6 of one is held against channel 6 of the other, which learned something else."""
    comparison = compared(ROWS, np.random.default_rng(1).permutation(12))
    assert comparison._tables.apart
    manifest = carried(comparison)
    assert manifest["apart"]
    for name in ("gamma", "running_var"):
        words = manifest["paints"][manifest["sides"][name][2]]["label"]
        assert words.endswith("channels sorted on each side")
    blobs = dict(data_of(comparison._pairs, comparison._tables, comparison.findings).blobs)
    from report.test_browser_data import unpacked

    # the same values in another order: sorted, nothing differs
    np.testing.assert_allclose(unpacked(blobs["column-affine_ratio"]), 1, rtol=1e-3)
    np.testing.assert_allclose(unpacked(blobs["column-running_shift"]), 0, atol=1e-5)
