"""Rules about the model's input: mistakes of preprocessing, and images of another size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.first_norms import (
    CONSTANTS,
    DIGITS,
    GREY,
    MATRIX,
    N_CHANNELS,
    NORM,
    PIXELS,
    grey_norm,
    inputs_of,
    stem_norm,
    symmetric,
)
from measures.sites import call_log, recording

from bnprobe.measures import tables
from bnprobe.recording import Recording
from bnprobe.recording.neighbours import Stem
from bnprobe.recording.terms import VISIBLE_SHIFT
from bnprobe.rules import judge
from bnprobe.rules.preprocessing import reported_at
from bnprobe.rules.rule import Evidence
from bnprobe.rules.thresholds import DEFAULT
from rules.edited import evidence


@pytest.mark.parametrize("change", [lambda p: 0.6 * p, lambda p: 0.5 + 0.5 * (p - 0.5), lambda p: p**2])
def test_other_images_are_no_mistake(change):
    """Fails if a darker, flatter or steeper camera is taken for a mistake of preprocessing."""
    found = judge(tables(stem_norm(inputs_of(change(PIXELS)))))
    assert "input-not-as-trained" not in set(found["rule"])


@pytest.mark.parametrize(("detail", "fires"), [(0.69, 1), (0.72, 0), (1.40, 0), (1.43, 1)])
def test_detail_is_compared_with_areas(detail, fires):
    """Fails if the threshold moves, or fine and coarse filters are exchanged."""
    whole = stem_norm(inputs_of(PIXELS))
    (first,) = whole.layers
    coarse = np.linalg.norm(MATRIX, axis=1) / NORM
    fine = coarse < np.sort(coarse)[N_CHANNELS // 3]
    # more running variance in fine filters is what smoother images look like
    running = np.where(fine, first.running_var / detail**2, first.running_var)
    found = judge(tables(replace(whole, layers=(replace(first, running_var=running),))))
    found = found[found["rule"] == "input-size"]
    assert len(found) == fires
    if fires:
        assert ("smoother" in found["says"].iloc[0]) == (detail < 1)


@pytest.mark.parametrize(("areas", "apart", "fires"), [(1, 1, 1), (0.7, 1, 0), (1.4, 1, 0), (1, 2.1, 0)])
def test_detail_is_not_reported_where_areas_changed_as_well(areas, apart, fires):
    """Fails if another contrast, a lost color, or running statistics that are wrong are called enlarged or noisy."""
    whole = stem_norm(inputs_of(PIXELS))
    (first,) = whole.layers
    coarse = np.linalg.norm(MATRIX, axis=1) / NORM
    n = N_CHANNELS // 3
    factor = np.where(coarse < np.sort(coarse)[n], 0.6, areas)
    factor[np.argmax(coarse)] *= apart
    running = first.running_var / factor**2
    found = judge(tables(replace(whole, layers=(replace(first, running_var=running),))))
    assert (found["rule"] == "input-size").sum() == fires


def test_one_constant_in_all_samples_is_told_without_a_line_to_undo_it():
    """Fails if code without a line stands in the advice, or a following rule repeats it."""
    found = judge(tables(replace_normalize(stem_norm(0 * PIXELS))))
    (row,) = found[found["rule"] == "input-not-as-trained"].itertuples()
    assert row.severity == "critical"
    assert "every sample is the same constant" in row.says
    assert "`" not in row.do
    assert row.remedy is None
    assert "data-shifted" not in set(found["rule"])


def replace_normalize(whole: Recording) -> Recording:
    return replace(whole, about=replace(whole.about, normalize=None))


def test_a_frozen_first_norm_is_named_and_no_critical_fault():
    """Fails if a network that may have learned with the mismatch is told to undo it without a word."""
    whole = stem_norm(255 * PIXELS)
    (first,) = whole.layers
    for n_learning, severity, told in ((5, "warning", True), (0, "critical", False)):
        kept = replace(first, call_log=call_log(gamma_learns=False, beta_learns=False))
        found = judge(
            tables(replace(whole, layers=(kept,), about=replace(whole.about, n_learning=n_learning)))
        )
        (row,) = found[found["rule"] == "input-not-as-trained"].itertuples()
        assert (row.severity, "This norm is frozen" in row.do) == (severity, told)


def training() -> dict[str, Any]:
    """The first norm in train mode, its running statistics half way to the batch's."""
    (first,) = stem_norm(PIXELS).layers
    log = call_log(
        n_calls_learning=1,
        n_calls_model_training=1,
        running_mean_after=(first.running_mean + first.pre.mean) / 2,
        running_var_after=(first.running_var + first.pre.var_population) / 2,
    )
    return {"n_calls_running": 0, "n_calls_training": 1, "buffers_moved": True, "call_log": log}


TRAINING = training()


def of_inputs(whole: Recording) -> Any:
    """The one finding about the preprocessing."""
    found = judge(tables(whole))
    (row,) = found[found["rule"] == "input-not-as-trained"].itertuples()
    return row


def test_inputs_are_reported_from_beyond_the_limits():
    """Fails if a shift or a scale at the limit is reported, or one beyond it is not, larger or smaller."""
    seen = Evidence.of(tables(grey_norm(symmetric, GREY)))
    assert reported_at(seen)
    top = DEFAULT.variance_ratio**0.5
    least = DEFAULT.shift if seen.preprocessing["light"].iloc[0] else VISIBLE_SHIFT
    for shift, scale, reported in (
        (least, top, False),
        (least, 1 / top, False),
        (np.nextafter(least, 9), 1.0, True),
        (0.0, np.nextafter(top, 9), True),
        (0.0, np.nextafter(1 / top, 0), True),
    ):
        table = seen.preprocessing.assign(shift=shift, scale_predicted=scale)
        assert bool(reported_at(replace(seen, preprocessing=table))) is reported, (shift, scale)


def test_one_channel_without_constants_names_no_cause():
    """Fails if constants in use, which fit by chance, name a cause, and the images are inverted to undo it."""
    row = of_inputs(grey_norm(symmetric, None))
    assert "as if every input was multiplied by 0.7" in row.says
    assert "brightness is inverted (1" not in row.says
    assert "normalize=(mean, std)" in row.do


def test_one_channel_with_constants_names_the_cause():
    """Fails if the caution about unknown constants silences known ones."""
    row = of_inputs(grey_norm(symmetric, GREY))
    assert "scaled to -1 to 1" in row.says
    assert "normalize=" not in row.do


def test_gain_and_offset_are_undone():
    """Fails if the line for one channel does not bring mean and std back."""
    wrong = 255 * DIGITS
    row = of_inputs(grey_norm(lambda pixels: 255 * pixels, None))
    assert row.severity == "critical"
    names = {"x": wrong}
    exec(row.do.split("`")[1], names)
    np.testing.assert_allclose(names["x"], (DIGITS - DIGITS.mean()) / DIGITS.std(), atol=2e-3)


def test_a_cause_that_misses_the_std_is_not_named():
    """Fails if the mean alone names a cause: that of inputs that were not normalized, with four times the contrast."""
    found = judge(tables(stem_norm(PIXELS + 0.8 * np.random.default_rng(2).normal(size=PIXELS.shape))))
    assert "input-not-as-trained" not in set(found["rule"])


def test_two_causes_that_fit_alike_are_both_told():
    """Fails if the better of two that hardly differ is called the cause, or undone as more than a trial."""
    std = np.array(CONSTANTS.std)[:, None]
    row = of_inputs(stem_norm((inputs_of(inputs_of(PIXELS)) + inputs_of(PIXELS) / std) / 2))
    assert "it may be that" in row.says
    assert "normalized twice" in row.says
    assert "divided by the std twice" in row.says
    assert "Try the first: undo it and record again, `" in row.do
    assert row.do.endswith("Where this stays, it is another of these.")


def test_one_deviation_is_one_finding():
    """Fails if inputs that may be wrong in one of two ways are reported again as data that do not match, there or behind."""
    std = np.array(CONSTANTS.std)[:, None]
    whole = stem_norm((inputs_of(inputs_of(PIXELS)) + inputs_of(PIXELS) / std) / 2)
    (first,) = whole.layers
    behind = replace(first, layer="bn2", neighbours=None)
    found = judge(tables(replace(whole, layers=(first, behind))))
    assert found["rule"].isin(["input-not-as-trained", "data-shifted"]).sum() == 1
    matches = replace(behind, running_mean=first.pre.mean, running_var=first.pre.var_population)
    apart = replace(whole, layers=(first, matches, replace(behind, layer="bn3")))
    found = judge(tables(apart)).set_index("rule")
    assert found.loc["data-shifted", "layer"] == "bn3"


@pytest.mark.parametrize("k", [1 / 300, 1000.0])
def test_a_factor_in_the_running_statistics_is_no_gain_of_the_inputs(k):
    """Fails if running mean and variance times k are told as inputs of another scale, which any offset would fit."""
    (first,) = stem_norm(inputs_of(PIXELS)).layers
    factored = {"running_mean": k * first.running_mean, "running_var": k * first.running_var}
    whole = stem_norm(inputs_of(PIXELS), **factored)
    for constants in (CONSTANTS, None):
        found = judge(tables(replace(whole, about=replace(whole.about, normalize=constants))))
        assert "input-not-as-trained" not in set(found["rule"])
        (says,) = found.loc[found["rule"] == "data-shifted", "says"]
        assert "running mean and variance are both" in says


def test_what_would_look_the_same_is_in_the_sentence():
    """Fails if inverted photographs are called swapped colors without a word, or one line is given that undoes only one."""
    color = np.array([0.5, 0.46, 0.42])[:, None]
    photographs = np.clip(color + 0.1 * np.random.default_rng(0).normal(size=PIXELS.shape), 0, 1)
    trained = np.einsum("cf,nfp->ncp", MATRIX, inputs_of(photographs))
    statistics = {"running_mean": trained.mean((0, 2)), "running_var": trained.var((0, 2))}
    row = of_inputs(stem_norm(inputs_of(photographs[:, ::-1]), **statistics))
    assert "red and blue are swapped" in row.says
    assert "or, which is rarer, light and dark are exchanged (1 - p)." in row.says
    assert row.do.startswith("Look at one image as it enters the model, which tells these apart.")


def test_black_images_are_looked_at():
    """Fails if black images get a line of code that cannot bring them back."""
    row = of_inputs(stem_norm(inputs_of(0 * PIXELS)))
    assert "the images are black" in row.says
    assert "`" not in row.do


def test_what_is_explained_is_told():
    """Fails if the finding does not say how much of the discrepancy the mistake explains, or says it of the wrong one."""
    row = of_inputs(stem_norm(PIXELS))
    assert "without subtracting the mean" in row.says
    assert "explains more than 99% of the discrepancy" in row.because


@pytest.mark.parametrize(("changes", "fires"), [({}, 1), (TRAINING, 0)])
def test_a_norm_that_follows_the_batches_has_no_wrong_inputs(changes, fires):
    """Fails if the training itself is recorded, and its images are called wrong by statistics that are on their way."""
    found = judge(tables(stem_norm(PIXELS, **changes)))
    assert (found["rule"] == "input-not-as-trained").sum() == fires
    assert not (found["rule"] == "data-shifted").any()


YOUNG = {"gamma": np.full(N_CHANNELS, 1.01), "beta": np.full(N_CHANNELS, 0.01), "momentum": 0.1}


@pytest.mark.parametrize(("n", "told"), [(21, False), (22, True), (90, True)])
def test_a_young_network_is_told_of_its_inputs(n: int, told: bool) -> None:
    """Fails if a network of some steps is silent about inputs of 0 to 255, or one whose initial 0 and 1 are left is not.

    0.9 to the power of 22 is below a tenth.
    """
    found = judge(tables(stem_norm(255 * PIXELS, **YOUNG, n_batches_tracked=n)))
    assert ("input-not-as-trained" in set(found["rule"])) is told
    # where no mistake explains it, that of the first norm and of no other
    found = judge(tables(stem_norm(inputs_of(PIXELS) * [[1], [-3], [9]] - 7, **YOUNG, n_batches_tracked=n)))
    assert ("data-shifted" in set(found["rule"])) is told


def test_the_norms_of_a_young_network_are_behind_its_weights() -> None:
    """Fails if running statistics that weights outrun in the first steps are called data that do not match."""
    (first,) = stem_norm(inputs_of(PIXELS), **YOUNG, n_batches_tracked=90).layers
    behind = first.running_mean + 2.5 * np.sqrt(first.running_var)
    later = replace(first, layer="bn2", neighbours=None, running_mean=behind)
    found = judge(tables(recording(first, later, normalize=CONSTANTS)))
    assert "data-shifted" not in set(found["rule"])


@pytest.mark.parametrize(("n", "fires"), [(21, 0), (22, 1)])
def test_detail_is_not_read_from_an_initial_variance(n: int, fires: int) -> None:
    """Fails if the 1 with which every running variance begins is taken for detail of the images."""
    (first,) = stem_norm(inputs_of(PIXELS)).layers
    coarse = np.linalg.norm(MATRIX, axis=1) / NORM
    fine = coarse < np.sort(coarse)[N_CHANNELS // 3]
    var = np.where(fine, first.running_var * 4, first.running_var)
    young = replace(first, running_var=var, momentum=0.1, n_batches_tracked=n)
    found = judge(tables(recording(young, normalize=CONSTANTS)))
    assert (found["rule"] == "input-size").sum() == fires


@pytest.mark.parametrize(("constants", "asked"), [(None, True), (CONSTANTS, False)])
def test_a_shift_without_constants_asks_for_them(constants, asked):
    """Fails if the cause could be named, and nobody tells the user what for; or the constants are there."""
    whole = stem_norm(inputs_of(0.3 * PIXELS + 0.6))
    found = judge(tables(replace(whole, about=replace(whole.about, normalize=constants))))
    (do,) = found.loc[found["rule"] == "data-shifted", "do"]
    assert ("normalize=(mean, std)" in do) == asked


@pytest.mark.parametrize("changed", [3 * inputs_of(PIXELS), inputs_of(0.3 * PIXELS + 0.6)])
def test_signals_have_no_constants_to_give(changed: np.ndarray) -> None:
    """Fails if somebody with eight electrodes is asked for the mean and std of pixels."""
    whole = stem_norm(changed, Stem(MATRIX, None, n_sides=1))
    found = judge(tables(replace(whole, about=replace(whole.about, normalize=None))))
    assert found["rule"].isin(["data-shifted", "input-not-as-trained"]).any()
    assert not found["do"].str.contains("normalize=").any()


@pytest.mark.parametrize(
    ("facts", "speaks"),
    [
        ({"scale_predicted": 1.41}, False),
        ({"scale_predicted": 1.42}, True),
        ({"scale_predicted": 1 / 1.41}, False),
        ({"scale_predicted": 1 / 1.42}, True),
        ({"shift": VISIBLE_SHIFT}, False),
        ({"shift": np.nextafter(VISIBLE_SHIFT, 1)}, True),
        ({"shift": 1.0, "mistake": ""}, False),
        ({"shift": 0.5, "light": True}, False),
        ({"shift": 0.51, "light": True}, True),
    ],
)
def test_how_much_of_a_mistake_is_reported(facts: dict[str, Any], speaks: bool):
    """Fails if a mistake that hardly changes the inputs is reported: the std by less than √2, which doubles the variance."""
    row = {
        "layer": "bn",
        "mistake": "x",
        "shift": 0.0,
        "scale_predicted": 1.0,
        "certain": True,
        "left_over": 0.1,
        "light": False,
        "constants": "guessed",
    }
    found = replace(evidence(), preprocessing=pd.DataFrame([{**row, **facts}]))
    assert reported_at(found) == "bn" * speaks


def test_what_other_light_explains_as_well_is_named_as_one_of_several():
    """Fails if dark digits on white are told as a shift without a name, or as inverted without a doubt."""

    # with a little more contrast, as digits on a background that convolutions pad with 0 have
    changed = grey_norm(lambda p: 1.13 * (1 - p - DIGITS.mean()) / DIGITS.std(), GREY)
    row = of_inputs(changed)
    assert row.severity == "warning"
    assert "it may be that light and dark are exchanged (1 - p)" in row.says
    assert "these images are lighter or darker than those of training" in row.says
