"""Rules about how norms were used: what fires each one, and its nearest healthy neighbour."""

from __future__ import annotations

import numpy as np
import pytest
from measures.sites import call_log, site, some_rows

from bnprobe.checkpoints.records import without_calls
from bnprobe.rules import Finding
from rules.edited import edited, evidence, findings
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
