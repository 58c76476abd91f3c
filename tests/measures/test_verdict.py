"""The verdict: rare when nothing moved, found when something did, honest with few images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bnprobe.measures import shift, verdict
from bnprobe.recording import LayerRecord
from bnprobe.recording.names import NO_STATISTICS, VERDICTS
from measures import drawn
from measures.sites import alone, running_stats_of, site, some_rows

STATISTICS = drawn.statistics(np.random.default_rng(77))
"""Running statistics of one training run on images as they are drawn here."""


def summary(record: LayerRecord) -> dict[str, float | str]:
    return verdict.layer_columns(record, alone(record))


def judged(rows: np.ndarray, **statistics: object) -> str:
    return str(summary(drawn.record_of(rows, **{**STATISTICS, **statistics}))["verdict"])


def drawn_at(seed: int, n: int) -> np.ndarray:
    return drawn.images(np.random.default_rng(seed), n)


@pytest.mark.parametrize("n_images", [300, 1500])
def test_data_of_the_trained_kind_are_the_same(n_images):
    """Fails if certainty alone decides: 30 memories and 30 data sets of one source, with correlated pixels.

    No shift may be seen in any, and all but a few must be recognized.
    """
    rng = np.random.default_rng(n_images)
    found = Counter(
        summary(drawn.record_of(drawn.images(rng, n_images), **drawn.statistics(rng)))["verdict"]
        for _ in range(30)
    )
    assert set(found) <= {"same", "too few samples"}
    assert found["same"] >= 28


@pytest.mark.parametrize("n_images", [400, 1000])
@pytest.mark.parametrize(
    ("scale", "shift", "expected"),
    [
        (1.0, 0.3, "mean shifted"),
        (0.8, 0.0, "scale shifted"),
        (0.8, -0.3, "mean and scale shifted"),
        (1.3, 0.0, "scale shifted"),
    ],
)
def test_planted_shifts_are_found(n_images, scale, shift, expected):
    """Fails if a verdict names the other moment, or a shift of 0.3 or a scale of 0.8 is not seen with 400 images."""
    for seed in range(5):
        assert judged(drawn_at(seed, n_images) * scale + shift) == expected


@pytest.mark.parametrize("n_images", [60, 100, 150])
def test_a_real_shift_is_never_called_sameness(n_images):
    """Fails if what looks shifted but is not significant passes for proof that nothing moved."""
    for seed in range(12):
        assert judged(drawn_at(seed, n_images) * 0.8) in ("scale shifted", "too few samples")


def test_a_shift_that_is_certain_but_too_small_to_matter_is_none():
    """Fails if the size is not asked for: 0.1 standard deviations on 4,000 images are beyond doubt."""
    rows = drawn_at(3, 4000) + 0.1
    record = drawn.record_of(rows, **{**STATISTICS, "running_mean": rows.mean((0, 2)) - 0.1})
    assert shift.layer_columns(record, alone(record))["shifted_share"] > 0.9
    assert summary(record)["verdict"] == "same"


def test_a_shift_of_some_channels_is_one_from_a_third_on():
    """Fails if one loud channel condemns a layer, or half of them do not: 24 channels."""
    for n_moved, expected in ((6, "same"), (10, "mean shifted")):
        rows = drawn_at(9, 600)
        rows[:, :n_moved] += 0.5
        assert judged(rows) == expected


@pytest.mark.parametrize("n_images", [15, 30, 50, 100])
def test_forty_percent_of_channels_that_moved_are_seldom_the_same(n_images):
    """Fails if few samples pass for proof: four in ten channels lie 0.25 off, which some 10 of 60 draws did not show."""
    found = Counter()
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        rows = drawn.images(rng, n_images, 20, common=0.0)
        rows[:, :8] += 0.25
        statistics = {"running_mean": np.zeros(20), "running_var": np.ones(20)}
        statistics["running_mean"][0] = 1e-9  # not fresh
        found[judged(rows, **statistics)] += 1
    assert found["same"] <= 3


def test_eight_images_are_too_few():
    """Fails if chance among eight correlated images passes for a shift, or for sameness: 40 draws."""
    found = Counter(judged(drawn_at(seed, 8)) for seed in range(40))
    assert found == {"too few samples": 40}


def test_eight_images_are_enough_for_a_shift_that_overwhelms():
    """Fails if too few images silence a preprocessing gone wrong: three standard deviations, or pixels in 0 to 255."""
    assert judged(drawn_at(1, 8) + 3) == "mean shifted"
    assert judged(drawn_at(1, 8) * 255 + 120).endswith("scale shifted")


@pytest.mark.parametrize("n_images", [1, 2])
def test_one_or_two_images(n_images):
    """Fails if no error at all reads as no shift, or warns."""
    assert judged(drawn_at(1, n_images)) == "too few samples"


def test_pixels_do_not_make_up_for_images():
    """Fails if values are counted: 20 constant images of 4,096 pixels are 20 values."""
    rows = np.repeat(drawn.images(np.random.default_rng(5), 20, n_positions=1), 4096, axis=2)
    assert judged(rows) == "too few samples"


ROWS = some_rows(40)


@pytest.mark.parametrize(
    "learned",
    [{"gamma": [0.5, 2, 1], "beta": 0}, {"gamma": 1, "beta": 0}, {}],
    ids=["trained", "fresh", "none"],
)
def test_statistics_of_zeros_and_ones_were_never_updated(learned):
    """Fails if running statistics that hold nothing are compared with the data."""
    record = site(ROWS, running_mean=0, running_var=1, **learned)
    assert summary(record)["verdict"] == "never updated"


def test_one_channel_that_moved_is_enough_to_judge():
    """Fails if any channel at 0 and 1 is enough."""
    record = site(ROWS, running_mean=[0, 0, 1e-6], running_var=1)
    assert summary(record)["verdict"] != "never updated"


@pytest.mark.parametrize(
    "changes",
    [{}, {"kind": "layer_norm"}, {"kind": "instance_norm"}, {"running_mean": np.nan, "running_var": np.nan}],
)
def test_no_running_statistics(changes):
    """Fails if a norm without running statistics, or with poisoned ones, is judged."""
    found = summary(site(ROWS, **changes))
    assert found["verdict"] == NO_STATISTICS
    assert np.isnan([found["mean_moved"], found["scale_moved"]]).all()


def test_nothing_seen_is_too_few():
    """Fails if a layer that saw only NaN is the same, or warns."""
    record = site(ROWS * np.nan, running_mean=0.5, running_var=1)
    assert summary(record)["verdict"] == "too few samples"


def test_every_verdict_is_a_known_one_and_the_shares_are_shares():
    """Fails if a verdict is misspelt somewhere."""
    record = site(ROWS, **running_stats_of(ROWS))
    found = summary(record)
    assert found["verdict"] in VERDICTS
    assert found["mean_moved"] == 0
