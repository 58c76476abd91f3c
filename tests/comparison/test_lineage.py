"""Whether two networks were trained apart: correlations of channels, and how many channels it takes to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from measures.sites import recording, site, some_rows

from bnprobe.comparison import pairs
from bnprobe.comparison.lineage import _log, trained_apart
from bnprobe.comparison.pairs import Pair
from bnprobe.recording.neighbours import Folded, Neighbours


def gammas(n_channels: int, r: float) -> Sequence[Pair]:
    """One norm on both sides, whose γ have exactly this correlation across channels; nothing else varies."""
    drawn = np.random.default_rng(0).normal(size=(n_channels, 2))
    _, x, y = np.linalg.qr(np.column_stack([np.ones(n_channels), drawn]))[0].T
    both = 1 + 0.1 * x, 1 + 0.1 * (r * x + np.sqrt(1 - r**2) * y)
    assert np.corrcoef(*both)[0, 1] == pytest.approx(r, abs=1e-9)
    rows = some_rows(n_channels=n_channels)
    return pairs(*(recording(site(rows, gamma=gamma)) for gamma in both)).common


@pytest.mark.parametrize(
    ("n_channels", "r", "apart"),
    [
        (64, 0.0, True),
        (64, 0.2, False),
        (16, 0.0, False),
        (16, -0.3, False),
        (16, -0.4, True),
    ],
)
def test_few_channels_do_not_tell_trainings_apart(n_channels: int, r: float, apart: bool):
    """Fails if a correlation that chance may have made small counts as small: z + 3 / sqrt(n - 3) must stay below 0.5."""
    assert (np.arctanh(r) + 3 / np.sqrt(n_channels - 3) < 0.5) == apart
    assert bool(trained_apart(gammas(n_channels, r))) == apart


@pytest.mark.parametrize(
    ("learned", "apart"), [((True, True), True), ((False, False), True), ((True, False), False)]
)
def test_filters_into_which_a_norm_was_folded_are_of_the_same_training(
    learned: tuple[bool, bool], apart: bool
):
    """Fails if lengths that another side's γ is folded into make another training, or those of norms without γ none."""
    lengths = np.random.default_rng(0).lognormal(size=(2, 64))
    rows = some_rows(n_channels=64)
    varying = np.linspace(1, 2, 64), np.linspace(2, 1, 64)
    sides = [
        replace(
            site(rows, gamma=of_side if has else 1.0),
            neighbours=Neighbours("relu", "c", folded=Folded(norm, -norm, norm, None)),
        )
        for norm, of_side, has in zip(lengths, varying, learned, strict=True)
    ]
    found = trained_apart(pairs(*map(recording, sides)).common)
    assert bool(found) == apart
    assert ("filter lengths" in found) == apart


def test_logarithms_of_what_is_positive():
    """Fails if variances below 1 are lost, or one of 0 is minus infinity and spoils the correlation."""
    found = _log(np.array([0.5, 1.0, 2.0, 0.0, -1.0, np.nan]))
    np.testing.assert_allclose(found, [np.log(0.5), 0.0, np.log(2.0), np.nan, np.nan, np.nan])
    assert _log(None) is None
