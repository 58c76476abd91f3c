"""Updates of running statistics: what fires each rule, and its nearest healthy neighbour."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measures.sites import site
from torch import nn

from bnprobe.recording import LayerRecord
from bnprobe.rules.edits import Recalibrate, Remedy, SetAttribute
from bnprobe.rules.updates import _slope
from rules.edited import edited, evidence, findings, healthy
from rules.firing import fired
from rules.trained import LEARNED, STATISTICS, TRAIN, learning, norm


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


OFF = {"running_mean": STATISTICS["running_mean"] + 2 * np.sqrt(STATISTICS["running_var"])}


def test_a_plain_average_that_no_longer_fits():
    """Fails if None is never blamed in eval mode, or the same mismatch is a fault of the data as well."""
    norms = [
        replace(norm(changes={"momentum": None, **changes}), layer=layer)
        for layer, changes in (("a", {}), ("b", OFF), ("c", OFF))
    ]
    found = fired("momentum-odd", *norms)
    assert found["layer"].tolist() == ["b"]
    assert "mean" in found["because"][0]
    assert found["because"][0].endswith("; the same at c.")
    assert fired("data-shifted", *norms).empty


def test_a_plain_average_behind_inputs_that_differ():
    """Fails if momentum is blamed for what the model is fed, or one mismatch is two findings."""
    norms = [replace(norm(changes={"momentum": None, **OFF}), layer=layer) for layer in "ab"]
    assert fired("momentum-odd", *norms).empty
    (because,) = fired("data-shifted", *norms)["because"]
    assert "momentum is None: they average over all 40 batches" in because
    (because,) = fired("data-shifted", *(replace(one, momentum=0.1) for one in norms))["because"]
    assert "momentum" not in because


def test_one_momentum_for_several_norms_is_one_finding():
    """Fails if the same setting is a finding per norm, or the code and the edits are those of one norm only."""
    trains = {**TRAIN, "momentum": None}
    norms = [replace(norm(changes=trains, **learning()), layer=layer) for layer in ("a", "b.c", "d")]
    (one,) = fired("momentum-odd", *norms).to_dict("records")
    assert one["layer"] == "a"
    assert one["because"].endswith("; the same at b.c, d.")
    model = nn.ModuleDict(
        {"a": nn.BatchNorm1d(3), "b": nn.ModuleDict({"c": nn.BatchNorm1d(3)}), "d": nn.BatchNorm1d(3)}
    )
    for module in model.modules():
        module.momentum = None  # type: ignore[assignment]
    exec(re.findall(r"`([^`]+)`", one["do"])[0], {"model": model})
    assert [model.get_submodule(name).momentum for name in ("a", "b.c", "d")] == [0.1] * 3
    both = findings("momentum-odd", evidence(*norms))[0].remedy
    assert both == Remedy(
        (*(SetAttribute(name, "momentum", 0.1) for name in ("a", "b.c", "d")), Recalibrate())
    )
    apart = [norms[0], replace(norms[1], momentum=0.9)]
    assert fired("momentum-odd", *apart)["layer"].tolist() == ["a", "b.c"]


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


USED = {"affine_by": "running", "n_calls": 2, "n_batches_tracked": 40, "verdict": "same"}
TRAINS = {"normalized_by": "batch", "n_calls_learning": 2}
SET, MADE_ANEW = SetAttribute("bn", "momentum", 0.1), Recalibrate()


@pytest.mark.parametrize(
    ("row", "because", "remedy"),
    [
        (
            {"momentum": 0.0, "normalized_by": "batch"},
            "momentum 0 in train mode, in 2 calls: eval mode will use the old running statistics.",
            Remedy((SET,)),
        ),
        (
            {"momentum": 0.0, "normalized_by": "both", "n_calls": 1},
            "momentum 0 in train mode, in 1 call: eval mode will use the old running statistics.",
            Remedy((SET,)),
        ),
        ({"momentum": 0.0, "normalized_by": "running"}, None, None),
        ({"momentum": 0.9, "call": 1}, None, None),
        ({"momentum": 0.9, "n_calls": 0}, None, None),
        ({"momentum": 0.9, "n_calls": 1}, "(2 − m)/m = 1.22 batches", Remedy((SET, MADE_ANEW))),
        ({"momentum": 0.9, "affine_by": "batch"}, None, None),
        ({"momentum": 0.9, "n_batches_tracked": math.nan}, None, None),
        ({"momentum": 0.79}, "an average over (2 − m)/m = 1.53 batches (threshold 0.5)", Remedy((SET, MADE_ANEW))),
        ({"momentum": 1.0}, "momentum is 1: an average over (2 − m)/m = 1 batch (threshold 0.5)", Remedy((SET, MADE_ANEW))),
        (
            {"momentum": 0.8},
            "it is 1 minus that, so their 0.8 is 0.2 here.",
            Remedy((SetAttribute("bn", "momentum", 0.2), MADE_ANEW)),
        ),
        ({"momentum": math.nan}, None, None),
        (
            {"momentum": math.nan, **TRAINS},
            "momentum is None (a plain average over 40 batches), and the norm is being trained.",
            Remedy((SET, MADE_ANEW)),
        ),
        ({"momentum": math.nan, **TRAINS, "n_calls_learning": 0}, None, None),
        ({"momentum": math.nan, **TRAINS, "n_calls_learning": 1}, "the norm is being trained.", Remedy((SET, MADE_ANEW))),
        ({"momentum": math.nan, **TRAINS, "normalized_by": "running"}, None, None),
        ({"momentum": math.nan, "verdict": "scale shifted", "var_ratio_median": 2.1}, None, None),
        (
            {"momentum": math.nan, "verdict": "scale shifted"},
            "and the verdict on these data is “scale shifted”.",
            Remedy((SET, MADE_ANEW)),
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_a_momentum(row: dict[str, Any], because: str | None, remedy: Remedy | None) -> None:
    """Fails if a momentum is told where it is not in use, averages over another number, or is set to another value."""
    found = findings("momentum-odd", edited(evidence(), **{**USED, **row}))
    assert len(found) == (because is not None)
    for one in found:
        assert str(because) in one.because
        assert one.remedy == remedy


@pytest.mark.parametrize(
    ("rows", "because"),
    [
        (
            [{"n_calls": 2, "n_updates": 3}],
            "num_batches_tracked grew by 3, 1.5 per call (threshold 1.5), so momentum 0.1 acts as 0.146.",
        ),
        ([{"n_calls": 2, "n_updates": 2.99}], None),
        ([{"n_calls": 2, "n_updates": 4, "mode": "eval"}], None),
        ([{"n_calls": 1, "n_updates": 1}], None),
        (
            [{"n_calls": 1, "n_updates": 3, "momentum": 1.0}],
            "num_batches_tracked grew by 3, 3 per call (threshold 1.5).",
        ),
        (
            [{"n_calls": 1, "n_updates": 3, "momentum": 0.0}],
            "num_batches_tracked grew by 3, 3 per call (threshold 1.5).",
        ),
        (
            [{"n_calls": 1, "n_updates": 4}, {"n_calls": 1, "n_updates": 4}],
            "num_batches_tracked grew by 4, 2 per call (threshold 1.5), so momentum 0.1 acts as 0.19.",
        ),
        ([{"n_calls": 1, "n_updates": 4}, {"n_calls": 2, "n_updates": 4}], None),
        ([{"n_calls": 1, "n_updates": 4}, {"n_calls": 1, "n_updates": 4, "mode": "mixed"}], None),
        ([{"n_calls": 1, "n_updates": math.nan}], None),
    ],
)  # fmt: skip
def test_what_is_said_of_more_updates_than_calls(rows: list[dict[str, Any]], because: str | None) -> None:
    """Fails if updates are held against one call of several, or k updates with m act as something but 1 − (1 − m)^k."""
    base = evidence(*(healthy(call=i) for i in range(len(rows))))
    for i, row in enumerate(rows):
        base = edited(base, at=i, **{"mode": "train", "momentum": 0.1, **row})
    assert [one.because for one in findings("updated-twice", base)] == ([because] if because else [])


def test_the_slope_of_running_means_is_that_of_least_squares() -> None:
    """Fails if a mean is not in running standard deviations, or an error that is not known spoils the rest."""
    seen, mean = np.array([2.0, -1.0, 3.0]), np.array([1.0, -0.7, 1.2])
    var, error = np.array([4.0, 1.0, 0.25]), np.array([0.1, 0.2, np.nan])
    x, y = seen / np.sqrt(var), mean / np.sqrt(var)
    slope = np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]
    # each y is off by its error, independently: the error of a weighted sum
    weights = x / (x**2).sum()
    expected = math.sqrt(((weights * error)[:2] ** 2).sum())
    assert _slope(seen, mean, var, error) == (pytest.approx(slope), pytest.approx(expected))


def begun(k: int = 5, momentum: float = 0.1, **row: Any) -> list[str]:
    """What is said of a norm whose running means are what k batches leave of the measured ones."""
    left = (1 - momentum) ** k
    seen = np.array([3.0, -2.0, 4.0])
    cells = {
        "pre_mean": list(seen),
        "running_mean": list((1 - left) * seen),
        "running_var": 1.0,
        "shift_se": 0.01,
    }
    base = edited(evidence(), cells, n_batches_tracked=k, momentum=momentum, mode="eval", **row)
    return [one.because for one in findings("statistics-young", base)]


def test_what_is_said_of_young_statistics() -> None:
    """Fails if what is left of the start, or the share of the measured means, is wrong: 0.9^5 is 59%."""
    assert begun() == [
        "after 5 batches with momentum 0.1 the initial values still weigh 59% (threshold 10%), and the running means "
        "are 41% "
        "of the measured ones."
    ]
    assert begun(1, 0.5)[0].startswith("after 1 batch with momentum 0.5 the initial values still weigh 50%")
    assert begun(call=1) == begun(0) == begun(5, 1.0) == []


@pytest.mark.parametrize(("error", "fires"), [(0.196, 1), (0.198, 0)])
def test_means_must_fall_short_by_three_standard_errors(error: float, fires: int) -> None:
    """Fails if fewer are enough or more are asked for: 0.9^5 = 0.59049 is three times 0.19683."""
    cells = {"pre_mean": 1.0, "running_mean": 1 - 0.9**5, "running_var": 1.0}
    base = edited(
        evidence(),
        {**cells, "shift_se": error * math.sqrt(3)},
        n_batches_tracked=5,
        momentum=0.1,
        mode="eval",
    )
    assert len(findings("statistics-young", base)) == fires


@pytest.mark.parametrize(("share", "fires"), [(0.70, 1), (0.71, 0)])
def test_means_must_be_nearer_to_what_is_left_than_to_the_whole(share: float, fires: int) -> None:
    """Fails if means are called young that are nearer to the measured ones: between 0.40951 and 1 lies 0.704755."""
    cells = {
        "pre_mean": [3.0, 0.0, np.nan],
        "running_mean": [3 * share, 0.0, 1.0],
        "running_var": 1.0,
        "shift_se": 0.01,
    }
    base = edited(evidence(), cells, n_batches_tracked=5, momentum=0.1, mode="eval")
    assert len(findings("statistics-young", base)) == fires
