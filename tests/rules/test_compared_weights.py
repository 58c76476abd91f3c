"""What two sides store, cell by cell: vectors, counts and settings that differ, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import recording

import bnprobe
from bnprobe.rules.compared_weights import _differ, _stored
from bnprobe.rules.rule import Evidence
from rules.edited import compared, edited, findings, frame, healthy

MOVED, OUTDATED, LOST, REPLACED = (
    "frozen-statistics-moved",
    "statistics-outdated",
    "statistics-lost",
    "norm-replaced",
)
OTHER_MEAN = {"running_mean_b": [0.0, 5.0, 9.0]}


@pytest.mark.parametrize(
    ("cells", "row", "severity"),
    [
        (OTHER_MEAN, {}, "warning"),
        (OTHER_MEAN, {"running_gap": 0.09}, "info"),
        (OTHER_MEAN, {"running_gap": 0.1}, "warning"),
        (OTHER_MEAN, {"running_gap": 0.0}, None),
        (OTHER_MEAN, {"memory_moved_a": 0.1}, None),
        (OTHER_MEAN, {"memory_moved_b": 0.1}, None),
        (OTHER_MEAN, {"memory_moved_a": 0.0, "memory_moved_b": 0.0}, "warning"),
        ({"running_var_b": [1.0, 5.0, 9.0]}, {}, "warning"),
        ({}, {}, None),
        ({"running_mean_b": 0.0, "running_var_b": 1.0}, {}, None),
        ({"running_mean_a": 0.0, "running_var_a": 1.0}, {}, None),
        ({**OTHER_MEAN, "running_var_b": math.nan}, {}, None),
        ({**OTHER_MEAN, "gamma_b": [0.5, -0.7, 1.3]}, {}, None),
        ({**OTHER_MEAN, "beta_b": [0.1, 0.1, 0.2]}, {}, None),
        ({**OTHER_MEAN, "gamma_a": math.nan, "gamma_b": math.nan}, {}, None),
        ({**OTHER_MEAN, "beta_a": math.nan, "beta_b": math.nan}, {}, "warning"),
    ],
)
def test_statistics_that_moved_under_the_same_vectors(
    cells: dict[str, Any], row: dict[str, Any], severity: str | None
) -> None:
    """Fails if one channel is not enough, a recording's own updates are told, or a missing vector differs from itself."""
    found = findings(MOVED, edited(compared(), cells, **{"running_gap": 0.5, **row}))
    assert [one.severity for one in found] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("counts", "end"),
    [
        ((40, 40), "in all layers."),
        ((40, 1040), "in all layers (num_batches_tracked went from 40 to 1,040)."),
        ((math.nan, 40), "in all layers."),
        ((40, math.nan), "in all layers."),
    ],
)
def test_counts_are_told_where_both_sides_have_other_ones(counts: tuple[float, float], end: str) -> None:
    """Fails if a count that is the same, or missing on a side, is told."""
    row = {"running_gap": 0.25, "n_batches_tracked_a": counts[0], "n_batches_tracked_b": counts[1]}
    (one,) = findings(MOVED, edited(compared(), OTHER_MEAN, **row))
    assert one.because == (
        "running_mean and running_var are 0.25 σ apart (threshold 0.1); γ and β are the same to the last bit "
        + end
    )


def test_another_norm_that_differs_is_training() -> None:
    """Fails if γ is looked at in one layer only, or a norm of one side alone does not count as other weights."""
    one = recording(healthy("a"), healthy("b"))
    comparison = bnprobe.compare(one, one)
    both = Evidence(comparison.layers, comparison.channels, comparison.unmatched)
    both = edited(both, OTHER_MEAN, running_gap=0.5)
    assert len(findings(MOVED, both)) == 1
    assert findings(MOVED, edited(both, {"gamma_b": [0.5, -0.7, 1.3]}, at=1)) == []
    more = Evidence(
        both.layers, both.channels, pd.DataFrame({"layer": ["c"], "side": ["A"], "why": ["none"]})
    )
    assert findings(MOVED, more) == []


@pytest.mark.parametrize(
    ("cells", "row", "fires"),
    [
        ({"gamma_b": [0.5, -0.7, 1.3]}, {}, 1),
        ({"beta_b": [0.1, 0.1, 0.2]}, {}, 1),
        ({}, {}, 0),
        ({"gamma_b": [0.5, -0.7, 1.3], **OTHER_MEAN}, {}, 0),
        ({"gamma_b": [0.5, -0.7, 1.3], "running_var_b": [1.0, 5.0, 9.0]}, {}, 0),
        ({"gamma_b": [0.5, -0.7, 1.3], "running_mean_b": math.nan, "running_var_b": math.nan}, {}, 0),
    ],
)
def test_vectors_that_changed_over_the_same_statistics(
    cells: dict[str, Any], row: dict[str, Any], fires: int
) -> None:
    """Fails if one of γ and β is not enough, or statistics that moved, or are missing, count as the same."""
    found = findings(OUTDATED, edited(compared(), cells, affine_gap=0.3, **row))
    assert len(found) == fires
    for one in found:
        assert one.because == (
            "γ and β are 0.3 of their own scale apart, while running_mean and running_var are the same to the last bit."
        )


RESET_A, RESET_B = ({f"running_mean_{s}": 0.0, f"running_var_{s}": 1.0} for s in "ab")


@pytest.mark.parametrize(
    ("cells", "row", "told"),
    [
        ({}, {}, []),
        (
            RESET_B,
            {},
            [
                (
                    "critical",
                    "lost from A to B: B has their initial values.",
                    "in B, running_mean is 0 and running_var is 1 in all 3 channels, in A they are not.",
                )
            ],
        ),
        (
            RESET_A,
            {},
            [
                (
                    "info",
                    "are new in B: A has their initial values.",
                    "in A, running_mean is 0 and running_var is 1 in all 3 channels, in B they are not.",
                )
            ],
        ),
        ({**RESET_A, **RESET_B}, {}, []),
        ({"running_mean_b": 0.0, "running_var_b": [1.0, 1.0, 1.1]}, {}, []),
        ({"running_mean_b": [0.0, 0.0, 0.1], "running_var_b": 1.0}, {}, []),
        ({**RESET_B, "running_mean_a": math.nan, "running_var_a": math.nan}, {}, []),
        (
            {},
            {"missing_b": "running_mean, running_var"},
            [
                (
                    "critical",
                    "lost from A to B: B does not store them.",
                    "A stores running_mean and running_var of 3 channels, B does not store them.",
                )
            ],
        ),
        (
            {},
            {"missing_a": "running_mean, running_var"},
            [
                (
                    "info",
                    "are new in B: A does not store them.",
                    "B stores running_mean and running_var of 3 channels, A does not store them.",
                )
            ],
        ),
        (
            {},
            {"missing_b": "running_var", "kind_b": "unknown_norm"},
            [
                (
                    "critical",
                    "lost from A to B: B does not store them.",
                    "A stores running_mean and running_var of 3 channels, B does not store them.",
                )
            ],
        ),
        ({}, {"missing_b": "running_var", "kind_b": "layer_norm"}, []),
    ],
)  # fmt: skip
def test_statistics_that_one_side_lacks(
    cells: dict[str, Any], row: dict[str, Any], told: list[tuple[str, str, str]]
) -> None:
    """Fails if sides are exchanged, one channel makes statistics initial, or another kind of norm has lost any."""
    found = findings(LOST, edited(compared(), cells, **row))
    assert [(one.severity, one.because) for one in found] == [
        (severity, because) for severity, _, because in told
    ]
    for one, (_, says, _) in zip(found, told, strict=True):
        assert one.says.endswith(says)
        assert one.do.startswith(
            "Load a checkpoint" if one.severity == "critical" else "Nothing, if B is the newer"
        )


@pytest.mark.parametrize(
    ("row", "because"),
    [
        ({}, None),
        ({"eps_b": 1e-3}, "eps is 1e-05 in A and 0.001 in B."),
        ({"eps_b": 1e-3, "mode_a": "weights only"}, None),
        ({"eps_b": 1e-3, "mode_b": "weights only"}, None),
        (
            {"eps_b": 1e-3, "mode_a": "weights only", "mode_b": "weights only"},
            "eps is 1e-05 in A and 0.001 in B.",
        ),
        ({"eps_b": float(np.float32(1e-5))}, None),
        ({"eps_b": 1.001e-5}, "eps is 1e-05 in A and 1.001e-05 in B."),
        ({"kind_b": "layer_norm"}, "A is a batch norm, B a layer norm."),
        ({"kind_b": "unknown_norm"}, None),
        ({"kind_a": "unknown_norm"}, None),
        (
            {"kind_a": "instance_norm", "eps_a": 1e-3},
            "eps is 0.001 in A and 1e-05 in B; A is an instance norm, B a batch norm.",
        ),
        ({"kind_a": "group_norm", "kind_b": "group_norm", "own_groups_a": 4.0, "own_groups_b": 4.0}, None),
        (
            {"kind_a": "group_norm", "kind_b": "group_norm", "own_groups_a": 4.0, "own_groups_b": 2.0},
            "A has 4 groups of channels, B 2.",
        ),
        (
            {"kind_a": "group_norm", "kind_b": "group_norm", "own_groups_a": 1.0, "own_groups_b": 2.0},
            "A has 1 groups of channels, B 2.",
        ),
        (
            {"kind_a": "group_norm", "kind_b": "group_norm", "own_groups_a": 4.0, "own_groups_b": math.nan},
            None,
        ),
        ({"own_groups_a": 4.0, "own_groups_b": 2.0}, None),
        ({"missing_a": "β"}, "only B stores β."),
        ({"missing_b": "γ, β"}, "only A stores γ; only A stores β."),
        ({"missing_a": "running_var"}, None),
        (
            {"missing_b": "γ", "pre_gap": 0.0, "post_gap": 0.5},
            "only A stores γ. The same inputs give outputs 0.5 of the layer's standard deviations apart.",
        ),
        ({"missing_b": "γ", "pre_gap": 0.1, "post_gap": 0.5}, "only A stores γ."),
        ({"missing_b": "γ", "pre_gap": 0.0, "post_gap": 0.0}, "only A stores γ."),
    ],
)
def test_another_norm_under_the_same_name(row: dict[str, Any], because: str | None) -> None:
    """Fails if the eps of a file is compared with that of a run, those of two files are not, float32 is another eps, or a
    vector is said to be on the wrong side."""
    found = findings(REPLACED, edited(compared(), **row))
    assert [one.because for one in found] == ([because] if because else [])


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        ([1.0, math.nan], [1.0, math.nan], False),
        ([1.0, math.nan], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, math.nan], True),
        ([1.0, 2.0], [1.0, 2.0], False),
    ],
)
def test_what_is_missing_on_one_side_alone_differs(a: list[float], b: list[float], differ: bool) -> None:
    """Fails if a vector of one side is the same as none of the other."""
    assert _differ(frame(gamma_a=a, gamma_b=b), "gamma") is differ


@pytest.mark.parametrize(
    ("a", "b", "stored"),
    [([1.0, math.nan], [math.nan, 1.0], True), ([1.0, 1.0], [math.nan, math.nan], False)],
)
def test_statistics_are_stored_where_a_channel_has_some(a: list[float], b: list[float], stored: bool) -> None:
    """Fails if one broken channel makes a norm without running statistics, or one side speaks for both."""
    assert _stored(frame(running_var_a=a, running_var_b=b)) is stored


@pytest.mark.parametrize(
    ("tensors", "filters", "severity", "words"),
    [
        ([], False, "warning", "anywhere in the network"),
        ([("fc.weight", "both")], False, "warning", "anywhere in the network"),
        ([("conv.lora_A.weight", "B")], False, "info", "changed with adapters"),
        ([("conv.lora_A.weight", "A")], False, "warning", "anywhere in the network"),
        ([], True, "info", "changed with the weights before the norms"),
    ],
    ids=["nothing", "a head", "adapters", "adapters of A", "merged adapters"],
)
def test_statistics_that_followed_other_weights_are_no_warning(
    tensors: list[tuple[str, str]], filters: bool, severity: str, words: str
) -> None:
    """Fails if adapters that were trained with the norms in train mode are a fault, or a head above a backbone is none."""
    moved = edited(compared(), {"running_mean_b": 0.0}, running_gap=0.5, filters_differ=filters)
    table = pd.DataFrame(tensors, columns=["tensor", "side"])
    (found,) = findings("frozen-statistics-moved", replace(moved, tensors=table))
    assert found.severity == severity
    assert words in found.says
