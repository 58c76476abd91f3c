"""Each rule of a comparison on the fault that it is for, and silent on a healthy pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import recording, running_stats_of, site, some_rows

import bnprobe
from bnprobe.recording import LayerRecord, Recording, TensorTable
from bnprobe.recording.names import VECTORS
from bnprobe.recording.neighbours import Folded, Neighbours
from bnprobe.rules import COMPARED, Finding
from bnprobe.rules.rule import Evidence
from rules.edited import edited, findings

ROWS = some_rows(n=40)
STATISTICS = running_stats_of(ROWS)
GAMMA, BETA = [0.7, 0.5, 0.4], [0.1, 0.2, 0.3]
PLUS_ONE = [1.7, 1.5, 1.4]


def norm(layer: str = "bn", rows: np.ndarray = ROWS, **changes: object) -> LayerRecord:
    return site(rows, layer, **{"gamma": GAMMA, "beta": BETA, **STATISTICS, **changes})


def found(a: list[LayerRecord] | Recording, b: list[LayerRecord] | Recording, rule: str) -> pd.DataFrame:
    sides = (side if isinstance(side, Recording) else recording(*side) for side in (a, b))
    findings = bnprobe.compare(*sides).findings
    return findings[findings["rule"] == rule].reset_index(drop=True)


def holes() -> np.ndarray:
    rows = ROWS.copy()
    rows[3, 1, 2] = np.nan
    return rows


def beside(name: str, size: float, other: float = 0.0) -> Recording:
    """A norm, and a tensor beside it; `other` is the checksum of one more, which is so much larger than 2."""
    table = TensorTable(
        (name, "z"), ("float32",) * 2, ("3",) * 2, np.array([size, other]), np.array([size, 2 + other])
    )
    return replace(recording(norm()), tensors=table)


def of_one_training(seed: int, scale: float = 1.0) -> list[LayerRecord]:
    """Two norms whose vectors are drawn for this seed, channel by channel; their inputs are `scale` times as large."""
    rng = np.random.default_rng(seed)
    rows = some_rows(n=40, n_channels=60) * scale
    stored = running_stats_of(rows)
    return [
        site(
            rows,
            layer,
            gamma=rng.uniform(0.5, 1.5, 60),
            beta=rng.normal(size=60),
            running_mean=rng.normal(size=60),
            running_var=stored["running_var"].mean() * rng.uniform(0.5, 2, 60),
        )
        for layer in ("a", "b")
    ]


def wide(layer: str, seed: int, order: slice = slice(None), *, folded: float = 0.0) -> LayerRecord:
    """A norm of eight channels whose vectors are drawn for this seed; γ in this order, or in the filters before it, too."""
    rng = np.random.default_rng(seed)
    rows = some_rows(n=40, n_channels=8)
    gamma, beta, lengths = rng.uniform(1.5, 3, 8), rng.normal(size=8), rng.uniform(1, 2, 8)
    stored = running_stats_of(rows)
    scale = (gamma / np.sqrt(stored["running_var"] + 1e-5)) ** folded
    made = site(rows, layer, gamma=gamma[order], beta=beta, **stored)
    filters = Folded(lengths * scale, -lengths, lengths, None)
    return replace(made, neighbours=Neighbours("relu", "conv", folded=filters))


def of_sizes(layers: list[LayerRecord], size: float) -> Recording:
    """These norms among four matrices of this size."""
    names = tuple(f"{i}.weight" for i in range(4))
    sizes, sums = np.full(4, size), size * np.arange(1.0, 5.0)
    return replace(
        recording(*layers), tensors=TensorTable(names, ("float32",) * 4, ("60×60",) * 4, sums, sizes)
    )


def mean_of(one: list[LayerRecord], other: list[LayerRecord]) -> list[LayerRecord]:
    """Norms whose vectors are halfway between those of two networks."""
    return [
        replace(a, **{name: (getattr(a, name) + getattr(b, name)) / 2 for name in VECTORS})
        for a, b in zip(one, other, strict=True)
    ]


def embedded(size: float) -> Recording:
    """A norm behind an embedding of 64 columns and this size."""
    table = TensorTable(("e.weight",), ("float32",), ("100×64",), np.array([size]), np.array([size]))
    return replace(recording(norm()), tensors=table)


CASES = {
    "mean-of-unrelated": (
        of_sizes(of_one_training(1), 1.0),
        of_sizes(mean_of(of_one_training(1), of_one_training(2)), np.sqrt(0.5)),
        "warning",
    ),
    "vectors-moved": ([wide("a", 1), wide("b", 2)], [wide("a", 2), wide("b", 1)], "critical"),
    "channels-reordered": ([wide("a", 1)], [wide("a", 1, slice(None, None, -1))], "warning"),
    "fold-unfinished": ([wide("a", 1)], [wide("a", 1, folded=1.0)], "critical"),
    "channels-unrelated": (of_one_training(1), of_one_training(2), "info"),
    "embeddings-scaled": (embedded(0.125), embedded(1.0), "warning"),
    "tensors-differ": (beside("m.scale", 1.0), beside("m.scale", 1e-6), "warning"),
    "tensors-unmatched": (beside("m.gamma", 1.0), beside("m.weight", 1.0), "warning"),
    "inputs-differ": ([norm()], [norm(rows=ROWS * 2 + 3)], "warning"),
    "modes-disagree": (
        [norm(running_mean=STATISTICS["running_mean"] + 2 * np.sqrt(STATISTICS["running_var"]))],
        [replace(site(ROWS, "bn", gamma=GAMMA, beta=BETA), n_calls_training=1, **{
            k: STATISTICS[k] for k in ("running_mean", "running_var")
        })],
        "warning",
    ),
    "statistics-outdated": ([norm()], [norm(gamma=[0.9, 0.5, 0.4])], "warning"),
    "frozen-statistics-moved": ([norm()], [norm(running_mean=STATISTICS["running_mean"] * 1.2)], "warning"),
    "statistics-lost": ([norm()], [norm(gamma=[0.9, 0.5, 0.4], running_mean=0.0, running_var=1.0)], "critical"),
    "channels-silenced": ([norm()], [norm(beta=[0.1, 0.2, -9.0])], "warning"),
    "became-nonfinite": ([norm()], [norm(rows=holes())], "critical"),
    "norm-replaced": ([norm()], [norm(eps=1e-3)], "warning"),
    "changed-alike": ([norm(), norm("next")], [norm(gamma=PLUS_ONE), norm("next", gamma=PLUS_ONE)], "warning"),
    "affine-reset": ([norm(), norm("next")], [norm(), norm("next", beta=0.0)], "warning"),
    "layers-unmatched": ([norm(), norm("more")], [norm()], "info"),
}  # fmt: skip


@pytest.mark.parametrize("rule", [rule.id for rule in COMPARED])
def test_each_rule_finds_its_fault_and_nothing_in_a_healthy_pair(rule):
    """Fails if a rule lands without a planted fault, is blind to it, or speaks where nothing changed."""
    a, b, severity = CASES[rule]
    assert list(found(a, b, rule)["severity"]) == [severity]
    assert found(a, a, rule).empty
    assert found(b, b, rule).empty


def test_what_says_the_sentence_names_the_numbers():
    """Fails if a finding of a comparison does not keep the form of all others."""
    for rule, (a, b, _) in CASES.items():
        row = found(a, b, rule).iloc[0]
        assert row["says"].endswith(".")
        assert any(c.isdigit() for c in row["because"]), rule
        assert len(row["do"]) > 20
        assert "nan" not in row["because"]


def test_inputs_of_unrelated_channels_are_not_compared():
    """Fails if networks from two initializations are said to get other inputs, channel by channel."""
    one, other = of_one_training(1), of_one_training(2, scale=3.0)
    assert not found(one, other, "channels-unrelated").empty
    assert found(one, other, "inputs-differ").empty


def test_tensors_beside_the_norms_are_counted():
    """Fails if one tensor is counted in the plural, or two in the singular."""
    one, far = beside("m.scale", 1.0), beside("m.scale", 1e-6)
    (row,) = found(one, far, "tensors-differ").itertuples()
    assert row.says.startswith("One tensor beside the norms differs in size by a factor of ")
    (row,) = found(one, beside("m.scale", 1e-6, 1e6), "tensors-differ").itertuples()
    assert row.says.startswith("2 tensors beside the norms differ in size by a factor of ")


def test_a_value_that_is_not_finite_names_the_vectors_too():
    """Fails if poisoned buffers pass because no data went through."""
    bad = np.array([np.nan, 1.0, 1.0])
    row = found([norm()], [norm(running_var=bad)], "became-nonfinite").iloc[0]
    assert row["channels"] == (0,)


def test_a_note_where_frozen_statistics_hardly_moved():
    """Fails if a thousandth of a standard deviation is a warning."""
    shifted = STATISTICS["running_mean"] + 1e-3 * np.sqrt(STATISTICS["running_var"])
    assert list(found([norm()], [norm(running_mean=shifted)], "frozen-statistics-moved")["severity"]) == [
        "info"
    ]


def test_statistics_that_moved_with_trained_weights_are_as_they_should_be():
    """Fails if fine-tuning that works is called a fault."""
    tuned = norm(gamma=[0.9, 0.5, 0.4], running_mean=STATISTICS["running_mean"] * 1.1)
    names = ("statistics-outdated", "frozen-statistics-moved", "statistics-lost")
    assert all(found([norm()], [tuned], name).empty for name in names)


def test_settings_leave_out_and_move_thresholds(tmp_path):
    """Fails if the rules of a comparison cannot be suppressed, or their thresholds not set."""
    file = tmp_path / "own.toml"
    pair = recording(norm()), recording(norm(rows=ROWS * 2 + 3))
    file.write_text('ignore = ["inputs-differ:bn"]')
    quiet = bnprobe.compare(*pair, config=file)
    assert quiet.findings.empty
    assert "1 finding ignored by" in quiet.to_text()
    file.write_text("[thresholds]\ngap = 50")
    assert bnprobe.compare(*pair, config=file).findings.empty


def between_modes(n_wider: int, name: str = "0 (p = 0.5)") -> list[Finding]:
    """What is said where so many of ten channels vary more in train mode, and dropout may be before the norm."""
    rows = some_rows(n=40, n_channels=10)
    side = recording(site(rows, **running_stats_of(rows)))
    tables = bnprobe.compare(side, side)
    evidence = edited(
        Evidence(tables.layers, tables.channels, tables.unmatched),
        {"pre_var_a": [4.0] * n_wider + [0.5] * (10 - n_wider), "pre_var_b": 1.0},
        mode_a="train",
        mode_b="eval",
        pre_gap=0.8,
        post_gap=0.0,
        dropout_before=name,
    )
    return findings("modes-disagree", evidence)


def test_dropout_widens_nearly_all_channels():
    """Fails if dropout is blamed where two of ten channels vary less in train mode, or is not where one of ten does."""
    (said,) = between_modes(9)
    assert "Dropout before this norm" in said.says
    assert "larger in 90% of the channels" in said.because
    assert between_modes(8) == []
    assert between_modes(10, name="") == []


FAR = {"pre_gap": 0.8, "pre_noise": 0.1, "post_gap": 0.8, "post_noise": 0.1}


def three(*rows: dict[str, Any]) -> Evidence:
    """Norms a, b, c that are the same on both sides, but for these cells."""
    one = recording(norm("a"), norm("b"), norm("c"))
    tables = bnprobe.compare(one, one)
    found = Evidence(tables.layers, tables.channels, tables.unmatched)
    for i, row in enumerate(rows):
        found = edited(found, at=i, **row)
    return found


@pytest.mark.parametrize(
    ("rows", "layer", "because"),
    [
        ([{}, FAR], "b", "sampling noise 0.1); B's typical std is as large as that of A."),
        ([FAR], "a", "threshold 0.5, sampling noise 0.1); B's typical std is as large as that of A."),
        ([{**FAR, "pre_noise": np.nan}], "a", "threshold 0.5); B's typical std is as large as that of A."),
        ([FAR, FAR], "a", " 1 following norm does as well, by up to 0.8 σ at b."),
        ([FAR, FAR, {**FAR, "pre_gap": 2.0}], "a", " 2 following norms do as well, by up to 2 σ at c."),
        ([FAR, {**FAR, "pre_gap": 2.0}, FAR], "a", " 2 following norms do as well, by up to 2 σ at b."),
        ([FAR, {**FAR, "pre_noise": 0.5}], "a", "sampling noise 0.1); B's typical std is as large as that of A."),
        ([{"pre_gap": 0.49, "pre_noise": 0.0}], None, None),
    ],
)  # fmt: skip
def test_where_inputs_begin_to_differ(
    rows: list[dict[str, Any]], layer: str | None, because: str | None
) -> None:
    """Fails if another norm than the first is named, those that follow are counted wrongly, or chance counts."""
    found = findings("inputs-differ", three(*rows))
    assert [one.layer for one in found] == ([layer] if layer else [])
    for one in found:
        assert one.because.endswith(str(because))


INSIDE = {"pre_gap": 0.0, "post_gap": 0.25, "post_noise": 0.01}


@pytest.mark.parametrize(
    ("first", "severity", "says", "do"),
    [
        (
            FAR,
            "warning",
            "differ between A and B.",
            "and no weights before it are known to differ. If that is the first norm",
        ),
        (
            {**FAR, "mode_a": "train"},
            "warning",
            "B.",
            "One side ran in train mode, where dropout may change them. If that",
        ),
        (
            {**FAR, "mode_a": "train", "mode_b": "train"},
            "warning",
            "B.",
            "no weights before it are known to differ. If that is",
        ),
        (
            {**FAR, "weights_before_differ": True},
            "info",
            ": weights before it do.",
            "already differ, by 0.8 σ, and so do",
        ),
        (
            INSIDE,
            "info",
            ": stored values before it do.",
            "its outputs are 0.25 of the layer's standard deviations apart. Compare",
        ),
        (
            {**INSIDE, "normalized_by_b": "both"},
            "warning",
            "B.",
            "One side normalized with running statistics, the other",
        ),
        ({**INSIDE, "eps_b": 1e-3}, None, "", ""),
        ({**INSIDE, "missing_b": "γ"}, None, "", ""),
        ({**INSIDE, "post_gap": 0.8, "normalized_by_b": "batch"}, None, "", ""),
    ],
)
def test_why_inputs_differ(first: dict[str, Any], severity: str | None, says: str, do: str) -> None:
    """Fails if weights, a mode or a setting that explain the difference are passed over, or data are blamed with them."""
    base = three(first, FAR)
    assert [one.severity for one in findings("inputs-differ", base)] == ([severity] if severity else [])
    for one in findings("inputs-differ", base):
        assert one.says.endswith(says)
        assert do in one.do
    assert findings("inputs-differ", replace(base, apart={"γ": 0.1})) == []


BY_MODE = {"normalized_by_b": "batch", "post_gap": 0.8, "post_noise": 0.1, "pre_gap": 0.2, "pre_noise": 0.1}


@pytest.mark.parametrize(
    ("row", "fires"),
    [
        ({}, 1),
        ({"normalized_by_a": "batch", "normalized_by_b": "running"}, 1),
        ({"normalized_by_a": "batch"}, 0),
        ({"normalized_by_b": "both"}, 0),
        ({"post_gap": 0.5, "pre_gap": 0.0}, 1),
        ({"post_gap": 0.49, "pre_gap": 0.0}, 0),
        ({"post_noise": 0.26}, 1),
        ({"post_noise": 0.27}, 0),
        ({"post_noise": np.nan}, 1),
        ({"pre_gap": 0.39}, 1),
        ({"pre_gap": 0.4}, 0),
    ],
)
def test_outputs_that_differ_between_modes(row: dict[str, Any], fires: int) -> None:
    """Fails if two equal modes disagree, a gap within its noise counts, or inputs that differ half as much do."""
    found = findings("modes-disagree", three({}, {**BY_MODE, **row}))
    assert [one.layer for one in found] == ["b"] * fires
    for one in found:
        gap, entered = ({**BY_MODE, **row}[name] for name in ("post_gap", "pre_gap"))
        assert (
            f"outputs are {gap:.2g} of the layer's standard deviations apart (threshold 0.5), inputs {entered:.2g}: "
            in one.because
        )


DROPPED = {
    "mode_a": "train",
    "mode_b": "eval",
    "pre_gap": 0.8,
    "pre_noise": 0.1,
    "post_gap": 0.0,
    "dropout_before": "d",
}
WIDER = {"pre_var_a": 4.0, "pre_var_b": 1.0, "pre_shift": 0.3}


@pytest.mark.parametrize(
    ("cells", "row", "because"),
    [
        (
            {},
            {},
            "is 2 times that in eval mode (larger in 100% of the channels), their means are 0.3 σ apart; by the "
            "module tree, d comes before it.",
        ),
        (
            {"pre_var_a": 1.0, "pre_var_b": 4.0},
            {"mode_a": "eval", "mode_b": "train"},
            "is 2 times that in eval mode",
        ),
        ({}, {"mode_a": "eval", "mode_b": "train"}, None),
        ({}, {"mode_b": "train"}, None),
        ({}, {"dropout_before": ""}, None),
        ({}, {"pre_gap": 0.49}, None),
        ({}, {"pre_gap": 0.61}, "their means are 0.3 σ apart"),
        ({}, {"pre_noise": 0.26}, "is 2 times"),
        ({}, {"pre_noise": 0.27}, None),
        ({"pre_shift": [0.0, 0.0, 0.69]}, {}, "their means are 0.4 σ apart"),
        ({"pre_shift": 0.41}, {}, None),
    ],
)
def test_dropout_before_a_norm(cells: dict[str, Any], row: dict[str, Any], because: str | None) -> None:
    """Fails if dropout is blamed for means that moved, in one mode, or where the module tree has none."""
    base = edited(three(), {**WIDER, **cells}, **{**DROPPED, **row})
    found = findings("modes-disagree", base)
    assert len(found) == (because is not None)
    for one in found:
        assert one.severity == "warning"
        assert str(because) in one.because
        assert one.do.startswith("The running variance is that of train mode")


def test_dropout_further_before_is_named_too() -> None:
    """Fails if dropout before an earlier norm is forgotten, or one norm without running statistics is warned of."""
    base = edited(
        three({"dropout_before": "d"}),
        {**WIDER, "running_var_a": np.nan, "running_var_b": np.nan},
        at=1,
        **{**DROPPED, "dropout_before": "e"},
    )
    (one,) = findings("modes-disagree", base)
    assert (one.layer, one.severity) == ("b", "info")
    assert one.because.endswith("by the module tree, d and e come before it.")
    assert one.do.startswith("Nothing, if the modes were to be compared.")


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (
            [0.5, 0.2, 0.5],
            [0.5, 0.0, 0.5],
            (
                "warning",
                "Some channels were positive in A",
                "1 of 3 channels; in A the most active was positive 20.00% of the time, in B none was on 40 samples.",
                (1,),
            ),
        ),
        (
            [0.5, 0.0, 0.0],
            [0.5, 0.25, 0.5],
            (
                "info",
                "Some channels were never positive in A",
                "2 of 3 channels; in B the most active was positive 50.00% of the time, in A none was on 40 samples.",
                (1, 2),
            ),
        ),
        (
            [0.5, 0.5, 0.5],
            [0.0, 0.0, 0.0],
            (
                "warning",
                "All channels were positive in A",
                "3 of 3 channels; in A the most active",
                (0, 1, 2),
            ),
        ),
        ([0.0, 0.5, 0.5], [0.0, 0.5, 0.5], None),
    ],
)
def test_channels_that_fell_silent_or_came_back(
    a: list[float], b: list[float], told: tuple[str, str, str, tuple[int, ...]] | None
) -> None:
    """Fails if sides are exchanged, a share or a count is of the other side, or channels that came back are a warning."""
    base = edited(three(), {"fires_a": a, "fires_b": b})
    found = findings("channels-silenced", base)
    assert len(found) == (told is not None)
    if told:
        assert (found[0].severity, found[0].channels) == (told[0], told[3])
        assert found[0].says.startswith(told[1])
        assert found[0].because.startswith(told[2])
    assert findings("channels-silenced", replace(base, apart={"γ": 0.1})) == []


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, None),
        ({"n_nonfinite_b": 1}, ("critical", "in B 1 input value is not finite, unlike in A.")),
        ({"n_nonfinite_b": 2000}, ("critical", "in B 2,000 input values are not finite, unlike in A.")),
        ({"n_nonfinite_a": 1}, ("info", "in A 1 input value is not finite, unlike in B.")),
        ({"n_nonfinite_a": 1, "n_nonfinite_b": 7}, None),
        ({"poison_b": "γ is NaN"}, ("critical", "in B γ is NaN, unlike in A.")),
        ({"poison_a": "γ is NaN"}, ("info", "in A γ is NaN, unlike in B.")),
        (
            {"n_nonfinite_b": 3, "poison_b": "γ is NaN"},
            ("critical", "in B 3 input values are not finite and γ is NaN, unlike in A."),
        ),
    ],
)
def test_what_is_not_finite_on_one_side(row: dict[str, Any], told: tuple[str, str] | None) -> None:
    """Fails if what both sides have is told, sides are exchanged, or a count and a vector are not told together."""
    found = findings("became-nonfinite", three({}, row))
    assert [(one.severity, one.because) for one in found] == ([told] if told else [])


@pytest.mark.parametrize(
    ("n", "layer", "because"),
    [
        (1, "n0", "1: n0."),
        (2, "", "2: n0, n1."),
        (8, "", "8: n0, n1, n2, n3, n4, n5, n6, n7."),
        (9, "", "9: n0, n1, n2, n3, n4, n5, n6, n7 and 1 more."),
    ],
)
def test_norms_without_a_counterpart(n: int, layer: str, because: str) -> None:
    """Fails if a list grows with the network, or does not say how many it leaves out."""
    unread = pd.DataFrame({"layer": [f"n{i}" for i in range(n)], "side": "A", "why": "not in B"})
    (one,) = findings("layers-unmatched", replace(three(), unread=unread))
    assert (one.layer, one.because) == (layer, because)
    assert one.says.startswith("This norm of A was" if n == 1 else "Some norms of A were")
