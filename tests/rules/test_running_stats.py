"""Rules about the running statistics: what fires each one, and its nearest healthy neighbour."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import call_log, running_stats_of, site, some_rows

from bnprobe.recording import LayerRecord
from bnprobe.rules.edits import Recalibrate, Remedy, SetMode
from bnprobe.rules.running_stats import _allowance, _what_differs
from bnprobe.rules.thresholds import Limits
from rules.edited import edited, evidence, findings, healthy
from rules.firing import fired
from rules.test_common_factor import norm as factored

ROWS = some_rows(40)
STATISTICS = running_stats_of(ROWS)
LEARNED = {"gamma": [0.5, -0.7, 1.2], "beta": [0.1, 0, -0.3]}

NEVER = "statistics-never-updated"
POISONED = "statistics-poisoned"
SHIFTED = "data-shifted"
BATCH = "batch-normalized"


# statistics-never-updated


def test_trained_weights_on_fresh_statistics_are_critical():
    """Fails if a checkpoint without buffers passes: the network normalizes by 0 and 1."""
    (row,) = fired(NEVER, site(ROWS, "a", **LEARNED, running_mean=0, running_var=1)).itertuples()
    assert row.severity == "critical"
    assert (row.layer, row.channels) == ("a", ())
    assert "trained" in row.says
    assert "all 3 channels" in row.because
    assert "strict=True" in row.do


@pytest.mark.parametrize("vector", ["gamma", "beta"])
def test_one_trained_vector_is_enough(vector):
    """Fails if only gamma, or only beta, tells a trained layer from a fresh one, or what is missing was trained."""
    vectors = {"gamma": 1, "beta": 0, vector: LEARNED[vector]}
    missing = {"gamma": None, "beta": None, vector: LEARNED[vector]}
    for given in (vectors, missing):
        (row,) = fired(NEVER, site(ROWS, **given, running_mean=0, running_var=1)).itertuples()
        assert row.severity == "critical"
        assert row.says.startswith({"gamma": "γ was trained,", "beta": "β was trained,"}[vector])


def test_normalized_by_the_batch_it_is_a_warning():
    """Fails if statistics that were not used in this run count as much as those that were."""
    in_training = {"n_calls_training": 1, "n_calls_running": 0}
    found = fired(NEVER, site(ROWS, **LEARNED, running_mean=0, running_var=1, **in_training))
    assert found["severity"].tolist() == ["warning"]


def test_a_fresh_layer_is_no_fault():
    """Fails if an untrained network, which the user may well probe on purpose, is called broken."""
    found = fired(NEVER, site(ROWS, gamma=1, beta=0, running_mean=0, running_var=1))
    assert found["severity"].tolist() == ["info"]
    assert "--weights" in found["do"][0]


def test_a_layer_without_affine_that_was_never_updated_is_fresh():
    """Fails if missing gamma counts as trained."""
    assert fired(NEVER, site(ROWS, running_mean=0, running_var=1))["severity"].tolist() == ["info"]


@pytest.mark.parametrize(
    "change", [{"running_mean": [0, 0, 1e-6]}, {"running_var": [1, 1, 1 - 1e-6]}], ids=["mean", "variance"]
)
def test_one_channel_that_moved_is_enough_to_be_silent(change):
    """Fails if the rule asks for any channel rather than all: a channel may well sit at 0 and 1."""
    statistics = {"running_mean": 0, "running_var": 1, **change}
    assert fired(NEVER, site(ROWS, **LEARNED, **statistics)).empty


@pytest.mark.parametrize(("counted", "fires"), [(0, 1), (1, 0), (None, 0)])
def test_a_moved_bias_does_not_hide_it(counted, fires):
    """Fails if a bias moved into the running means passes for an update, or a variance of 1 says it without the count."""
    layer = site(ROWS, **LEARNED, running_mean=[0.1, 0, -0.2], running_var=1, n_batches_tracked=counted)
    found = fired(NEVER, layer)
    assert len(found) == fires
    if fires:
        assert found["because"][0].startswith(
            "running_var is 1 in all 3 channels after 0 batches: only the running means"
        )
        assert fired(SHIFTED, layer).empty
        assert fired("statistics-alike", layer).empty


@pytest.mark.parametrize("trained", [{}, LEARNED], ids=["fresh", "trained"])
def test_statistics_updated_during_the_recording_are_not_initial(trained):
    """Fails if the running statistics from before a training run are held against its batch counter and γ from after it."""
    new = {"running_mean": 0, "running_var": 1, "n_calls_training": 1, "n_calls_running": 0}
    after = call_log(n_updates=40, running_mean_after=STATISTICS["running_mean"])
    assert fired(NEVER, site(ROWS, **trained, **new, call_log=after)).empty
    still = call_log(n_updates=40, running_mean_after=np.zeros(3))
    assert len(fired(NEVER, site(ROWS, **trained, **new, call_log=still))) == 1


def test_layers_without_statistics_are_not_asked():
    """Fails if NaN == 0 is believed somewhere."""
    assert fired(NEVER, site(ROWS, **LEARNED), site(ROWS, "ln", "layer_norm")).empty


# statistics-poisoned


@pytest.mark.parametrize(
    ("statistics", "channels"),
    [
        ({"running_mean": [0, np.nan, 1], "running_var": 2}, (1,)),
        ({"running_mean": [np.inf, 0, -np.inf], "running_var": 2}, (0, 2)),
        ({"running_mean": 1, "running_var": [2, 2, np.nan]}, (2,)),
        ({"running_mean": 1, "running_var": [-1e-9, 2, np.inf]}, (0, 2)),
        ({"running_mean": np.nan, "running_var": np.nan}, (0, 1, 2)),
    ],
)
def test_a_statistic_that_is_not_a_number_is_critical(statistics, channels):
    """Fails if NaN, an infinity or a negative variance in one channel of many is overlooked, or mislaid."""
    (row,) = fired(POISONED, site(ROWS, "a", **LEARNED, **statistics)).itertuples()
    assert row.severity == "critical"
    assert row.channels == channels
    assert f"{len(channels)} of 3 channels" in row.because
    assert "update_bn(loader, model)" in row.do


def test_an_instance_norm_can_be_poisoned_too():
    """Fails if only batch norms are looked at."""
    norm = site(ROWS, kind="instance_norm", running_mean=[0, np.nan, 0], running_var=1)
    assert fired(POISONED, norm)["channels"].tolist() == [(1,)]


def test_a_variance_of_zero_is_not_poison():
    """Fails if a dead channel (variance 0, saved by eps) is called poisoned."""
    assert fired(POISONED, site(ROWS, **LEARNED, running_mean=0, running_var=[0, 1e-30, 1e30])).empty
    beside = fired(POISONED, site(ROWS, **LEARNED, running_mean=0, running_var=[0, -1e-30, 1e30]))
    assert beside["channels"].tolist() == [(1,)]


def test_layers_without_statistics_are_not_poisoned():
    """Fails if "has none" is taken for "has NaN": track_running_stats=False, layer norm, a user's own kind."""
    layers = [
        site(ROWS, kind=kind, layer=kind, **LEARNED) for kind in ("batch_norm", "layer_norm", "my_norm")
    ]
    in_training = site(ROWS, "t", n_calls_training=1)
    assert fired(POISONED, *layers, in_training).empty


# data-shifted


def moved(by: float, scale: float = 1.0, rows: np.ndarray = ROWS) -> dict[str, object]:
    """Running statistics from which the rows lie `by` standard deviations away, varying `scale` times as they say."""
    statistics = running_stats_of(rows)
    sd = np.sqrt(statistics["running_var"] / scale)
    return {"running_mean": statistics["running_mean"] - by * sd, "running_var": sd**2}


def test_a_shift_of_more_than_half_a_running_sigma_is_a_warning():
    """Fails if the threshold is lost, the channels are not named, or recalibration is advised unmeasured."""
    (row,) = fired(SHIFTED, site(ROWS, "a", **LEARNED, **moved(0.8))).itertuples()
    assert row.severity == "warning"
    assert row.channels == (0, 1, 2)
    assert row.says == "The inputs do not match the running statistics: their mean differs."
    assert "typical shift 0.80" in row.because
    assert "compare its accuracy" in row.do


IN_TRAINING = {"n_calls": 1, "n_calls_model_training": 1, "n_calls_learning": 1}


@pytest.mark.parametrize(
    ("row", "told", "severity"),
    [
        ({"frozen": 1.0}, True, "warning"),
        ({"frozen": 1.0, **IN_TRAINING}, True, "info"),
        ({"class_name": "FrozenBatchNorm2d"}, True, "warning"),
        ({"frozen": 0.0}, False, "warning"),
        ({"frozen": 1.0, "normalized_by": "batch"}, False, "warning"),
    ],
)
def test_a_shift_at_a_frozen_norm_has_no_remedy(row, told, severity):
    """Fails if new running statistics are advised to a network that learned with the mismatch, or statistics that went
    astray, which look the same once training is over, are no more than a note."""
    found = edited(evidence(site(ROWS, "a", **LEARNED, **moved(0.8))), **row)
    (one,) = findings(SHIFTED, found)
    assert (
        one.says.startswith("This norm is frozen, and its inputs do not match its running statistics") == told
    )
    assert one.severity == severity
    assert one.do.startswith("Nothing, if the network was trained with this norm frozen") == told
    assert (one.remedy is None) == told


def test_a_constant_in_each_channel_is_said():
    """Fails if inputs that do not vary at all are merely of another scale, or one channel that does vary is overlooked."""
    (one,) = fired(SHIFTED, site(0 * ROWS, **LEARNED, **STATISTICS)).itertuples()
    assert one.says.endswith("their channels hold one constant each.")
    rows = 0 * ROWS
    rows[:, 0] = ROWS[:, 0]
    found = fired(SHIFTED, site(rows, **LEARNED, **STATISTICS))
    assert not found["says"].str.contains("constant").any()


def test_just_below_half_a_running_sigma_is_a_note():
    """Fails if the threshold moves: 0.51 is a warning and 0.49 is not."""
    assert severities(moved(0.51)) == ["warning"]
    assert severities(moved(0.49)) == severities(moved(-0.49)) == ["info"]


def severities(statistics, **fields):
    """Of what is said of one norm with these running statistics."""
    return fired(SHIFTED, site(ROWS, **LEARNED, **fields, **statistics))["severity"].tolist()


def test_a_shift_that_is_not_significant_is_silent():
    """Fails if three images are enough to accuse a layer: the same shift, too few images for significance."""
    rng = np.random.default_rng(3)
    few = np.stack([rng.normal(size=(3, 5)) + rng.normal(size=(3, 1)) * 3 for _ in range(3)])
    statistics = {"running_mean": few.mean((0, 2)) - 0.8 * few.std((0, 2)), "running_var": few.var((0, 2))}
    assert fired(SHIFTED, site(few, **LEARNED, **statistics)).empty


@pytest.mark.parametrize(("scale", "fires"), [(2.05, True), (1.95, False), (0.49, True), (0.51, False)])
def test_a_scale_of_more_than_twice_or_less_than_half_fires(scale, fires):
    """Fails if the thresholds are on standard deviations, or only one side is watched."""
    found = fired(SHIFTED, site(ROWS, **LEARNED, eps=0.0, **moved(0.0, scale)))
    assert (found["severity"] != "info").tolist() == [fires]
    if fires:
        assert found["says"][0].endswith("their scale differs.")
        assert f"typical variance {scale:.2f}" in found["because"][0]


@pytest.mark.parametrize(("scale", "fires"), [(1.0, False), (1 / 9, True)])
def test_a_large_eps_makes_no_shift_and_hides_none(scale, fires):
    """Fails if eps stands with the running variance alone: data just like those of training seem to vary less."""
    eps = 2 * float(np.median(STATISTICS["running_var"]))
    found = fired(SHIFTED, site(ROWS, **LEARNED, eps=eps, **moved(0.0, scale)))
    assert len(found) == fires


def test_mean_and_scale_are_reported_together():
    """Fails if the sentence names one of two."""
    found = fired(SHIFTED, site(ROWS, **LEARNED, **moved(3, 4)))
    assert found["says"][0].endswith("their mean and scale differ.")


def test_a_moved_scale_on_one_image_says_no_share_of_channels():
    """Fails if "significant in nan% of channels" is printed: one image gives no standard error."""
    one = some_rows(1)
    found = fired(
        SHIFTED, site(one, **LEARNED, running_mean=one.mean((0, 2)), running_var=one.var((0, 2)) / 9)
    )
    assert len(found) == 1
    assert "nan" not in found["because"][0]


@pytest.mark.parametrize(
    ("n", "ratio", "fires"),
    [(1, 1 / 20, 0), (1, 1 / 40, 1), (1, 2.5, 1), (16, 1 / 3.5, 0), (16, 1 / 5, 1), (40, 1 / 2.5, 1)],
)
def test_few_images_may_vary_less(n, ratio, fires):
    """Fails if a single image is blamed for not differing from others, or nothing is concluded from it at all."""
    rows = some_rows(n)
    statistics = {"running_mean": rows.mean((0, 2)), "running_var": rows.var((0, 2)) / ratio}
    assert len(fired(SHIFTED, site(rows, **LEARNED, **statistics))) == fires


def test_fresh_statistics_are_not_also_called_shifted():
    """Fails if one fault is reported twice: statistics never updated are another rule's business."""
    assert fired(SHIFTED, site(ROWS + 100, **LEARNED, running_mean=0, running_var=1)).empty


def test_one_bad_batch_is_not_the_data():
    """Fails if one batch of eight that was prepared otherwise is told as a shift of all samples."""
    rows = some_rows(80).copy()
    statistics = running_stats_of(rows)
    rows[:10] *= 40
    (row,) = fired(SHIFTED, site(rows, **LEARNED, **statistics)).itertuples()
    # fewer than one of eight, as the samples differ among themselves
    assert re.search(r"about (7|8|9|1\d)% of the samples account for that", row.says)
    assert "next best cause" not in row.because
    assert "enumerate(batches)" in row.do


def young_norm(layer: str, left: float = 0.53, updates: int = 6) -> LayerRecord:
    """A norm whose running statistics still hold this weight of their initial 0 and 1."""
    rows = 5 * ROWS
    now = running_stats_of(rows)
    statistics = {
        "running_mean": (1 - left) * now["running_mean"],
        "running_var": left + (1 - left) * now["running_var"],
    }
    return site(rows, layer, **LEARNED, **statistics, n_batches_tracked=updates, momentum=0.1)


def test_young_statistics_are_reported_once():
    """Fails if norms that few updates explain only in part are called shifted, and the weights blamed."""
    other = replace(young_norm("b"), running_var=STATISTICS["running_var"] * 70)
    assert len(fired("statistics-young", young_norm("a"), other))
    assert fired(SHIFTED, young_norm("a"), other).empty
    # alone, it is no case of few updates
    assert len(fired(SHIFTED, replace(other, n_batches_tracked=1000))) == 1


@pytest.mark.parametrize(("limit", "too_few"), [(0.25, ["a", "b"]), (0.2501, ["a"])])
def test_a_norm_at_the_limit_of_few_updates_is_among_the_young(limit: float, too_few: list[str]) -> None:
    """Fails if a norm with exactly the limit's weight left is reported as shifted beside others that are young."""
    other = replace(
        young_norm("b"), running_var=STATISTICS["running_var"] * 70, n_batches_tracked=2, momentum=0.5
    )
    found = evidence(young_norm("a"), other, limits=Limits(initial_weight=limit))
    assert [one.layer for one in findings("statistics-young", found)] == too_few
    assert len(findings(SHIFTED, found)) == 2 - len(too_few)


def test_one_factor_in_all_running_statistics_is_reported_once():
    """Fails if a converter's factor is reported as a shift, too, and its first norm as wrong inputs."""
    norms = [factored(name, 900.0, 900.0) for name in "ab"]
    assert len(fired("statistics-scaled", *norms)) == 1
    assert fired(SHIFTED, *norms).empty
    assert fired(SHIFTED, factored("a", 3.0, 3.0)).empty is False


def test_data_that_match_are_silent():
    """Fails if agreement is a finding."""
    assert fired(SHIFTED, site(ROWS, **LEARNED, **STATISTICS), site(ROWS, "ln", "layer_norm")).empty


# batch-normalized


def test_train_mode_is_reported():
    """Fails if a user who forgot model.eval() is not told that outputs depend on the rest of the batch."""
    in_training = {"n_calls": 3, "n_calls_training": 3, "n_calls_running": 0}
    (row,) = fired(BATCH, site(ROWS, "a", **LEARNED, **STATISTICS, **in_training)).itertuples()
    assert (row.severity, row.layer) == ("info", "a")
    assert "train mode during 3 calls" in row.because
    assert "model.eval()" in row.do


def test_some_calls_in_train_mode_are_reported_too():
    """Fails if only a recording made wholly in train mode counts."""
    mixed = {"n_calls": 3, "n_calls_training": 1, "n_calls_running": 2}
    assert len(fired(BATCH, site(ROWS, **LEARNED, **STATISTICS, **mixed))) == 1


def test_one_call_is_one_call():
    """Fails if one call is called "1 calls"."""
    (row,) = fired(BATCH, site(ROWS, **LEARNED)).itertuples()
    assert "1 calls" not in row.because


def test_a_layer_without_running_statistics_is_not_told_to_use_them():
    """Fails if model.eval() is advised for track_running_stats=False, where it changes nothing."""
    (row,) = fired(BATCH, site(ROWS, **LEARNED)).itertuples()
    assert "call model.eval()" not in row.do


def test_eval_mode_and_norms_that_never_use_the_batch_are_silent():
    """Fails if a layer norm in train mode is accused, or a frozen batch norm."""
    frozen = site(ROWS, "frozen", **LEARNED, **STATISTICS, n_calls_training=1)
    layer = site(ROWS, "ln", "layer_norm", n_calls_training=1)
    assert fired(BATCH, site(ROWS, **LEARNED, **STATISTICS), frozen, layer).empty


INITIAL = {"running_mean": 0.0, "running_var": 1.0}
NO_COUNT = "running_mean is 0 and running_var is 1 in all 3 channels"


@pytest.mark.parametrize(
    ("cells", "row", "severity", "says", "because"),
    [
        (
            {},
            {},
            "critical",
            "γ and β were trained",
            f"{NO_COUNT} after 40 batches, while γ has mean 0.333 and β has mean 0.1.",
        ),
        (
            {"gamma": 1.0},
            {},
            "critical",
            "β was trained",
            f"{NO_COUNT} after 40 batches, while β has mean 0.1.",
        ),
        (
            {"beta": math.nan},
            {},
            "critical",
            "γ was trained",
            f"{NO_COUNT} after 40 batches, while γ has mean 0.333.",
        ),
        ({}, {"n_batches_tracked": 1}, "critical", "γ and β were", f"{NO_COUNT} after 1 batch, while"),
        ({}, {"n_batches_tracked": math.nan}, "critical", "γ and β were", f"{NO_COUNT}, while γ"),
        ({}, {"normalized_by": "batch"}, "warning", "γ and β were", NO_COUNT),
        ({}, {"normalized_by": "both"}, "critical", "γ and β were", NO_COUNT),
        (
            {"gamma": 1.0, "beta": 0.0},
            {},
            "info",
            "This norm is untrained",
            f"{NO_COUNT} after 40 batches, γ is 1 and β is 0.",
        ),
        (
            {"gamma": 0.0, "beta": math.nan},
            {},
            "info",
            "This norm is",
            f"{NO_COUNT} after 40 batches, γ is 0 and β is missing.",
        ),
    ],
)
def test_what_is_said_of_statistics_that_were_never_updated(
    cells: dict[str, Any], row: dict[str, Any], severity: str, says: str, because: str
) -> None:
    """Fails if a vector that was not trained is named, a count that is not there is told, or a mode changes sides."""
    both = evidence(healthy("a"), healthy("b"))
    (one,) = findings(NEVER, edited(both, {**INITIAL, **cells}, **row))
    assert (one.severity, one.layer) == (severity, "a")
    assert one.says.startswith(says)
    assert one.because.startswith(because)
    assert one.remedy == (None if severity == "info" else Remedy((Recalibrate(),)))


def test_vectors_that_have_just_begun_to_move_are_near_their_initial_values() -> None:
    """Fails if the mean of a vector is told as its one value."""
    begun = edited(
        evidence(), {**INITIAL, "gamma": [1.01, 0.99, 1.02], "beta": [0.01, 0.0, -0.02]}, n_batches_tracked=0
    )
    (one,) = findings(NEVER, begun)
    assert one.because == f"{NO_COUNT} after 0 batches, γ is near 1 and β is near 0."


@pytest.mark.parametrize(
    ("cells", "row", "channels"),
    [
        ({"running_mean": [0.0, math.inf, 0.0]}, {"kind": "layer_norm"}, (1,)),
        ({"running_var": math.nan}, {"stores": "γ, β, running_mean"}, None),
        ({"running_var": math.nan, "running_mean": math.nan}, {"stores": "γ, β"}, None),
        ({"running_var": math.nan, "running_mean": math.nan}, {}, (0, 1, 2)),
        ({"running_var": math.nan}, {"normalized_by": "batch"}, (0, 1, 2)),
        ({"running_mean": math.nan}, {"normalized_by": "batch"}, (0, 1, 2)),
    ],
)
def test_statistics_that_are_missing_are_not_poisoned(
    cells: dict[str, Any], row: dict[str, Any], channels: tuple[int, ...] | None
) -> None:
    """Fails if a norm without running statistics is poisoned, or half a pair of them is none."""
    found = findings(POISONED, edited(evidence(), cells, **row))
    assert [one.channels for one in found] == ([channels] if channels else [])


DIFFERS = {
    "shift_rms": 0.1,
    "shifted_share": 0.0,
    "var_ratio_median": 1.0,
    "scaled_share": 0.0,
    "n_images": 40,
}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({}, ""),
        ({"shift_rms": 0.6}, ""),
        ({"shift_rms": 0.6, "shifted_share": 0.6}, "mean differs"),
        ({"shift_rms": 0.4, "shifted_share": 0.6}, ""),
        ({"var_ratio_median": 3.0}, ""),
        ({"var_ratio_median": 3.0, "scaled_share": 0.6}, "scale differs"),
        ({"var_ratio_median": 0.3, "scaled_share": 0.6}, "scale differs"),
        ({"var_ratio_median": 3.0, "scaled_share": 0.0, "n_images": 29}, "scale differs"),
        ({"var_ratio_median": 3.0, "scaled_share": 0.0, "n_images": 30}, ""),
        ({"var_ratio_median": 3.0, "scaled_share": math.nan}, "scale differs"),
        ({"shift_rms": 0.6, "shifted_share": 0.6, "var_ratio_median": 3.0, "scaled_share": 0.6}, "mean and scale differ"),
        ({"shift_rms": 0.6, "shifted_share": 0.0, "var_ratio_median": 3.0, "scaled_share": 0.6}, "mean and scale differ"),
        ({"shift_rms": 0.6, "shifted_share": 0.6, "var_ratio_median": 3.0}, "mean differs"),
    ],
)  # fmt: skip
def test_what_differs_from_the_running_statistics(row: dict[str, Any], what: str) -> None:
    """Fails if chance is told as a difference, or the wrong statistic is named."""
    assert _what_differs(pd.Series({**DIFFERS, **row}), Limits()) == what


@pytest.mark.parametrize(
    ("n", "allowance"),
    [(0, 1.0), (1, math.exp(2 * math.sqrt(2))), (2, math.exp(2)), (29, math.exp(2 * math.sqrt(2 / 29))), (30, 1.0)],
)  # fmt: skip
def test_the_allowance_for_few_samples_is_two_standard_errors(n: int, allowance: float) -> None:
    """Fails if the standard error of a logarithm of a variance is not √(2/n), or many samples have an allowance."""
    assert _allowance(n, Limits()) == pytest.approx(allowance, rel=1e-12)


MOVED = {
    "shift_rms": 0.8,
    "shifted_share": 0.75,
    "var_ratio_median": 1.0,
    "scaled_share": 0.25,
    "n_images": 40,
}
ONE_IN = "(false discovery rate 1%)"


@pytest.mark.parametrize(
    ("cells", "row", "severity", "because", "channels"),
    [
        (
            {},
            {},
            "warning",
            f"typical shift 0.80 running σ (threshold 0.5), beyond sampling error in 75% of channels {ONE_IN}; "
            f"typical variance "
            f"1 times the running variance (thresholds 0.5 and 2), beyond sampling error in 25% of channels {ONE_IN}.",
            (),
        ),
        (
            {"shift_q": [0.009, 0.009, 0.01], "shift": [0.6, -0.6, 0.6]},
            {"scaled_share": math.nan},
            "warning",
            f"typical shift 0.80 running σ (threshold 0.5), beyond sampling error in 75% of channels {ONE_IN}; "
            f"typical variance "
            "1 times the running variance (thresholds 0.5 and 2).",
            (0, 1),
        ),
        (
            {"shift_q": 0.001, "shift": [0.5, -0.5, 0.51]},
            {"n_calls": 2, "n_calls_model_training": 2, "n_calls_learning": 1},
            "info",
            "typical shift 0.80",
            (2,),
        ),
        (
            {},
            {"n_calls": 2, "n_calls_model_training": 1, "n_calls_learning": 1},
            "warning",
            "typical shift 0.80",
            (),
        ),
        (
            {},
            {"n_calls": 2, "n_calls_model_training": 2, "n_calls_learning": 0},
            "warning",
            "typical shift 0.80",
            (),
        ),
        (
            {},
            {"shift_rms": math.nan, "var_ratio_median": 3.0, "scaled_share": 0.75, "shifted_share": math.nan},
            "warning",
            f"typical variance 3 times the running variance (thresholds 0.5 and 2), beyond sampling error in 75% of "
            f"channels {ONE_IN}.",
            (),
        ),
    ],
)
def test_what_is_said_of_inputs_that_do_not_match(
    cells: dict[str, Any], row: dict[str, Any], severity: str, because: str, channels: tuple[int, ...]
) -> None:
    """Fails if channels within the threshold or within chance are named, or training is warned of."""
    given = {"shift_q": 0.9, **cells}
    (one,) = findings(SHIFTED, edited(evidence(), given, **{**MOVED, **row}))
    assert (one.severity, one.channels) == (severity, channels)
    assert one.because.startswith(because)
    assert one.remedy == Remedy((Recalibrate(),))


@pytest.mark.parametrize(
    ("row", "because", "edit"),
    [
        ({"mode": "train", "n_calls": 1}, "the norm was in train mode during 1 call.", SetMode("", training=False)),
        ({"mode": "mixed", "n_calls": 3}, "the norm was in train mode in some of 3 calls.", SetMode("", training=False)),
        (
            {"mode": "eval", "n_calls": 2},
            "the norm was in eval mode during 2 calls, and keeps no running statistics (track_running_stats=False).",
            None,
        ),
        ({"mode": "train", "normalized_by": "both", "n_calls": 2}, "during 2 calls.", SetMode("", training=False)),
        ({"mode": "train", "normalized_by": "running"}, None, None),
        ({"mode": "train", "kind": "instance_norm"}, None, None),
    ],
)  # fmt: skip
def test_what_is_said_of_batch_statistics(
    row: dict[str, Any], because: str | None, edit: SetMode | None
) -> None:
    """Fails if a mode is told of a norm that has none to choose, or eval mode is advised where it changes nothing."""
    found = findings(BATCH, edited(evidence(), **{"normalized_by": "batch", **row}))
    assert len(found) == (because is not None)
    for one in found:
        assert one.because.endswith(str(because))
        assert one.remedy == (Remedy((edit,)) if edit else None)


@pytest.mark.parametrize(
    ("cells", "spoken"),
    [
        ({"scale_ratio": [0.6, 0.5, 0.4], "shift": [0.5, -0.3, 0.2]}, True),
        # another contrast, about the same mean
        ({"scale_ratio": [0.6, 0.5, 0.4], "shift": [0.01, -0.02, 0.01]}, False),
        # a channel that varies more than in training, which no part of the training samples does
        ({"scale_ratio": [0.5, 1.2, 0.4], "shift": [0.5, -0.3, 0.2]}, False),
        # too far for any group of the training samples
        ({"scale_ratio": [0.6, 0.5, 0.4], "shift": [3.0, -2.0, 2.0]}, False),
        # hardly less
        ({"scale_ratio": [0.9, 0.95, 0.8], "shift": [0.5, -0.3, 0.2]}, False),
        # millivolts for volts: no samples vary a thousand times less in all channels alike
        ({"scale_ratio": [0.002, 0.001, 0.003], "pre_var": [1e-6] * 3, "shift": [0.5, -0.3, 0.2]}, False),
    ],
    ids=["one kind", "contrast", "more in one channel", "too far", "hardly less", "another unit"],
)
def test_samples_of_one_kind_vary_less_about_a_mean_that_training_held(
    cells: dict[str, list[float]], spoken: bool
) -> None:
    """Fails if one film is not offered as a cause, or is for what no part of the training samples can be."""
    variance = float(np.median(np.square(cells["scale_ratio"])))
    base = edited(
        evidence(healthy()),
        {"running_var": [1.0] * 3, "pre_var": [ratio**2 for ratio in cells["scale_ratio"]], **cells},
        var_ratio_median=variance,
        shift_rms=0.9,
        shifted_share=1.0,
        scaled_share=1.0,
    )
    (found,) = findings("data-shifted", edited(base, verdict="both shifted"))
    assert ("one film" in found.do) is spoken


def test_one_kind_of_samples_is_no_cause_within_the_network() -> None:
    """Fails if a norm behind others that match is said to have been given one film: what entered was as in training."""
    base = evidence(healthy("a"), healthy("b"))
    cells = {"scale_ratio": [0.6, 0.5, 0.4], "shift": [0.5, -0.3, 0.2]}
    cells |= {"running_var": [1.0, 1.0, 1.0], "pre_var": [0.36, 0.25, 0.16]}
    far = {"var_ratio_median": 0.25, "shift_rms": 0.9, "shifted_share": 1.0, "scaled_share": 1.0}
    for at, spoken in ((0, True), (1, False)):
        (found,) = findings("data-shifted", edited(base, cells, at=at, verdict="both shifted", **far))
        assert ("one film" in found.do) is spoken
