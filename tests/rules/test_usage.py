"""Rules about how norms were used: what fires each one, and its nearest healthy neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measures.sites import call_log, running_stats_of, site, some_rows

from bnprobe.checkpoints.records import without_calls
from bnprobe.recording import LayerRecord
from rules.firing import fired

ROWS = some_rows(40)
STATISTICS = running_stats_of(ROWS)
LEARNED = {"gamma": 1.5, "beta": 0.1, **STATISTICS}
TRAIN = {"n_calls_training": 1, "n_calls_running": 0}


def norm(layer: str = "bn", changes: dict[str, Any] | None = None, **facts: Any) -> LayerRecord:
    """A trained batch norm whose data agree with its running statistics; `facts` are those of the call log."""
    return site(ROWS, layer, **{**LEARNED, **(changes or {})}, call_log=call_log(**facts))


def learning(**facts: Any) -> dict[str, Any]:
    return {"n_calls_learning": 1, "n_calls_model_training": 1, **facts}


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
    assert "2 batch norms in eval mode" in found["because"][0]
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


@pytest.mark.parametrize(("updates", "fires"), [(4, 0), (5, 0), (6, 1), (8, 1)])
def test_more_updates_than_calls(updates, fires):
    """Fails if one failed pass counts as checkpointing, or calls of one layer are not added up."""
    changes = {**TRAIN, "n_calls": 2, "n_calls_training": 2}
    calls = [norm(changes={**changes, "call": call}, **learning(n_updates=updates)) for call in (0, 1)]
    found = fired("updated-twice", *calls)
    assert len(found) == fires
    if updates == 8:
        assert "2 per call" in found["because"][0]
        assert "momentum 0.1 acts as 0.19" in found["because"][0]


@pytest.mark.parametrize(
    ("momentum", "fires"), [(0.0, 1), (0.1, 0), (0.49, 0), (0.5, 1), (1.0, 1), (None, 1)]
)
def test_momentum_while_learning(momentum, fires):
    """Fails if a limit moves, or None is taken for 0."""
    found = fired("momentum-odd", norm(changes={**TRAIN, "momentum": momentum}, **learning()))
    assert len(found) == fires


@pytest.mark.parametrize(
    ("momentum", "meant"), [(0.99, "0.01"), (0.9, "0.1"), (0.999, "0.001"), (0.6, "0.1"), (1.0, "0.1")]
)
def test_a_momentum_of_the_other_convention_is_translated(momentum, meant):
    """Fails if the advice for a momentum taken over from Keras is another than 1 minus it."""
    found = fired("momentum-odd", norm(changes={**TRAIN, "momentum": momentum}, **learning()))
    assert f".momentum = {meant}`" in found["do"][0]
    assert ("so their" in found["because"][0]) == (momentum in (0.9, 0.99, 0.999))


@pytest.mark.parametrize(("momentum", "fires"), [(0.0, 0), (None, 0), (0.9, 1)])
def test_momentum_in_use(momentum, fires):
    """Fails if a frozen momentum, or a plain average of statistics that fit, is blamed in eval mode."""
    assert len(fired("momentum-odd", norm(changes={"momentum": momentum}))) == fires


def test_a_plain_average_that_no_longer_fits():
    """Fails if None is never blamed in eval mode."""
    off = STATISTICS["running_mean"] + 2 * np.sqrt(STATISTICS["running_var"])
    found = fired("momentum-odd", norm(changes={"momentum": None, "running_mean": off}))
    assert len(found) == 1
    assert "mean" in found["because"][0]


def test_norms_without_a_counter_have_no_momentum():
    """Fails if a frozen batch norm of another library, which has no momentum, is told to set one."""
    assert fired("momentum-odd", norm(changes={**TRAIN, "momentum": None, "n_batches_tracked": None})).empty


def young(k: int, honest: bool = True) -> LayerRecord:
    left = 0.9**k
    mean, var = STATISTICS["running_mean"], STATISTICS["running_var"]
    share = 1 - left if honest else 1.0
    changes = {"running_mean": share * mean, "running_var": share * var + 1 - share, "n_batches_tracked": k}
    return norm(changes=changes)


@pytest.mark.parametrize(("k", "fires"), [(5, 1), (21, 1), (22, 0)])
def test_initial_values_that_still_weigh(k, fires):
    """Fails if the weight is not (1 - m)^k, or the threshold moves: 0.9^21 = 0.109, 0.9^22 = 0.098."""
    assert len(fired("statistics-young", young(k))) == fires


def test_a_short_count_over_good_statistics_is_no_fault():
    """Fails if the count alone is believed: re-estimated statistics are plain averages over few batches."""
    assert fired("statistics-young", young(5, honest=False)).empty


def test_means_that_are_too_small_to_tell_are_not_young():
    """Fails if noise counts: the running mean of a channel at a tenth of its std, 40 samples, is uncertain by more."""
    rows = np.random.default_rng(5).normal(0.1, 1, size=(40, 3, 1))
    mean = 0.9 * rows.mean((0, 2))
    same = site(
        rows, "bn", **{**LEARNED, "running_mean": mean, "running_var": np.ones(3)}, n_batches_tracked=20
    )
    assert fired("statistics-young", same).empty
    assert len(fired("statistics-young", young(20))) == 1


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
