"""Rules about how norms were used: what fires each one, and its nearest healthy neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measures.sites import call_log, site, some_rows

from bnprobe.checkpoints.records import without_calls
from bnprobe.rules import Finding
from bnprobe.rules.edits import Freeze, Remedy, Remove, SetAttribute, SetMode
from rules.edited import edited, evidence, findings, healthy
from rules.firing import fired
from rules.trained import LEARNED, ROWS, STATISTICS, TRAIN, learning, norm


@pytest.mark.parametrize(("n", "fires"), [(31.0, 1), (32.0, 0)])
def test_few_values_of_a_batch(n, fires):
    """Fails if the threshold moves, the call is not named, or it is counted from 0."""
    facts = learning(fewest_values=n, fewest_call=3, fewest_images=2)
    found = fired("few-values", norm(changes=TRAIN, **facts))
    assert len(found) == fires
    if fires:
        assert "31 values per channel in call 4 of 1, with 2 samples" in found["because"][0]
        assert f"{np.sqrt(2 / 30):.0%}" in found["because"][0]


def test_a_small_last_batch_is_told_from_small_batches():
    """Fails if a loader is blamed where every batch is small, or the reverse."""
    facts = learning(fewest_values=20.0, fewest_call=3, fewest_images=2)
    last = norm(changes={**TRAIN, "n_calls": 4, "n_calls_training": 4}, **facts)
    assert "drop_last=True" in fired("few-values", last)["do"][0]
    always = norm(changes=TRAIN, **{**facts, "fewest_values": 30.0})
    small = site(some_rows(2), **{**LEARNED, **TRAIN}, call_log=always.call_log)
    assert ".eval()" in fired("few-values", small)["do"][0]


@pytest.mark.parametrize(("n", "fires"), [(1.0, 1), (2.0, 1), (3.0, 0)])
def test_few_values_of_one_image(n, fires):
    """Fails if a group norm, which is not noise, is held to the limit of batches."""
    group = site(ROWS, kind="group_norm", call_log=call_log(fewest_values=n, fewest_call=0, fewest_images=1))
    assert len(fired("few-values", group)) == fires


def test_train_mode_without_learning():
    """Fails if every layer is a finding of its own, training itself is blamed, or the count is wrong."""
    found = fired("train-mode-in-evaluation", norm("a", TRAIN), norm("b", TRAIN), norm("c"))
    assert found["layer"].tolist() == ["a"]
    assert found["because"][0].startswith("2 of 3 batch norms")
    assert fired("train-mode-in-evaluation", norm("a", TRAIN, **learning())).empty
    assert fired("train-mode-in-evaluation", norm("a")).empty
    assert fired("train-mode-in-evaluation", site(ROWS, **{**LEARNED, **TRAIN})).empty


def test_batch_statistics_in_eval_mode():
    """Fails if training=True in F.batch_norm passes for eval mode, or a norm without running statistics is blamed."""
    by_batch = {"n_calls_running": 0, "n_calls_training": 0}
    found = fired("train-mode-in-evaluation", norm("a", by_batch), norm("b", by_batch), norm("c"))
    assert found["says"].tolist()[0].startswith("Batch statistics are used in eval mode")
    assert found["layer"].tolist() == ["a"]
    assert "2 batch norms in eval mode" in found["because"][0]
    assert fired("train-mode-in-evaluation", norm("c"), norm("d", by_batch))["layer"].tolist() == ["d"]
    assert "training=self.training" in found["do"][0]
    without = {**by_batch, "running_mean": None, "running_var": None}
    assert fired("train-mode-in-evaluation", norm("a", without)).empty
    assert fired("train-mode-in-evaluation", norm("a", by_batch, **learning())).empty


def test_frozen_parameters_with_statistics_that_move():
    """Fails if a norm that learns, or one that stands still, is blamed; or the distance is not reported."""
    frozen = {"gamma_learns": False, "beta_learns": False}
    after = STATISTICS["running_mean"] + 3 * np.sqrt(STATISTICS["running_var"])
    moved = learning(running_mean_after=after, n_updates=4)
    (row,) = fired("frozen-but-moving", norm(changes=TRAIN, **frozen, **moved)).itertuples()
    assert "moved by 3 running σ in 4 updates" in row.because
    still = learning(running_mean_after=STATISTICS["running_mean"])
    assert fired("frozen-but-moving", norm(changes=TRAIN, **frozen, **still)).empty
    assert fired("frozen-but-moving", norm(changes=TRAIN, **moved)).empty
    assert fired("frozen-but-moving", norm(changes=TRAIN, **{**frozen, "beta_learns": True}, **moved)).empty
    assert fired("frozen-but-moving", norm(changes=TRAIN, **frozen, running_mean_after=after)).empty


def test_parameters_that_learn_over_frozen_statistics():
    """Fails if a model in eval mode, whose gradients someone looks at, is taken for one that trains."""
    assert len(fired("learning-but-frozen", norm(**learning()))) == 1
    assert fired("learning-but-frozen", norm(**learning(n_calls_model_training=0))).empty
    assert fired("learning-but-frozen", norm(**learning(gamma_learns=False, beta_learns=False))).empty
    assert fired("learning-but-frozen", norm(changes=TRAIN, **learning())).empty
    (row,) = fired("learning-but-frozen", norm(**learning(gamma_learns=False))).itertuples()
    assert "but β learns" in row.says


def test_sync_batch_norm_alone():
    """Fails if several processes, or a plain batch norm, are blamed."""
    sync = {**TRAIN, "class_name": "SyncBatchNorm"}
    assert len(fired("sync-alone", norm(changes=sync, **learning()))) == 1
    assert fired("sync-alone", norm(changes=sync, **learning(n_ranks=2))).empty
    assert fired("sync-alone", norm(changes=TRAIN, **learning())).empty
    assert fired("sync-alone", norm(changes={"class_name": "SyncBatchNorm"}, **learning())).empty


@pytest.mark.parametrize(
    ("kind", "says"),
    [("layer_norm", "outputs β"), ("rms_norm", "outputs ±γ"), ("unknown_norm", "a layer norm over it")],
)
def test_a_norm_of_one_feature_is_seen_without_data(kind, says):
    """Fails if the shape (1,) passes, or a batch norm of one channel, which is sound, does not."""
    one = without_calls(site(some_rows(4, 1), "a", kind, gamma=0.5, pools="channels"))
    (row,) = fired("few-values", one).itertuples()
    assert (row.severity, row.layer) == ("warning", "a")
    assert says in row.says
    two = without_calls(site(some_rows(4, 2), "a", kind, gamma=0.5, pools="channels"))
    batch = without_calls(site(some_rows(4, 1), "a", "batch_norm", gamma=0.5))
    assert fired("few-values", two).empty
    assert fired("few-values", batch).empty


def single(n_images: int, calls: int, spread: float) -> list[Finding]:
    """What is said of a batch norm that trains, of samples whose means lie this far apart."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n_images, 3, 64)) + spread * np.linspace(-1, 1, n_images)[:, None, None]
    base = evidence(site(rows, "bn", gamma=[0.5, -0.7, 1.2], beta=0.1))
    cells = {"normalized_by": "batch", "n_calls": calls, "n_calls_learning": calls, "fewest_values": 64.0}
    return findings("few-values", edited(base, **cells))


def test_batches_of_one_sample_that_differ() -> None:
    """Fails if training on single images is passed over, or is warned of where samples are alike or batches larger."""
    (one,) = single(8, 8, 1.0)
    assert (one.severity, one.layer) == ("warning", "bn")
    assert "8 calls with 1 sample each" in one.because
    assert single(8, 8, 0.0) == []
    assert single(8, 4, 1.0) == []
    assert single(3, 3, 1.0) == []


BY_BATCH = {"normalized_by": "batch", "fewest_images": 2, "fewest_call": 0, "n_calls": 1}
FROZEN = Remedy((Freeze(("bn",), eval_mode=True),))


@pytest.mark.parametrize(
    ("row", "because", "do", "remedy"),
    [
        (
            {**BY_BATCH, "fewest_values": 3},
            "3 values per channel in call 1 of 1, with 2 samples, so the variance has a relative error of 100% "
            "(threshold 32).",
            "Use larger batches",
            FROZEN,
        ),
        (
            {**BY_BATCH, "fewest_values": 1, "fewest_images": 1},
            "1 value per channel in call 1 of 1, with 1 sample (threshold 32).",
            "Use larger batches",
            FROZEN,
        ),
        (
            {**BY_BATCH, "normalized_by": "sample", "fewest_values": 2, "n_calls": 0},
            "2 values per mean and variance of 2 samples (threshold 2).",
            "Remove the norm",
            Remedy((Remove("bn"),)),
        ),
        (
            {**BY_BATCH, "fewest_values": 20, "n_calls": 2, "n_values": 3 * 81, "fewest_call": 1},
            "20 values per channel in call 2 of 2, with 2 samples, so the variance has a relative error of 32% "
            "(threshold 32).",
            "The other calls had more: drop the small last batch",
            None,
        ),
        (
            {**BY_BATCH, "fewest_values": 20, "n_calls": 2, "n_values": 3 * 80},
            "20 values per channel in call 1 of 2, with 2 samples, so the variance has a relative error of 32% "
            "(threshold 32).",
            "Use larger batches",
            FROZEN,
        ),
        (
            {**BY_BATCH, "fewest_values": 20, "n_calls": 1, "n_values": 3 * 400},
            "20 values per channel in call 1 of 1, with 2 samples, so the variance has a relative error of 32% "
            "(threshold 32).",
            "Use larger batches",
            FROZEN,
        ),
        (
            {**BY_BATCH, "normalized_by": "sample", "fewest_values": 2, "kind": "group_norm"},
            "2 values per mean and variance in call 1 of 1, with 2 samples (threshold 2).",
            'Let it normalize over more channels, `model.get_submodule("bn").num_groups = 1`, and retrain.',
            Remedy((SetAttribute("bn", "num_groups", 1),)),
        ),
        (
            {**BY_BATCH, "normalized_by": "sample", "fewest_values": 1, "kind": "instance_norm"},
            "1 value per mean and variance in call 1 of 1, with 2 samples (threshold 2).",
            "Remove the norm where only one position is left",
            Remedy((Remove("bn"),)),
        ),
    ],
)
def test_what_is_said_of_few_values(
    row: dict[str, Any], because: str, do: str, remedy: Remedy | None
) -> None:
    """Fails if the error of a variance is not √(2 / (n - 1)), or the advice is that of another kind of norm or loader."""
    (one,) = findings("few-values", edited(evidence(), **row))
    assert (one.because, one.remedy) == (because, remedy)
    assert one.do.startswith(do)


SINGLE = {
    "normalized_by": "batch",
    "n_images": 8,
    "n_calls": 8,
    "n_calls_learning": 8,
    "share_within_median": 0.5,
    "fewest_values": 64.0,
}
"""Samples whose means lie as far apart as values within them."""


@pytest.mark.parametrize(
    ("row", "fires"),
    [
        ({}, 1),
        ({"kind": "instance_norm"}, 0),
        ({"n_images": 9}, 0),
        ({"n_calls_learning": 7}, 0),
        ({"normalized_by": "running"}, 0),
        ({"n_images": 4, "n_calls": 4, "n_calls_learning": 4}, 1),
        ({"n_images": 3, "n_calls": 3, "n_calls_learning": 3}, 0),
        ({"share_within_median": 1 / 1.1}, 1),  # √0.1 is 0.316
        ({"share_within_median": 1 / 1.0899}, 0),
        ({"share_within_median": 1.0}, 0),
        ({"share_within_median": np.nan}, 0),
        ({"fewest_values": 32.0}, 1),
    ],
)
def test_single_samples_that_differ(row: dict[str, Any], fires: int) -> None:
    """Fails if larger batches, norms that do not learn, or samples that are alike are told as single samples."""
    found = findings("few-values", edited(evidence(), **{**SINGLE, **row}))
    assert len(found) == fires
    if not row:
        assert found[0].because == (
            "8 calls with 1 sample each; the means of samples are 1 times as far apart as values within a sample (typical "
            "channel, threshold 0.3). So it is at 1 batch norm."
        )
        assert found[0].remedy == FROZEN


ONE_OF_TWO = "1 of 2 batch norms used batch statistics while no gradients were computed."
EVALUATED = {
    "normalized_by": "batch",
    "mode": "train",
    "n_calls": 1,
    "n_calls_learning": 0,
    "memory_moved": 0.0,
}


@pytest.mark.parametrize(
    ("row", "because"),
    [
        ({}, ONE_OF_TWO),
        ({"normalized_by": "both", "mode": "mixed"}, ONE_OF_TWO),
        (
            {"memory_moved": 0.25},
            "1 of 2 batch norms used batch statistics while no gradients were computed; running means moved by up to 0.25 "
            "running σ.",
        ),
        ({"kind": "instance_norm"}, None),
        ({"n_calls": 0}, None),
        ({"n_calls_learning": 1}, None),
        ({"normalized_by": "running"}, None),
    ],
)  # fmt: skip
def test_train_mode_in_an_evaluation(row: dict[str, Any], because: str | None) -> None:
    """Fails if norms that learn, or use running statistics, count; or statistics that moved are not told."""
    base = edited(evidence(healthy("a"), healthy("b")), **{**EVALUATED, **row})
    found = findings("train-mode-in-evaluation", base)
    assert [one.because for one in found] == ([because] if because else [])
    for one in found:
        assert one.remedy == Remedy((SetMode("", training=False),))
        assert ("and the running statistics changed" in one.says) == ("moved" in str(because))


TRAINS = {
    "n_calls": 3,
    "n_calls_model_training": 3,
    "n_calls_learning": 3,
    "mode": "eval",
    "normalized_by": "running",
    "learns": "both",
}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, "but γ and β learn: they adapt to"),
        ({"learns": "γ"}, "but γ learns: it adapts to"),
        ({"learns": "β"}, "but β learns: it adapts to"),
        ({"learns": "none"}, None),
        ({"n_calls_model_training": 2}, None),
        ({"n_calls_learning": 0}, None),
        ({"n_calls_learning": 1}, "but γ and β learn"),
        ({"mode": "train"}, None),
        ({"normalized_by": "batch"}, None),
    ],
)
def test_frozen_statistics_under_vectors_that_learn(row: dict[str, Any], says: str | None) -> None:
    """Fails if a norm in train mode, one that does not learn, or a model that does not train is told."""
    found = findings("learning-but-frozen", edited(evidence(), **{**TRAINS, **row}))
    assert len(found) == (says is not None)
    for one in found:
        assert str(says) in one.says
        assert ("require a gradient" in one.because) == (row.get("learns", "both") == "both")
        assert one.remedy == Remedy((Freeze(("bn",)),))


@pytest.mark.parametrize(
    ("row", "end"),
    [
        ({"n_updates": 1}, "moved by 0.5 running σ in 1 update (threshold: not at all)."),
        ({"n_updates": 0}, "moved by 0.5 running σ (threshold: not at all)."),
        ({"call": 1}, None),
        ({"normalized_by": "running"}, None),
    ],
)
def test_what_is_said_of_frozen_norms_that_move(row: dict[str, Any], end: str | None) -> None:
    """Fails if a copied average, or a second call, is told as an update; or no update is counted as one."""
    given = {"learns": "none", "n_calls_learning": 1, "normalized_by": "batch", "memory_moved": 0.5, **row}
    found = findings("frozen-but-moving", edited(evidence(), **given))
    assert len(found) == (end is not None)
    for one in found:
        assert one.because.endswith(str(end))
        assert one.remedy == Remedy((SetMode("bn", training=False),))
