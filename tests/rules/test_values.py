"""Rules about values that passed: what fires each one, and its nearest healthy neighbour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from measures.sites import call_log, running_stats_of, site, some_rows

from bnprobe.recording.names import NO_NORM
from bnprobe.recording.neighbours import Neighbours
from bnprobe.rules.edits import CleanInputs, InFloat32, Reinitialize, Remedy
from bnprobe.rules.values import WHICH_SAMPLES
from rules.edited import edited, evidence, findings
from rules.firing import fired

ROWS = some_rows(40)
STATISTICS = running_stats_of(ROWS)
LEARNED = {"gamma": [0.5, -0.7, 1.2], "beta": 0.1}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value):
    """Fails if one value in one channel is not reported, or another channel is blamed."""
    spoilt = ROWS.copy()
    spoilt[3, 1, 5:7] = value
    (row,) = fired(
        "values-not-finite", site(ROWS, "fine", **LEARNED), site(spoilt, "a", **LEARNED)
    ).itertuples()
    assert (row.severity, row.layer, row.channels) == ("critical", "a", (1,))
    assert "2 values in 1 of 3 channels" in row.because


def test_the_code_that_names_samples_which_are_not_finite(capsys):
    """Fails if it names another batch or sample, or fails on one that is clean."""
    batches = [(torch.zeros(3, 2, 2), None) for _ in range(3)]
    batches[1][0][2, 0, 1] = float("nan")
    batches[2][0][:2] = float("inf")
    exec(WHICH_SAMPLES, {"batches": batches})
    assert capsys.readouterr().out == "[(1, [2]), (2, [0, 1])]\n"
    spoilt = ROWS.copy()
    spoilt[0] = np.nan
    (row,) = fired("values-not-finite", site(spoilt, **LEARNED)).itertuples()
    assert f"`{WHICH_SAMPLES}`" in row.do


def test_large_values_are_finite():
    """Fails if size is taken for infinity."""
    assert fired("values-not-finite", site(ROWS * 1e40, **LEARNED)).empty


def test_channels_whose_scale_is_next_to_nothing():
    """Fails if the sign of gamma counts, or the threshold of 0.01 moves."""
    norm = site(ROWS, "a", gamma=[0.0099, -0.0099, 0.0101], beta=0, **STATISTICS)
    (row,) = fired("channels-constant", norm).itertuples()
    assert (row.severity, row.channels) == ("warning", (0, 1))
    assert "2 of 3 channels" in row.because
    rows = some_rows(n_channels=9)
    few = site(rows, "a", gamma=[0.0099, -0.0099, -1.0, *[1.0] * 6], beta=0, **running_stats_of(rows))
    (row,) = fired("channels-constant", few).itertuples()
    assert (row.severity, row.channels) == ("info", (0, 1))


def test_small_gains_over_features_are_no_fault():
    """Fails if a language model is advised to set gains to 1 that the next weights make up for."""
    gamma = [0.0099, -0.0099, 0.0101]
    for kind in ("rms_norm", "layer_norm"):
        assert fired("channels-constant", site(ROWS, "a", kind, gamma=gamma)).empty
    assert len(fired("channels-constant", site(ROWS, "a", "group_norm", gamma=gamma))) == 1


def test_code_for_a_norm_without_beta_sets_none():
    """Fails if the code sets n.bias of an RMS norm, which has none."""
    (row,) = fired("channels-constant", site(ROWS, "a", "rms_norm", gamma=1e-3)).itertuples()
    assert "n.weight.data[:] = 1`" in row.do
    assert "bias" not in row.do


def test_a_whole_layer_of_constants_is_not_to_be_removed():
    """Fails if all channels are called some, listed one by one, or thrown out, which takes the layer away."""
    (row,) = fired("channels-constant", site(ROWS, "a", gamma=1e-3, beta=0, **STATISTICS)).itertuples()
    assert row.says.startswith("All channels")
    assert "removed" not in row.do
    assert "n.weight.data[:] = 1; n.bias.data[:] = 0" in row.do


def test_small_but_working_channels_are_silent():
    """Fails if 0.01 itself, or a norm without gamma, counts as switched off."""
    layers = [
        site(ROWS, "a", gamma=[0.01, -0.01, 1], beta=0, **STATISTICS),
        site(ROWS, "b"),
        site(ROWS, "c", gamma=1),
    ]
    assert fired("channels-constant", *layers).empty


@pytest.mark.parametrize(("n", "fires"), [(1, True), (29, True), (30, False), (400, False)])
def test_few_images(n, fires):
    """Fails if the threshold of 30 moves, or pixels count as images."""
    found = fired("few-images", site(some_rows(n), **LEARNED))
    assert len(found) == fires
    if fires:
        assert found["says"][0].startswith(
            "Only 1 sample was recorded" if n == 1 else f"Only {n} samples were recorded"
        )
        assert found["layer"][0] == ""
        assert found["channels"][0] == ()


def test_a_model_without_norms_has_not_few_images():
    """Fails if one image is reported where none was counted."""
    one = evidence()
    nothing = replace(one, layers=one.layers.iloc[:0], channels=one.channels.iloc[:0])
    assert findings("few-images", nothing) == []


def test_the_layer_that_saw_most_counts():
    """Fails if a branch that a few images take makes the whole run look small."""
    assert fired("few-images", site(some_rows(3), "rare", **LEARNED), site(ROWS, "b", **LEARNED)).empty
    assert len(fired("few-images", site(some_rows(3), "rare"), site(some_rows(29), "b"))) == 1


def test_more_than_a_norm():
    """Fails if a fused activation is not reported, or the class is not named."""
    fused = site(ROWS, "a", class_name="BatchNormAct2d", output="read", mismatch=0.4, **LEARNED, **STATISTICS)
    (row,) = fired("more-than-a-norm", fused).itertuples()
    assert (row.severity, row.layer) == ("info", "a")
    assert row.says.startswith("This BatchNormAct2d does more than a batch norm")
    assert "0.4 of the largest output" in row.because
    assert "bnprobe.register_norm" in row.do


@pytest.mark.parametrize(
    ("cells", "says", "tried"),
    [
        ({"formula_fits": 0.0}, "no usual change to the formula explains it", True),
        ({"formula_fits": np.nan}, "does more than a batch norm", False),
        (
            {"formula_fits": 0.0, "mismatch_left": 0.0, "computes_instead": "in float16"},
            "computes in float16",
            False,
        ),
    ],
)
def test_what_was_tried_is_told_where_nothing_explains_the_output(cells, says, tried):
    """Fails if a formula that was never looked for counts as not found, or one that gives the output exactly does."""
    (found,) = findings("more-than-a-norm", edited(evidence(), output="read", mismatch=0.4, **cells))
    assert says in found.says
    assert ("tried were" in found.because) == tried
    assert ("with this change" in found.because) == ("mismatch_left" in cells)


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "derived", "mismatch": 1e-7},
        {"output": "derived", "mismatch": float("nan")},
        {"output": "read", "mismatch": 0.009},
        {"output": "read", "mismatch": float("nan")},
    ],
)
def test_a_norm_that_does_what_it_should(changes):
    """Fails if rounding of half precision, or a read output as such, is taken for an activation."""
    assert fired("more-than-a-norm", site(ROWS, **LEARNED, **STATISTICS, **changes)).empty


def test_an_output_that_cannot_be_compared_is_not_infinitely_far():
    """Fails if "differ by inf of the largest output" is printed of a norm whose output has another shape."""
    norm = site(ROWS, kind="layer_norm", output="read", mismatch=float("inf"))
    found = fired("more-than-a-norm", norm)
    assert "inf " not in " ".join(found["because"])


def test_layers_that_gave_no_numbers():
    """Fails if a norm that was never called, or is not understood, is passed over, or their remedies are swapped."""
    found = fired(
        "layer-unread", site(ROWS, **LEARNED), never_called=("spare",), not_understood=("odd (StrangeNorm)",)
    )
    assert found["layer"].tolist() == ["spare", "odd (StrangeNorm)"]
    assert found["severity"].tolist() == ["warning", "warning"]
    assert found["says"].tolist()[0] == "This norm layer was never called."
    assert "register_norm" not in found["do"][0]
    assert "bnprobe.register_norm(type(" in found["do"][1]


def _uncalled(training: int, *never_called: str) -> pd.DataFrame:
    """What is said of norms that were not called beside `body.a`, whose two calls were `training` times in train mode."""
    log = call_log(n_calls_model_training=training)
    return fired("layer-unread", site(ROWS, "body.a", call_log=log, **LEARNED), never_called=never_called)


@pytest.mark.parametrize(
    ("training", "named", "severity"),
    [(0, "aux.0.bn", "info"), (1, "aux.0.bn", "warning"), (0, "body.b", "warning"), (0, "spare", "warning")],
)
def test_a_part_that_is_not_called_in_eval_mode_may_be_for_training(training: int, named: str, severity: str):
    """Fails if an auxiliary head is called a fault in eval mode; or if a norm among others that are called, or one that
    training passed by, is excused like one."""
    (row,) = _uncalled(training, named).itertuples()
    assert (row.severity, row.layer) == (severity, named)
    assert ("aux was called in eval mode" in row.says) == (severity == "info")


def test_the_norms_of_a_part_that_is_not_called_are_one_finding():
    """Fails if a head of two norms is two findings, or two parts are one."""
    found = _uncalled(1, "aux.0.bn", "other.bn", "aux.1.bn")
    assert found["layer"].tolist() == ["aux.0.bn", "other.bn"]
    assert "2 norms of aux" in found["because"][0]
    assert "['aux.0.bn', 'aux.1.bn']" in found["do"][0]


def test_modules_that_are_no_norms_are_one_note_for_each_class():
    """Fails if a global response normalization is a warning in every block, or hides a norm that is not understood."""
    names = (f"0.grn (GRN) {NO_NORM}", f"1.grn (GRN) {NO_NORM}", "odd (StrangeNorm)")
    found = fired("layer-unread", site(ROWS, **LEARNED), not_understood=names)
    assert found["layer"].tolist() == ["odd (StrangeNorm)", names[0]]
    assert found["severity"].tolist() == ["warning", "info"]
    assert "there are 2 of its class" in found["because"][1]


def test_a_norm_that_a_function_may_use_is_not_to_be_replaced():
    """Fails if the module whose vectors F.batch_norm is given is called unused, and its removal advised."""
    function = site(ROWS, "stem.batch_norm:61", class_name="F.batch_norm", **LEARNED, **STATISTICS)
    (row,) = fired("layer-unread", function, never_called=("stem.bn",)).itertuples()
    assert row.severity == "info"
    assert "stem.batch_norm:61" in row.because
    assert "do not replace" in row.do
    assert "set_submodule" not in row.do


def test_every_norm_called_is_silent():
    """Fails if a layer that was reached is named."""
    assert fired("layer-unread", site(ROWS, **LEARNED)).empty


def test_a_finding_names_the_call():
    """Fails if the second call of a layer is reported as the first."""
    spoilt = ROWS.copy()
    spoilt[0, 0, 0] = np.nan
    found = fired("values-not-finite", site(ROWS, "a", **LEARNED), site(spoilt, "a", call=1, **LEARNED))
    assert found["call"].tolist() == [1]


@pytest.mark.parametrize("vector", ["gamma", "beta"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_learned_vector_that_is_not_finite(vector, value):
    """Fails if finite inputs excuse a γ or β that spoils every output, or the layer behind is blamed alone."""
    spoilt = {**LEARNED, vector: [0.5, value, 1.2]}
    norms = site(ROWS, "fine", **LEARNED, **STATISTICS), site(ROWS, "a", **spoilt, **STATISTICS)
    (row,) = fired("values-not-finite", *norms).itertuples()
    assert (row.severity, row.layer, row.channels) == ("critical", "a", (1,))
    assert row.says.startswith("γ of this layer is" if vector == "gamma" else "β of this layer is")
    assert 'at = [1]; n = model.get_submodule("a"); n.weight.data[at] = 1; n.bias.data[at] = 0' in row.do


def test_a_vector_of_nothing_but_nan_is_told_from_one_that_is_missing():
    """Fails if a norm without γ is called spoilt, or one whose γ is lost altogether is not."""
    missing, there = call_log(gamma_learns=None), call_log()
    assert fired("values-not-finite", site(ROWS, beta=0.1, call_log=missing)).empty
    (row,) = fired("values-not-finite", site(ROWS, gamma=np.nan, beta=0.1, call_log=there)).itertuples()
    assert row.channels == (0, 1, 2)


def test_a_channel_without_a_finite_value_points_at_its_filter():
    """Fails if a filter that is NaN sends the user to the images, or one bad image to the weights."""
    neighbours = Neighbours("relu", "conv1")
    filters, image = ROWS.copy(), ROWS.copy()
    filters[:, 1], image[3] = np.nan, np.nan
    (row,) = fired("values-not-finite", site(filters, **LEARNED, neighbours=neighbours)).itertuples()
    assert "In 1 of 3 channels no value is finite" in row.do
    assert "weights of conv1" in row.do
    (row,) = fired("values-not-finite", site(image, **LEARNED, neighbours=neighbours)).itertuples()
    assert "conv1" not in row.do


@pytest.mark.parametrize(("others", "speaks"), [(0.09, True), (0.11, False)])
def test_weight_decay_is_named_where_most_gamma_are_small(others, speaks):
    """Fails if a layer whose other channels are as large as ever is told of weight decay, or one of small γ is not."""
    norm = site(ROWS, "a", gamma=[1e-3, others, others], beta=0.5, **STATISTICS)
    (row,) = fired("channels-constant", norm).itertuples()
    assert ("weight decay" in row.do) == speaks


@pytest.mark.parametrize(("n_tokens", "n_found"), [(999, 1), (1000, 0), (np.nan, 1)])
def test_few_sequences_of_many_tokens_are_enough(n_tokens, n_found):
    """Fails if 16 sequences of 128 tokens are too few to say something."""
    assert len(findings("few-images", edited(evidence(), n_images=4, n_tokens=n_tokens))) == n_found


@pytest.mark.parametrize(
    ("cells", "row", "because", "do"),
    [
        (
            {"n_nonfinite": [0.0, 2.0, 0.0]},
            {},
            "2 values in 1 of 3 channels, left out of all other numbers.",
            "float32: `model.float()`.",
        ),
        ({"n_nonfinite": [0.0, 1.0, 0.0]}, {}, "1 value in 1 of 3 channels", "`model.float()`."),
        (
            {"n_nonfinite": [0.0, 600.0, 0.0], "n_values": [600.0, 0.0, 600.0]},
            {"feeder": "conv"},
            "600 values in 1 of 3 channels",
            " In 1 of 3 channels no value is finite, while others are clean: check the weights of conv for these channels",
        ),
        (
            {"n_nonfinite": [0.0, 600.0, 0.0], "n_values": [600.0, 0.0, 600.0]},
            {"feeder": ""},
            "600 values",
            "`model.float()`.",
        ),
        (
            {"n_nonfinite": [1.0, 600.0, 2.0], "n_values": [9.0, 0.0, 9.0]},
            {"feeder": "conv"},
            "603 values in 3 of 3",
            "`model.float()`.",
        ),
        (
            {"n_nonfinite": [0.0, 1.0, 0.0], "n_values": 9.0},
            {"feeder": "conv"},
            "1 value",
            "`model.float()`.",
        ),
    ],
)
def test_what_is_said_of_values_that_are_not_finite(
    cells: dict[str, Any], row: dict[str, Any], because: str, do: str
) -> None:
    """Fails if weights are blamed for what one sample spoilt, or a filter that spoils its channel is not."""
    (one,) = findings("values-not-finite", edited(evidence(), cells, **row))
    assert one.because.startswith(because)
    assert do in one.do
    assert one.do.endswith("`model.float()`.") == do.endswith("`model.float()`.")
    assert one.remedy == Remedy((CleanInputs(), InFloat32("")))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("cells", "row", "says", "channels"),
    [
        ({"gamma": [1.0, NAN, 1.0]}, {}, "γ of this layer is NaN or infinite, and so are its outputs", (1,)),
        ({"beta": [1.0, NAN, -INF]}, {}, "β of this layer is NaN", (1, 2)),
        ({"gamma": [1.0, INF, 1.0], "beta": [NAN, 0.0, 0.0]}, {}, "γ and β of this layer are NaN", (0, 1)),
        ({"gamma": NAN}, {"stores": "β, running_mean, running_var"}, None, None),
        ({"gamma": NAN}, {"stores": "γ"}, "γ of this layer is NaN", (0, 1, 2)),
        ({"gamma": NAN}, {"stores": "γ, β", "learns": "none"}, "γ of this layer is NaN", (0, 1, 2)),
        ({"beta": NAN}, {"stores": "γ"}, None, None),
        ({"gamma": INF}, {}, "γ of this layer is NaN", (0, 1, 2)),
        ({"gamma": [1.0, NAN, 1.0]}, {"call": 1}, None, None),
    ],
)
def test_vectors_that_are_not_finite(
    cells: dict[str, Any], row: dict[str, Any], says: str | None, channels: tuple[int, ...] | None
) -> None:
    """Fails if a vector that is missing is poisoned, one that is there is missing, or a second call is told again."""
    found = findings("values-not-finite", edited(evidence(), cells, **row))
    assert [one.channels for one in found] == ([channels] if channels else [])
    for one in found:
        assert one.says.startswith(str(says))
        assert one.because == f"not finite in {len(one.channels)} of 3 channels."
        assert one.remedy == Remedy((Reinitialize("bn", one.channels),))


@pytest.mark.parametrize(
    ("cells", "row", "because", "do"),
    [
        (
            {"gamma": [0.001, 0.5, 1.5]},
            {},
            "|γ| < 0.01 in 1 of 3 channels (at most 0.001; the others have a median of 1).",
            "Such channels can be removed",
        ),
        (
            {"gamma": [0.001, -0.009, 1.5]},
            {},
            "|γ| < 0.01 in 2 of 3 channels (at most 0.009; the others have a median of 1.5).",
            "Most γ of this layer are small",
        ),
        ({"gamma": 0.001}, {}, "|γ| < 0.01 in 3 of 3 channels.", "Look for what drove γ to 0"),
        ({"gamma": 0.001}, {"skip": "a"}, None, ""),
        ({"gamma": [0.001, 0.5, 1.5]}, {"skip": "a"}, "|γ| < 0.01 in 1 of 3 channels", ""),
        ({"gamma": [0.001, 0.5, 1.5]}, {"kind": "layer_norm"}, None, ""),
        ({"gamma": 0.001}, {"kind": "layer_norm"}, "|γ| < 0.01 in 3 of 3 channels.", ""),
        (
            {"gamma": [0.001, 0.09, 0.5]},
            {},
            "|γ| < 0.01 in 1 of 3 channels",
            "Most γ of this layer are small",
        ),
        ({"gamma": [0.01, 0.5, 1.5]}, {}, None, ""),
        (
            {"gamma": [0.001, 0.5, 1.5], "beta": NAN},
            {},
            "|γ| < 0.01 in 1 of 3 channels",
            "n.weight.data[at] = 1`",
        ),
    ],
)
def test_what_is_said_of_channels_without_a_scale(
    cells: dict[str, Any], row: dict[str, Any], because: str | None, do: str
) -> None:
    """Fails if the largest |γ| is another's, a whole branch is told twice, or a bias is set that is not there."""
    found = findings("channels-constant", edited(evidence(), cells, **{"skip": "", **row}))
    assert len(found) == (because is not None)
    for one in found:
        assert one.because.startswith(str(because))
        assert do in one.do
        assert ("Most γ of this layer are small" in one.do) == do.startswith("Most")
        assert one.remedy == Remedy((Reinitialize("bn", one.channels),))
