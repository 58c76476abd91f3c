"""Recordings add up: what differs is refused by name, and what adds is added once."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import reduce
from itertools import permutations

import numpy as np
import pytest
import torch
from support import oracles
from support.gradients import assert_same_gradients
from support.models import BY_NAME, Case
from torch import nn

import bnprobe
from bnprobe.errors import BnprobeError, CannotMerge
from bnprobe.recording import About, CallLog, GradientRecord, LayerRecord, OutputCheck, Recording
from bnprobe.recording.neighbours import Neighbours
from bnprobe.stats import Folds, Histogram, ImageMoments
from bnprobe.stats.fields import RECORDED
from bnprobe.stats.tokens import ADDED, TokenStats

MERGED_CASES = [
    BY_NAME[name]
    for name in (
        "mixed",
        "twice",
        "no running statistics",
        "instance norm with statistics",
        "layer norm over an image",
        "RMS norm of 1 + w",
        "fused activation",
    )
]


def recorded(case: Case, batches: list[torch.Tensor], training: bool = False) -> Recording:
    """One part, on a machine of its own: the model is built anew from the same checkpoint."""
    model = case.model(training)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # its masks would differ between one run and several
    with bnprobe.attach(model) as probe:
        for x in batches:
            case.call(model, x)
    return probe.recording


@pytest.fixture(scope="module")
def mixed() -> Recording:
    return recorded(BY_NAME["mixed"], BY_NAME["mixed"].batches())


def assert_same_recordings(found: Recording, expected: Recording, rtol: float, in_order: bool = True) -> None:
    """The same sites in any order; every statistic to `rtol`, every other field exactly. `in_order` says whether the
    batches were merged in the order in which the whole saw them, which decides on the fold of each."""
    one = {record.site: record for record in found.layers}
    other = {record.site: record for record in expected.layers}
    assert one.keys() == other.keys()
    for site, record in one.items():
        assert_same_records(record, other[site], rtol, in_order)
    assert found.never_called == expected.never_called
    assert found.not_understood == expected.not_understood


def assert_same_records(
    found: LayerRecord, expected: LayerRecord, rtol: float, in_order: bool = True
) -> None:
    for name, value in vars(found).items():
        other = getattr(expected, name)
        if name in ("mismatch", "n_batches_tracked"):
            continue  # of one call, not a sum
        if other is None or value is None:
            assert value is other, name
        elif isinstance(value, Histogram):
            assert_same_shape_of_histograms(value, other)
        elif isinstance(value, ImageMoments):
            oracles.assert_same_images(value.about(other.origin), dict(vars(other)), rtol)
        elif isinstance(value, Folds):
            oracles.assert_same_folds(value.about(other.origin), vars(other), rtol, in_order)
        elif hasattr(value, "pool"):
            oracles.assert_same_moments(value, dict(vars(other)), rtol)
        elif isinstance(value, GradientRecord):
            assert_same_gradients(value, other, rtol)
        elif isinstance(value, CallLog):
            of_one_part = dict.fromkeys(("fewest_call", "running_mean_after", "running_var_after"))
            assert replace(value, **of_one_part) == replace(other, **of_one_part)
        elif isinstance(value, OutputCheck):
            # shares are those of the first call, and each part of a run has one
            of_first = dict.fromkeys(
                ("remaining", "constant_rows", "zero_positions", "zero_rows", "saturated")
            )
            assert replace(value, **of_first) == replace(other, **of_first), name
        elif isinstance(value, TokenStats):
            assert_same_tokens(value, other, rtol, in_order)
        elif isinstance(value, Neighbours):
            np.testing.assert_equal(asdict(value), asdict(other), err_msg=name)
        elif name in RECORDED and not RECORDED[name].whole:
            np.testing.assert_allclose(value, other, rtol, err_msg=name)
        else:
            np.testing.assert_array_equal(value, other, err_msg=name)


def assert_same_tokens(found: TokenStats, expected: TokenStats, rtol: float, in_order: bool) -> None:
    """Every sum, and the loudest tokens; their sequences are numbered in the order of the parts."""
    for name in ADDED:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol, 1e-9, err_msg=name)
    np.testing.assert_allclose(found.loudest[:, 0], expected.loudest[:, 0], rtol)
    if in_order:
        np.testing.assert_array_equal(np.sort(found.loudest[:, 1]), np.sort(expected.loudest[:, 1]))


def assert_same_shape_of_histograms(found: Histogram, expected: Histogram) -> None:
    """The same number of values; bin by bin where both were counted on one scale."""
    np.testing.assert_array_equal(found.n, expected.n)
    if np.array_equal(found.centre, expected.centre) and np.array_equal(found.scale, expected.scale):
        np.testing.assert_array_equal(found.counts, expected.counts)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", MERGED_CASES, ids=lambda case: case.name)
def test_parts_saved_loaded_and_merged_in_any_order_are_the_whole(case, training, tmp_path):
    """Fails if anything is lost or counted twice between one run and three machines' files.

    To 1e-9 where stored statistics fix the origin and scale, to 1e-6 where each part set its own.
    """
    batches = case.batches()
    whole = recorded(case, batches, training)
    paths = [recorded(case, [x], training).save(tmp_path / f"{i}.bnp") for i, x in enumerate(batches)]
    rtol = 1e-9 if all(record.has_running for record in whole.layers) else 1e-6
    for order in permutations(paths):
        merged = reduce(Recording.merge, [bnprobe.load(path) for path in order])
        assert_same_recordings(merged, whole, rtol, in_order=list(order) == paths)
        assert merged.about.n_forwards == whole.about.n_forwards == 3
        assert merged.about.n_images == whole.about.n_images == sum(len(x) for x in batches)


def test_merging_keeps_histograms_of_one_scale_in_one_sheet(mixed):
    """Fails if a norm with stored statistics counts against its first batch: parts would not add."""
    case = BY_NAME["mixed"]
    batches = case.batches()
    merged = reduce(Recording.merge, [recorded(case, [x]) for x in batches])
    bn, whole = merged.layers[0], mixed.layers[0]
    assert (bn.layer, len(bn.pre_histogram.centre), len(bn.post_histogram.centre)) == ("bn", 1, 1)
    np.testing.assert_array_equal(bn.pre_histogram.counts, whole.pre_histogram.counts)


def test_empty_recording_is_the_identity(mixed):
    """Fails if a machine that saw nothing spoils the sum, or a layer it never reached stays "never called"."""
    model = BY_NAME["mixed"].model()
    with bnprobe.attach(model) as probe:
        pass
    nothing = probe.recording
    assert nothing.never_called == ("bn", "gn", "ln", "rms")
    for merged in (nothing.merge(mixed), mixed.merge(nothing)):
        assert_same_recordings(merged, mixed, 1e-12)


def test_merge_does_not_change_its_arguments(mixed):
    """Fails if totals are added in place: the same part could then be merged only once."""
    before = {name: getattr(mixed.layers[0], name).copy() for name in RECORDED}
    twice = mixed.merge(mixed)
    for name, sum_ in before.items():
        np.testing.assert_array_equal(getattr(mixed.layers[0], name), sum_, err_msg=name)
        np.testing.assert_array_equal(getattr(twice.layers[0], name), 2 * sum_, err_msg=name)
    assert twice.layers[0].n_calls == 2 * mixed.layers[0].n_calls


@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
def test_other_weights_are_refused_by_layer_field_and_gap(mixed, name):
    """Fails if recordings of two checkpoints are added as if they were one."""
    record = mixed.layers[0]
    moved = getattr(record, name) + np.array([0, 0, 0.031, 0, -0.01, 0])
    other = replace(mixed, layers=(replace(record, **{name: moved}), *mixed.layers[1:]))
    with pytest.raises(CannotMerge, match="Record both shards from the same checkpoint") as caught:
        mixed.merge(other)
    assert f"bn: {name} differs (largest gap 0.031)" in str(caught.value)


def test_a_missing_vector_is_a_difference(mixed):
    """Fails if None against numbers compares as equal, or NaN in the same place as different."""
    record = mixed.layers[0]
    with pytest.raises(CannotMerge, match=r"gamma differs \(largest gap inf\)"):
        record.merge(replace(record, gamma=None))
    poisoned = np.where([1, 0, 0, 0, 0, 0], np.nan, record.running_var)
    with pytest.raises(CannotMerge, match=r"running_var differs \(largest gap inf\)"):
        record.merge(replace(record, running_var=poisoned))
    same = replace(record, running_var=poisoned)
    assert same.merge(replace(record, running_var=poisoned.copy())).n_calls == 2 * record.n_calls


@pytest.mark.parametrize(("name", "value"), [("kind", "layer_norm"), ("pools", "group"), ("eps", 0.1)])
def test_other_layers_are_refused(mixed, name, value):
    """Fails if a group norm's record is added to a batch norm's because both have six channels."""
    record = mixed.layers[0]
    with pytest.raises(CannotMerge, match="Record both from the same checkpoint") as caught:
        record.merge(replace(record, **{name: value}))
    assert f"bn: {name} is" in str(caught.value)


def test_models_without_a_common_layer_are_refused(mixed):
    """Fails if the recordings of two models are put side by side in silence."""
    other = recorded(BY_NAME["twice"], BY_NAME["twice"].batches())
    other = replace(other, layers=tuple(replace(r, layer="elsewhere") for r in other.layers))
    with pytest.raises(CannotMerge, match="compare different ones instead"):
        mixed.merge(other)


def test_merge_joins_what_is_known_of_the_modes(mixed):
    """Fails if "mixed" or "both" cannot come out of a merge, or flags are lost from either side."""
    record = mixed.layers[0]
    training = replace(
        record, n_calls_training=record.n_calls, n_calls_running=0, buffers_moved=True, output="read"
    )
    for merged in (record.merge(training), training.merge(record)):
        assert (merged.mode, merged.normalized_by) == ("mixed", "both")
        assert merged.buffers_moved
        assert not merged.parameters_moved
        assert merged.output == "read"
    assert (record.mode, record.normalized_by) == ("eval", "running")
    assert (training.mode, training.normalized_by) == ("train", "batch")
    assert mixed.layers[1].normalized_by == "sample"


def test_merge_keeps_the_larger_mismatch(mixed):
    """Fails if NaN (not checked) or the smaller gap hides a formula that did not fit."""
    record = mixed.layers[0]
    for mine, theirs in [(0.1, 0.5), (0.5, 0.1), (np.nan, 0.5), (0.5, np.nan)]:
        assert replace(record, mismatch=mine).merge(replace(record, mismatch=theirs)).mismatch == 0.5


def test_about_adds_numbers_and_keeps_sentences():
    """Fails if images or seconds are overwritten, or a second machine's name is lost or repeated."""
    one = About(
        "Net", device="cpu", started="2024-02-02", n_forwards=2, n_images=5, seconds=1.5, notes=("a",)
    )
    other = About(
        "Net", device="gpu", started="2024-01-01", n_forwards=3, n_images=7, seconds=2.0, notes=("b", "a")
    )
    merged = one.merge(other)
    assert merged == other.merge(one)
    assert (merged.n_forwards, merged.n_images, merged.seconds) == (5, 12, 3.5)
    assert (merged.model, merged.device, merged.started, merged.notes) == (
        "Net",
        "cpu + gpu",
        "2024-01-01",
        ("a", "b"),
    )
    assert merged.merge(one).device == "cpu + gpu"


def test_site_names_the_call():
    """Fails if two calls of one layer read alike in messages."""
    case = BY_NAME["twice"]
    assert [record.site for record in recorded(case, case.batches()).layers] == ["bn", "bn (call 2)"]


def test_a_site_stands_once(mixed):
    """Fails if the same record may be counted twice in one recording."""
    with pytest.raises(BnprobeError, match="a site twice"):
        replace(mixed, layers=(*mixed.layers, mixed.layers[0]))


@pytest.mark.parametrize("name", ["gamma", *RECORDED, "post", "pre_images", "pre_folds"])
def test_a_record_has_one_entry_per_channel(mixed, name):
    """Fails if an array of another layer's length is accepted; the message names layer and field."""
    record, other = (
        mixed.layers[0],
        recorded(BY_NAME["batch norm"], BY_NAME["batch norm"].batches()).layers[0],
    )
    with pytest.raises(BnprobeError, match=rf"bn / {name}: expected shape \(6,\), found \(3,\)"):
        replace(record, **{name: getattr(other, name)})


def test_pools_is_one_of_four(mixed):
    """Fails if a misspelt way of pooling is believed."""
    with pytest.raises(BnprobeError, match="expected one of batch, instance, group, channels"):
        replace(mixed.layers[0], pools="layer")


@pytest.mark.insane
@pytest.mark.parametrize("name", ["pre", "post", "own_mean", "own_log_var"])
def test_check_sane_asks_every_statistic(mixed, name):
    """Fails if one of the four moments of a record is never checked."""
    record = mixed.layers[1]
    bad = replace(getattr(record, name), m2=-np.ones_like(getattr(record, name).m2))
    with pytest.raises(BnprobeError, match=f"gn / {name}: variance >= 0"):
        replace(mixed, layers=(mixed.layers[0], replace(record, **{name: bad}))).check_sane()


def test_check_sane_bounds_the_positive_count(mixed):
    """Fails if more positive outputs than outputs are believed, or fewer than none."""
    record = mixed.layers[0]
    for count in (record.post.n + 1, record.post.n * 0 - 1):
        with pytest.raises(BnprobeError, match="more positive outputs than outputs"):
            replace(record, n_positive=count).check_sane()


def test_parts_without_histograms_leave_the_whole_without():
    """Fails if counts of a part of the data are shown as if they were of all."""
    case = BY_NAME["batch norm"]
    first, second, _ = case.batches()
    model = case.model()
    with bnprobe.attach(model, histograms=False) as probe:
        model(first)
    assert probe.recording.layers[0].pre_histogram is None
    merged = probe.recording.merge(recorded(case, [second]))
    assert merged.layers[0].pre_histogram is None
    assert merged.layers[0].post_histogram is None
    assert merged.layers[0].pre.n[0] == 5 * 35


@pytest.mark.parametrize("name", RECORDED)
def test_a_part_that_did_not_look_leaves_the_whole_without(mixed, name):
    """Fails if a sum of some of the data, as in a file from before there was one, is shown as that of all."""
    looked = mixed.layers[0]
    before = replace(looked, **{name: None})
    for merged in (looked.merge(before), before.merge(looked)):
        assert getattr(merged, name) is None


@pytest.mark.parametrize("first_training", [False, True])
def test_modes_recorded_in_parts_are_modes_recorded_in_one_go(first_training):
    """Fails if a norm's own statistics of the training calls are lost on merging with a part that has none."""
    case = BY_NAME["instance norm with statistics"]
    model, batches = case.model(), case.batches()
    parts = []
    with bnprobe.attach(model) as whole:
        for x, training in zip(batches, (first_training, not first_training, first_training), strict=True):
            # no update of the buffers, so that the parts may be merged
            model.train(training)
            model[0].momentum = 0.0
            with bnprobe.attach(model) as part:
                model(x)
            parts.append(part.recording)
    assert whole.recording.layers[0].own_mean is not None
    assert_same_recordings(reduce(Recording.merge, parts), whole.recording, 1e-9)


@pytest.mark.parametrize("other", [None, "part.bnp", 3])
def test_merging_with_something_else_says_what_is_needed(mixed, other):
    """Fails if a forgotten `.recording` or a bare path ends in an AttributeError."""
    with pytest.raises(CannotMerge, match="needs another Recording"):
        mixed.merge(other)


def test_parts_of_a_training_run_are_refused_for_what_they_are():
    """Fails if somebody who recorded while training is told that the checkpoints differ."""
    case = BY_NAME["batch norm"]
    model, parts = case.model(training=True), []
    for x in case.batches()[:2]:
        with bnprobe.attach(model) as probe:
            model(x)
        parts.append(probe.recording)
    with pytest.raises(CannotMerge, match="updated while the first part was recorded"):
        parts[0].merge(parts[1])
