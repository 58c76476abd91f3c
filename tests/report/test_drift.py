"""Drift against a reference: by hand, at every look, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from measures.sites import recording, site
from scipy import stats
from torch import nn

import bnprobe
from bnprobe.measures.drift import COLUMNS
from bnprobe.report.drift import Drift


def images(rng: np.random.Generator, n: int, mean: float = 0.0) -> np.ndarray:
    """Images (n, 3, 4) whose positions are correlated."""
    return mean + rng.normal(size=(n, 3, 1)) + 0.5 * rng.normal(size=(n, 3, 4))


def drift_of(now: np.ndarray, reference: np.ndarray, alpha: float = 0.01) -> Drift:
    return bnprobe.report(recording(site(now))).drift(recording(site(reference)), alpha)


def test_the_columns_by_hand(rng):
    """Fails if positions are counted for samples, the reference's noise is left out, or the bound takes another alpha."""
    now, reference = images(rng, 90) + np.array([0, 1.5, 0])[:, None], images(rng, 400)
    found = drift_of(now, reference).channels
    assert found["drifted"].tolist() == [False, True, False]
    for c in range(3):
        row = found.iloc[c]
        a, b = now[:, c].mean(1), reference[:, c].mean(1)
        sigma = reference[:, c].std()
        square = a.var(ddof=1) / 90 + b.var(ddof=1) / 400
        m = b.var(ddof=1) / square
        degrees = square**2 / ((a.var(ddof=1) / 90) ** 2 / 89 + (b.var(ddof=1) / 400) ** 2 / 399)
        limit = math.sqrt((m + 100) / m * math.log((m + 100) / (100 * (0.01 / 3) ** 2)))
        limit = stats.t.isf(stats.norm.sf(limit), degrees) * math.sqrt(square) / sigma
        assert row["drift"] == pytest.approx((a.mean() - b.mean()) / sigma)
        assert row["drift_se"] == pytest.approx(math.sqrt(square) / sigma)
        assert row["drift_bound"] == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize("by", [0.0, 0.3, 0.6])
def test_a_channel_has_drifted_exactly_where_its_bound_is_passed(rng, by):
    """Fails if q and the bound, two ways of saying one thing, disagree: also where several channels drift."""
    found = drift_of(images(rng, 150, by), images(rng, 300)).channels
    np.testing.assert_array_equal(found["drift"].abs() > found["drift_bound"], found["drifted"])
    np.testing.assert_array_equal(found["drift_q"] <= 0.01, found["drifted"])


def test_tables_words_and_columns_go_together(rng):
    """Fails if a column has no meaning, a layer's row counts other channels, or the answer says otherwise than tables."""
    drift = drift_of(images(rng, 90) + np.array([0, 1.5, 0])[:, None], images(rng, 400))
    for table, columns in (("layers", drift.layers), ("channels", drift.channels)):
        assert list(columns) == [c.name for c in COLUMNS if c.table in (table, "both")]
        for name in columns:
            assert drift.explain(name).startswith(f"{name}: ")
    row = drift.layers.iloc[0]
    assert (row["n_images"], row["n_reference"], row["n_drifted"]) == (90, 400, 1)
    assert row["drift_rms"] == pytest.approx(math.sqrt((drift.channels["drift"] ** 2).mean()))
    assert row["drift_noise"] == pytest.approx(math.sqrt((drift.channels["drift_se"] ** 2).mean()))
    assert drift.drifted
    assert "Inputs have drifted at 1 of 1 norm" in drift.answer
    assert "channel 1)" in drift.answer
    assert repr(drift) == "Drift(1 of 3 channels drifted, alpha 0.01)"
    calm = drift_of(images(rng, 90), images(rng, 400))
    assert not calm.drifted
    assert calm.answer.startswith("No drift beyond sampling error (90 samples against 400 samples).")


def test_other_weights_and_norms_of_one_side_are_said(rng):
    """Fails if a drift that new weights made is blamed on the data, or a norm is left out silently."""
    now, reference = site(images(rng, 60)), site(images(rng, 60), gamma=2.0)
    other = replace(now, layer="other")
    said = bnprobe.report(recording(now, other)).drift(recording(reference)).answer
    assert "The weights of the two differ" in said
    assert "left out: other" in said
    assert "weights" not in bnprobe.report(recording(now)).drift(recording(now)).answer


def test_a_channel_that_does_not_vary_is_not_tested(rng):
    """Fails if a constant channel is called drifted, widens the family, or a warning escapes."""
    now, reference = images(rng, 80), images(rng, 80)
    now[:, 1], reference[:, 1] = 1.0, 1.0
    found = drift_of(now, reference).channels
    assert not found["drifted"].any()
    assert found["drift_q"].isna().tolist() == [False, True, False]
    two = drift_of(now[:, [0, 2]], reference[:, [0, 2]]).channels
    np.testing.assert_allclose(found["drift_bound"][[0, 2]], two["drift_bound"])


def test_what_is_refused(rng, tmp_path):
    """Fails if a mistake becomes a table of nothing, or the message does not say what to do."""
    now = recording(site(images(rng, 20)))
    report = bnprobe.report(now)
    for alpha in (0.0, 1.0, -1, float("nan")):
        with pytest.raises(bnprobe.BnprobeError, match="between 0 and 1, such as"):
            report.drift(now, alpha)
    with pytest.raises(bnprobe.CannotCompare, match="Record the reference with the same model"):
        report.drift(recording(replace(site(images(rng, 20)), layer="elsewhere")))
    with pytest.raises(bnprobe.CannotCompare, match="Record the reference with the same model"):
        report.drift(recording(site(images(rng, 20)[:, :2])))
    weights = bnprobe.check(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).state_dict())
    with pytest.raises(bnprobe.NothingRecorded, match=r"the reference has no samples.*Run batches"):
        report.drift(weights)
    with pytest.raises(
        bnprobe.BnprobeError, match=r"the reference needs a Probe, a Recording or the path.*got int"
    ):
        report.drift(3)
    path = now.save(tmp_path / "reference.bnp")
    assert not report.drift(path).drifted


def test_a_comparison_says_the_same_and_a_growing_recording_is_followed():
    """Fails if the sides are mixed up: B is what may have drifted from A."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).eval()
    reference = bnprobe.record(model, list(torch.randn(240, 3, 5, 5).split(20)))
    found = []
    with bnprobe.attach(model) as probe:
        for step in range(8):
            model(torch.randn(30, 3, 5, 5) + 0.25 * (step >= 3))
            found.append(bnprobe.report(probe).drift(reference))
    assert not any(drift.drifted for drift in found[:3])
    assert found[-1].drifted
    again = bnprobe.compare(reference, found[-1].now).drift()
    assert again.channels.equals(found[-1].channels)
