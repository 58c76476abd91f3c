"""Calls, biases and branches: each condition on its own, at and beside its limit, with channels by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bnprobe.measures.outliers import OUTLIER
from bnprobe.rules.edits import Remedy, ScaleDown
from bnprobe.rules.structure import _apart, _does_nothing
from rules.edited import edited, edited_rows, evidence, findings, frame, healthy

LIMITS = evidence().limits


def apart(one: tuple[Any, Any], two: tuple[Any, Any]) -> tuple[float, float]:
    return _apart(*(frame(pre_mean=mean, pre_var=var) for mean, var in (one, two)))


def test_calls_lie_apart_in_pooled_deviations() -> None:
    """Fails if one call's deviation counts alone, a typical ratio is a mean, or channels without variance count."""
    distance, ratio = apart(([1.0, 2.0, 0.0], [1.0, 4.0, 1.0]), ([3.0, 2.0, -3.0], [3.0, 2.0, 9.0]))
    expected = [2 / math.sqrt(2), 0.0, -3 / math.sqrt(5)]
    assert distance == pytest.approx(math.sqrt(np.mean(np.square(expected))))
    assert ratio == 3.0
    _, ratio = apart(([0.0] * 4, [1.0, 1.0, 0.0, 1.0]), ([0.0] * 4, [2.0, 0.0, 5.0, 8.0]))
    assert ratio == 5.0  # of 2 and 8: not of 0, nor of infinity


def test_calls_of_which_nothing_is_known() -> None:
    """Fails if nothing lies at a distance."""
    nothing = ([math.nan, math.nan], [math.nan, math.nan])
    assert np.isnan(apart(nothing, ([1.0, 1.0], [1.0, 1.0]))).all()
    distance, ratio = apart(([1.0, math.nan], [1.0, math.nan]), ([2.0, 5.0], [1.0, 1.0]))
    assert (distance, ratio) == (1.0, 1.0)


NEUTRAL = {"gamma": [1.0, 1.0], "beta": [0.0, 0.0], "running_mean": [0.0, 0.0], "running_var": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("changes", "nothing"),
    [
        ({}, True),
        ({"running_var": [1 - 1e-5, 1 - 1e-3]}, True),
        ({"gamma": [1.0, 1.0019]}, True),
        ({"gamma": [1.0, 1.0021]}, False),
        ({"beta": [-0.0021, 0.0]}, False),
        ({"beta": [-0.0019, 0.0]}, True),
        ({"running_mean": [0.0, 0.01]}, False),
        ({"running_var": [2.0, 1.0]}, False),
        ({"gamma": [math.nan, 1.0]}, False),
        ({"beta": [math.nan, math.nan]}, False),
    ],
)
def test_a_norm_that_does_nothing(changes: dict[str, Any], nothing: bool) -> None:
    """Fails if one channel is enough, a vector that is missing is neutral, or 1 − eps is not 1."""
    assert _does_nothing(frame(**{**NEUTRAL, **changes})) is nothing


BIASED = {"feeder": "conv", "feeds_alone": 1, "kind": "batch_norm", "call": 0}


@pytest.mark.parametrize(
    ("bias", "row", "told"),
    [
        (0.5, {}, True),
        ([0.0, 0.0, -1e-9], {}, True),
        (0.0, {}, False),
        (math.nan, {}, False),
        ([math.nan, 0.5, math.nan], {}, True),
        (0.5, {"feeds_alone": 0}, False),
        (0.5, {"feeder": ""}, False),
        (0.5, {"kind": "instance_norm"}, False),
    ],
)
def test_a_bias_that_a_norm_takes_out(bias: Any, row: dict[str, Any], told: bool) -> None:
    """Fails if a missing bias is one, all channels must have one, or a condition is not asked."""
    found = edited(evidence(), {"filter_bias": bias}, **{**BIASED, **row})
    assert bool(findings("bias-redundant", found)) is told


BRANCH = {"branch_share": 0.5, "layer_scale": "", "skip": "identity"}


@pytest.mark.parametrize(
    ("cells", "row", "told"),
    [
        ({}, {}, False),
        ({}, {"branch_share": LIMITS.branch_off * 0.999}, True),
        ({}, {"branch_share": LIMITS.branch_off}, False),
        ({"gamma": LIMITS.constant_gamma * 0.999}, {}, True),
        ({"gamma": -LIMITS.constant_gamma * 0.999}, {}, True),
        ({"gamma": LIMITS.constant_gamma}, {}, False),
        ({"gamma": [0.0, 0.0, 1.0]}, {}, False),
        ({"gamma": 0.0}, {"skip": ""}, False),
        ({"gamma": 0.0}, {"branch_share": math.nan}, True),
        ({}, {"branch_share": math.nan}, False),
        ({}, {"layer_scale": "scale", "branch_share": LIMITS.scale_off * 0.999}, True),
        ({}, {"layer_scale": "scale", "branch_share": LIMITS.scale_off}, False),
        ({"gamma": 0.0}, {"layer_scale": "scale"}, False),
    ],
)
def test_a_branch_that_is_off(cells: dict[str, Any], row: dict[str, Any], told: bool) -> None:
    """Fails if one channel of 0 is a branch, a limit includes itself, or a layer scale has that of plain branches."""
    found = edited(evidence(), {"gamma": 1.5, **cells}, **{**BRANCH, **row})
    assert bool(findings("branch-off", found)) is told


def large(ratio: list[float], gamma: Any = (1.0, 2.0, 3.0), **row: Any) -> list[Any]:
    """What is said of channels of these sizes; the energies are those of (1, 1, x)."""
    facts = {"kind": "rms_norm", "n_tokens": 0, "feeder": "", **row}
    return findings(
        "outlier-dimensions", edited(evidence(), {"rms_ratio": ratio, "gamma": list(gamma)}, **facts)
    )


@pytest.mark.parametrize(("ratio", "told"), [(OUTLIER, False), (OUTLIER * 1.001, True), (math.nan, False)])
def test_a_channel_is_large_beyond_six(ratio: float, told: bool) -> None:
    """Fails if the limit itself is beyond it."""
    assert bool(large([1.0, 1.0, ratio])) is told
    assert large([1.0, 1.0, ratio], kind="instance_norm") == []


def test_gamma_damps_a_channel_for_who_reads_tokens() -> None:
    """Fails if γ counts without tokens, a missing one is not 1, or the share of energy is of sizes: 49 of 51."""
    (plain,) = large([1.0, 1.0, 7.0], gamma=(1.0, 1.0, 0.01))
    assert "96% of the energy is in 1 of 3 channels" in plain.because
    assert "channel 2 is 7 times" in plain.because
    (damped,) = large([1.0, 1.0, 7.0], gamma=(1.0, 1.0, 0.1), n_tokens=5)
    assert "20% of the energy" in damped.because  # 0.49 of 2.49
    (missing,) = large([1.0, 1.0, 7.0], gamma=(math.nan, math.nan, math.nan), n_tokens=5)
    assert "96% of the energy" in missing.because
    (one,) = large([1.0, 1.0, 7.0], gamma=(1.0, 1.0, math.nan), n_tokens=5)
    assert "96% of the energy" in one.because  # 49 of 51


def test_a_layer_norm_leaves_the_others_a_share() -> None:
    """Fails if the mean that it takes off does not lower the limit, or does so of norms that take none off."""
    limit = LIMITS.outlier_energy_tokens
    (rms,) = large([1.0, 1.0, 7.0], n_tokens=5)
    (layer,) = large([1.0, 1.0, 7.0], n_tokens=5, kind="layer_norm")
    assert f"(threshold {limit:.0%})" in rms.because
    assert f"(threshold {limit * 2 / 3:.0%})" in layer.because


def test_places_of_calls() -> None:
    """Fails if rows of these tests are told as they are."""
    for rule in ("bias-redundant", "branch-off", "outlier-dimensions"):
        assert findings(rule, edited_rows({}, {})) == []


CALLS = {"pre_mean": [0.0, 0.0, 0.0], "pre_var": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("cells", "row", "told"),
    [
        ({}, {}, False),
        ({"pre_mean": LIMITS.shift}, {}, False),
        ({"pre_mean": math.nextafter(LIMITS.shift, 1)}, {}, True),
        ({"pre_mean": -1.0}, {}, True),
        ({"pre_var": LIMITS.variance_ratio}, {}, False),
        ({"pre_var": math.nextafter(LIMITS.variance_ratio, 9)}, {}, True),
        ({"pre_var": 1 / LIMITS.variance_ratio}, {}, False),
        ({"pre_var": math.nextafter(1 / LIMITS.variance_ratio, 0)}, {}, True),
        # a channel without a running variance is no norm without any
        ({"pre_mean": 1.0, "running_var": [math.nan, 1.0, 1.0]}, {}, True),
        ({"pre_mean": 1.0, "running_var": math.nan}, {}, False),
        ({"pre_mean": 1.0}, {"kind": "instance_norm"}, False),
    ],
)
def test_calls_that_are_not_alike(cells: dict[str, Any], row: dict[str, Any], told: bool) -> None:
    """Fails if a limit is beyond itself, or one channel hides that both calls share their running statistics."""
    base = edited(evidence(healthy("bn"), healthy("bn", call=1)), CALLS)
    found = findings("calls-differ", edited(base, {**CALLS, **cells}, at=1, **row))
    assert [(one.layer, one.call) for one in found] == [("bn", 1)] * told


def test_only_what_is_large_is_scaled_down() -> None:
    """Fails if a channel at the limit is, or another's ratio is taken."""
    (found,) = large([1.0, OUTLIER, 7.0], feeder="conv")
    assert found.channels == (2,)
    assert found.remedy == Remedy((ScaleDown("conv", (2,), (7.0,)),))


def test_a_single_token_has_the_limit_of_tokens() -> None:
    """Fails if it is judged as an image."""
    (one,), (none,) = (large([1.0, 1.0, 7.0], n_tokens=n) for n in (1, 0))
    assert LIMITS.outlier_energy_tokens != LIMITS.outlier_energy
    assert f"(threshold {LIMITS.outlier_energy_tokens:.0%})" in one.because
    assert f"(threshold {LIMITS.outlier_energy:.0%})" in none.because


SILENT = {"shift_rms": 0.0, "var_ratio_median": 1.0, "n_images": LIMITS.few_images, "follows": "relu"}


@pytest.mark.parametrize(
    ("role", "row", "channels"),
    [
        ("dead", {}, (0, 1, 2)),
        (["dead", "active", "dead"], {}, (0, 2)),
        ("active", {}, None),
        ("dead", {"n_images": LIMITS.few_images - 1}, None),
        ("dead", {"shift_rms": LIMITS.shift}, (0, 1, 2)),
        ("dead", {"shift_rms": math.nextafter(LIMITS.shift, 1)}, None),
        ("dead", {"var_ratio_median": LIMITS.variance_ratio}, (0, 1, 2)),
        ("dead", {"var_ratio_median": math.nextafter(LIMITS.variance_ratio, 9)}, None),
        ("dead", {"var_ratio_median": math.nextafter(1 / LIMITS.variance_ratio, 0)}, None),
        ("dead", {"var_ratio_median": math.nan}, (0, 1, 2)),
    ],
)
def test_channels_that_are_never_on(role: Any, row: dict[str, Any], channels: tuple[int, ...] | None) -> None:
    """Fails if a norm all of whose channels are is passed over, or the data are not asked first."""
    cells = {"role": role, "dead_predicted": 0.0, "filter_norm": 1.0}
    found = findings("channels-silent", edited(evidence(), cells, **{**SILENT, **row}))
    assert [one.channels for one in found] == ([channels] if channels else [])


@pytest.mark.parametrize(
    ("role", "channels", "severity"),
    [
        ("saturated", (0, 1, 2), "warning"),
        (["saturated", "active", "saturated"], (0, 2), "warning"),
        ("active", None, ""),
    ],
)
def test_channels_that_are_saturated(role: Any, channels: tuple[int, ...] | None, severity: str) -> None:
    """Fails if a norm all of whose channels are is passed over."""
    found = findings("channels-saturated", edited(evidence(), {"role": role}, follows="relu6"))
    assert [(one.channels, one.severity) for one in found] == ([(channels, severity)] if channels else [])
