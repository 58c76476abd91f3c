"""The table of exemplars, and how pure they are against what chance gives."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.measures.exemplars import COLUMNS, chance, exemplars, purity


def by_counting(n_of_class: list[int], k: int) -> float:
    """The mean share of the most frequent class over every way to draw k samples."""
    labels = [label for label, n in enumerate(n_of_class) for _ in range(n)]
    shares = [max(draw.count(label) for label in draw) / k for draw in combinations(labels, k)]
    return float(np.mean(shares))


@pytest.mark.parametrize(
    ("n_of_class", "k"),
    [
        ([3, 3, 3], 3),
        ([1, 2, 6], 4),
        ([5, 5], 5),
        ([1, 1, 1, 1], 4),
        ([9], 3),
        ([2, 0, 7], 2),
        ([4, 3, 2], 1),
        ([3, 2], 5),
    ],
)
def test_chance_is_the_mean_over_all_draws(n_of_class, k):
    """Fails if samples are put back, the largest class is taken for the expected one, or a class without samples counts."""
    np.testing.assert_allclose(chance(np.array(n_of_class, float), k), by_counting(n_of_class, k), rtol=1e-12)


def test_chance_in_the_large():
    """Fails if coefficients overflow where there are many samples: the largest of 8 in 1,000 classes of 50."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 1000, size=(20_000, 8))
    drawn = np.mean([np.bincount(draw).max() for draw in draws]) / 8
    np.testing.assert_allclose(chance(np.full(1000, 50.0), 8), drawn, atol=2e-3)
    ten = np.mean([np.bincount(draw).max() for draw in rng.integers(0, 10, size=(20_000, 8))]) / 8
    np.testing.assert_allclose(chance(np.full(10, 1e6), 8), ten, atol=3e-3)
    assert np.isnan(chance(np.array([3.0]), 4))
    assert np.isnan(chance(np.zeros(0), 2))
    assert np.isnan(chance(np.array([3.0]), 0))


def test_purity():
    """Fails if the share is that of a label's number, or samples without a label count."""
    norm = nn.BatchNorm1d(1).eval()
    x, y = torch.arange(6.0)[:, None], torch.tensor([0, 1, 1, 2, 2, -1])
    record = bnprobe.record(norm, [(x, y)], exemplars=4)
    found = purity(record.layers[0], record.samples)
    # highest: 5 (none), 4, 3, 2 of classes 2, 2, 1; lowest: 0, 1, 2, 3 of classes 0, 1, 1, 2
    np.testing.assert_allclose(found, [[2 / 3], [1 / 2]])
    few = bnprobe.record(norm, [(x[4:], y[4:])], exemplars=4)
    assert np.isnan(purity(few.layers[0], few.samples)).all()


def test_columns():
    """Fails if a column of the contract goes, or an empty table has others."""
    norm = nn.BatchNorm1d(1).eval()
    full, empty = (exemplars(bnprobe.record(norm, [torch.randn(3, 1)], exemplars=k)) for k in (1, 0))
    contract = ["layer", "call", "channel", "side", "rank", "sample", "value", "label"]
    assert list(full.columns) == list(empty.columns) == [*contract, *list(COLUMNS)[8:]]
    assert len(empty) == 0
    assert set(full["side"]) == {"high", "low"}


def test_names_of_classes():
    """Fails if a class has the name of another, or a number beyond the names is an error."""
    from dataclasses import replace

    norm = nn.BatchNorm1d(1).eval()
    recording = bnprobe.record(norm, [(torch.arange(3.0)[:, None], torch.tensor([1, 0, 7]))], exemplars=3)
    named = replace(recording, samples=replace(recording.samples, classes=("cat", "dog")))
    assert exemplars(named)["label"].fillna("").tolist() == ["", "cat", "dog", "dog", "cat", ""]
    assert exemplars(recording)["label"].tolist() == [7, 0, 1, 1, 0, 7]


def test_saved_as_a_table(tmp_path):
    """Fails if tables are saved without the exemplars."""
    norm = nn.BatchNorm1d(1).eval()
    report = bnprobe.report(bnprobe.record(norm, [torch.randn(3, 1)], exemplars=2))
    assert "exemplars.csv" in [path.name for path in report.save_tables(tmp_path)]


def test_a_recording_without_samples_or_without_their_ranks_has_an_empty_table():
    """Fails if samples of which no norm keeps any, or ranks that hold nobody, end in an error."""
    from dataclasses import replace

    whole = bnprobe.record(nn.BatchNorm1d(1).eval(), [torch.randn(3, 1)], exemplars=1)
    (layer,) = whole.layers
    kept = layer.exemplars
    assert kept is not None
    nobody = type(kept)(kept.value * np.nan, np.full_like(kept.sample, -1), kept.position * np.nan)
    for half in (
        replace(whole, layers=(replace(layer, exemplars=None),)),
        replace(whole, layers=(replace(layer, exemplars=nobody),), samples=None),
    ):
        found = exemplars(half)
        assert len(found) == 0
        assert list(found.columns) == list(COLUMNS)
