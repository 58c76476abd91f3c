"""The rule book as a whole: form, order, columns, and rules that survive any table."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from measures.drawn import folds_of
from measures.sites import call_log, gradient, recording, running_stats_of, site, some_rows
from torch import nn

import bnprobe
from bnprobe.measures import Tables, tables
from bnprobe.recording import LayerRecord, Normalize, Recording
from bnprobe.recording.neighbours import Folded, Implied, Neighbours, Stem
from bnprobe.recording.output_check import OutputCheck
from bnprobe.rules import RULES, judge
from bnprobe.rules.rule import Evidence, Finding, Rule, _run, unsound
from bnprobe.severity import SEVERITIES
from bnprobe.stats import ClassMoments, Moments

ONE = np.ones(3)
DECAYED = Neighbours("relu", "conv", folded=Folded(np.array([0.01, 1, 1]), -ONE, ONE, None))
CONTRACT = ("severity", "rule", "layer", "channels", "says", "because", "do", "source")


TRAINED = {"gamma": 1.5, "beta": 0}
LEARNING = {"n_calls_learning": 1, "n_calls_model_training": 1}
BY_BATCH = {"n_calls_training": 1, "n_calls_running": 0}
MATRIX = np.random.default_rng(0).normal(size=(12, 3))


def first_norm(layer: str, gain: float, offset: float, detail: float) -> LayerRecord:
    """A stem that saw gain x + offset for x, and fine filters that saw more than their running variance says."""
    inputs = np.random.default_rng(1).normal(loc=(0.3, -0.2, 0.5), size=(40, 20, 3)).swapaxes(1, 2)
    trained, seen = (np.einsum("cf,nfp->ncp", MATRIX, x) for x in (inputs, gain * inputs + offset))
    finer = np.where(np.arange(12) < 4, detail, 1.0)
    statistics = {"running_mean": trained.mean((0, 2)), "running_var": trained.var((0, 2)) / finer**2}
    lengths = np.linalg.norm(MATRIX, axis=1) * np.where(np.arange(12) < 4, 100.0, 1.0)
    folded = Folded(lengths, -np.ones(12), np.ones(12), None)
    neighbours = Neighbours(
        "linear", "conv", ("input",), source="input", stem=Stem(MATRIX, None), folded=folded
    )
    return site(seen, layer, **TRAINED, **statistics, neighbours=neighbours)


def in_use(rows: np.ndarray) -> list[LayerRecord]:
    """Sites that are used wrongly, or that stand in wrong company."""
    statistics = running_stats_of(rows)
    moved = call_log(**{**LEARNING, "gamma_learns": False, "beta_learns": False}, running_mean_after=0 * ONE)
    small = call_log(**LEARNING, fewest_values=5.0, fewest_call=0, fewest_images=1, n_updates=2)
    still = call_log(**LEARNING, running_mean_after=statistics["running_mean"])
    stuck = call_log(n_calls_learning=1, n_learned_in_eval=2, running_mean_after=statistics["running_mean"])
    young = {
        "running_mean": 0.6 * statistics["running_mean"],
        "running_var": 0.6 * statistics["running_var"] + 0.4,
    }
    alone = Neighbours("add", "conv", skip="bn0")
    wide = np.random.default_rng(0).normal(size=(40, 100, 6)) * np.where(np.arange(100) == 3, 70, 1)[:, None]
    return [
        site(rows, "small", **TRAINED, **statistics, **BY_BATCH, call_log=small),
        site(rows, "evaluated", **TRAINED, **statistics, **BY_BATCH, call_log=call_log()),
        site(rows, "frozen", **TRAINED, **statistics, **BY_BATCH, gradient=gradient(rows), call_log=moved),
        site(rows, "left in eval", **TRAINED, **statistics, gradient=gradient(rows), call_log=stuck),
        site(rows, "standing", **TRAINED, **statistics, **BY_BATCH, gradient=gradient(rows), call_log=still),
        site(rows, "half frozen", **TRAINED, **statistics, call_log=call_log(**LEARNING)),
        site(rows, "last batch", **TRAINED, **statistics, momentum=0.99),
        site(rows, "young", **TRAINED, **young, n_batches_tracked=9),
        site(rows, "sync", **TRAINED, **statistics, **BY_BATCH, class_name="SyncBatchNorm", call_log=small),
        site(rows, "shared", **TRAINED, **statistics),
        site(rows + 99, "shared", call=1, **TRAINED, **statistics),
        site(
            rows,
            "biased",
            **TRAINED,
            **statistics,
            neighbours=Neighbours("relu", "conv", folded=Folded(ONE, ONE, ONE, ONE), feeds_alone=True),
        ),
        site(rows, "off", gamma=1e-4, beta=1, **statistics, neighbours=alone),
        site(rows, "full", gamma=0.5, beta=[20, 3, 3], **statistics, neighbours=Neighbours("relu6", "conv")),
        site(
            rows,
            "silent",
            gamma=[-1.8, 1, 1],
            beta=[-10, 0, 0],
            **statistics,
            neighbours=Neighbours("relu", "conv"),
        ),
        site(wide, "lopsided", "layer_norm"),
        site(
            rows,
            "over time",
            **TRAINED,
            **statistics,
            neighbours=Neighbours("relu", features_elsewhere="linear after"),
        ),
    ]


def converted(n: int) -> dict[str, Any]:
    """Running statistics a thousand times those that the previous layers imply."""
    mean, var = np.linspace(-1, 2, n), np.ones(n)
    implied = Implied(mean, var, mean[::-1], np.full(n, 0.5), mean, mean)
    neighbours = Neighbours("relu", "conv", implied=implied)
    return {
        "running_mean": 1000 * mean,
        "running_var": 1000 * var,
        "neighbours": neighbours,
        "n_batches_tracked": 999,
    }


def elsewhere() -> list[pd.DataFrame]:
    """What rules find that are silent beside other trouble: images of another size, few images."""
    finer = recording(first_norm("stem", 1.0, 0.0, 3.0), normalize=Normalize((0.4,) * 3, (0.2,) * 3))
    few = recording(site(some_rows(), **TRAINED))
    return [
        judge(tables(whole))
        for whole in (
            finer,
            few,
            grouped(),
            taking_turns(),
            exchanged(),
            computed_otherwise(),
            *trained_wrongly(),
        )
    ] + of_families()


def of_families() -> list[pd.DataFrame]:
    """What the rules of a family find in its own tests: each file of them may have a function `firing` that returns it."""
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    named = [path.stem for path in files if "\ndef firing(" in path.read_text("utf-8")]
    return [table for name in named for table in import_module(f"rules.{name}").firing()]


def computed_otherwise() -> Recording:
    """Outputs that the formula does not give, an input without digits, and updates that are lost."""
    rows = some_rows(40)
    check = OutputCheck("float32", False, constant_rows=0.5, zero_rows=0.5, saturated=0.5)
    statistics = running_stats_of(rows)
    far = rows + 1e7 * rows.std()
    return recording(
        site(rows, "checked", "layer_norm", **TRAINED, output="read", mismatch=0.4, output_check=check),
        site(far, "far", **TRAINED, **running_stats_of(far)),
        site(rows, "stuck", gamma=1, beta=0.3, **statistics, parameter_dtype="bfloat16"),
    )


class Distilled(nn.Module):
    """A teacher in train mode, and a student that learns over frozen statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = (nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = self.teacher(x)
        return self.student(x) - target


def trained_wrongly() -> list[Recording]:
    """Training steps of it, with a loss, and with one that is not finite."""
    torch.manual_seed(0)
    model = Distilled()
    model.student[1].eval()
    batches = [torch.randn(16, 4) for _ in range(3)]
    losses = (lambda y, _: y.square().mean(), lambda y, _: (y * math.inf).mean())
    return [bnprobe.record(model, [(x, x) for x in batches], loss=loss) for loss in losses]


def exchanged() -> Recording:
    """A network whose converter took γ for β."""
    rows, c = some_rows(n_channels=36), np.arange(36)
    return recording(site(rows, gamma=0.2 * np.cos(c), beta=1 + 0.1 * np.sin(c), **running_stats_of(rows)))


def grouped() -> Recording:
    """Samples in groups, which an instance norm's stored statistics and batches of one class do not know of."""
    rows = some_rows()
    log = call_log(n_calls_labeled=8, n_calls_one_class=8)
    classes = ClassMoments.of(Moments.of(rows, axis=2), np.array([0, 0, 1, 1, 1.0]))
    return recording(
        site(rows, "stored", "instance_norm", gamma=1.5, beta=0, **running_stats_of(rows)),
        site(rows, "sorted", gamma=1.5, beta=0, call_log=log, classes=classes),
        alike(),
    )


def taking_turns() -> Recording:
    """Batches of two kinds, in train mode."""
    rows = some_rows(80, n_channels=2)
    rows += 9 * rows.std() * (np.arange(80) // 10 % 2)[:, None, None]
    made = site(rows, "turns", gamma=1.5, beta=0)
    return recording(replace(made, pre_folds=folds_of(rows, 10, np.zeros(2)), n_calls_running=0))


def alike() -> LayerRecord:
    """Six batches, each of ten copies of a sample."""
    rows = np.repeat(some_rows(6), 10, axis=0)
    made = site(rows, "alike", gamma=1.5, beta=0, **running_stats_of(rows))
    return replace(made, pre_folds=folds_of(rows, 10, made.pre_images.origin))


def troubled() -> Recording:
    """One recording in which every rule finds something."""
    rows, spoilt, four = some_rows(), some_rows(), some_rows(n_channels=4)
    statistics = running_stats_of(rows)
    spoilt[0, 1, 0] = np.nan
    return recording(
        site(rows, "healthy", gamma=1.5, beta=0, **statistics),
        site(rows, "flat", gamma=[1e-4, 1, 1], beta=0, **statistics),
        site(spoilt, "spoilt", gamma=1.5, beta=0, **statistics),
        site(rows, "moved", gamma=1.5, beta=0, running_mean=statistics["running_mean"] - 1e3, running_var=1),
        site(rows, "forgotten", gamma=1.5, beta=0, running_mean=0, running_var=1),
        site(rows, "poisoned", gamma=1.5, beta=0, running_mean=np.nan, running_var=1),
        site(rows, "by batch", gamma=1.5, beta=0),
        site(rows, "fused", gamma=1.5, beta=0, output="read", mismatch=0.4, **statistics),
        site(rows, "pulled", gamma=1.5, beta=0, gradient=gradient(rows - rows.mean()), **statistics),
        site(
            rows, "exploding", gamma=1.5, beta=0, gradient=gradient(rows * 1e-6, gap_centre=ONE), **statistics
        ),
        site(rows, "cut off", gamma=1.5, beta=0, gradient=gradient(rows * 0), **statistics),
        site(rows, "dead", gamma=[1e-5, 1, 1], beta=[-1, 0, 0], **statistics),
        site(rows, "decayed", gamma=[1e-3, 1, 1], beta=0, neighbours=DECAYED, **statistics),
        site(rows * 1e-4, "faint", gamma=1.5, beta=0, **running_stats_of(rows * 1e-4)),
        site(rows, "left out", gamma=1, beta=0, **statistics),
        site(rows * 1e6, "wide", gamma=1.5, beta=0, **running_stats_of(rows * 1e6)),
        site(rows, "twice", gamma=1.5, beta=0, n_batches_tracked=80, **statistics),
        *in_use(some_rows(40)),
        first_norm("stem", 0.2, 0.4, 1.0),
        site(some_rows(n_channels=9), "converted", **TRAINED, **converted(9)),
        site(four, "even", gamma=1.5, beta=0, running_mean=four.mean((0, 2)), running_var=4),
        never_called=("spare",),
        folded=("fused",),
        normalize=Normalize((0.4,) * 3, (0.2,) * 3),
        not_understood=("odd (StrangeNorm)", "fc.weight: 1 of 9 tensors (empty)"),
    )


@pytest.fixture(scope="module")
def evidence() -> Tables:
    return tables(troubled())


@pytest.fixture(scope="module")
def found(evidence: Tables) -> pd.DataFrame:
    return pd.concat([judge(evidence), *elsewhere()], ignore_index=True)


def test_every_rule_can_find_something(found):
    """Fails if a rule lands without a case that fires it."""
    assert set(found["rule"]) == {rule.id for rule in RULES}


def test_columns_of_the_contract(found):
    """Fails if a column is renamed, or a cell is not what its name says."""
    assert set(CONTRACT) <= set(found.columns)
    for _, row in found.iterrows():
        assert row["severity"] in SEVERITIES
        for name in ("rule", "layer", "says", "because", "do", "source"):
            assert isinstance(row[name], str), name
        assert isinstance(row["channels"], tuple)
        assert all(type(channel) is int for channel in row["channels"])


def test_the_most_severe_come_first_and_the_rest_as_in_the_book(found):
    """Fails if severities are sorted by letter, or layers of one severity lose their order."""
    found = found.iloc[: len(found) - sum(map(len, elsewhere()))]
    ranks = [SEVERITIES.index(severity) for severity in found["severity"]]
    assert ranks == sorted(ranks)
    book = [rule.id for rule in RULES]
    for severity, group in found.groupby("severity"):
        places = [book.index(rule) for rule in group["rule"]]
        assert places == sorted(places), severity
    assert found.index.tolist() == list(range(len(found)))


def test_severity_order_is_not_that_of_the_book():
    """Fails if findings come as their rules do: an info of the first rule stands behind a critical of the last."""
    rows = some_rows()
    fresh = site(rows, "fresh", gamma=1, beta=0, running_mean=0, running_var=1)
    spoilt = rows.copy()
    spoilt[0, 0, 0] = np.inf
    found = judge(
        tables(recording(fresh, site(spoilt, "spoilt", gamma=1.5, beta=0, **running_stats_of(rows))))
    )
    assert found["severity"].tolist()[0] == "critical"
    assert found["rule"].tolist()[0] == "values-not-finite"


def test_the_source_of_a_finding_is_its_rules(found):
    """Fails if rule and source are taken from different places."""
    by_id = {rule.id: rule for rule in RULES}
    for _, row in found.iterrows():
        assert row["source"] == by_id[row["rule"]].source


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_says_what_it_asks_where_from_and_when_it_is_silent(rule):
    """Fails if a rule has no question, no source, or does not tell what a healthy network looks like."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.id)
    assert rule.asks.endswith("?")
    assert rule.asks[0].isupper()
    assert len(rule.silent) > 5
    assert re.search(
        r"arXiv:\d{4}\.\d{4,5}|https://github\.com/\S+/issues/\d+|\b(19|20)\d\d\b|1/√", rule.source
    ), rule.source


def test_names_of_rules_are_unique():
    """Fails if two rules share a name: a finding could not be traced, nor a rule be named in a test."""
    assert len({rule.id for rule in RULES}) == len(RULES)


def test_words_of_a_finding_are_sentences(found):
    """Fails if a sentence does not end, numbers are missing from the grounds, or a remedy is empty."""
    for _, row in found.iterrows():
        assert row["says"].endswith("."), row["rule"]
        assert row["because"].endswith("."), row["rule"]
        assert row["do"].endswith("."), row["rule"]
        assert len(row["do"]) > 30
        for words in (row["says"], row["because"], re.sub(r"`[^`]*`", "code", row["do"])):
            assert not re.search(r"\bnan\b|nan%|\binf\b|\bNone\b|\b1 calls\b|  ", words), words


def test_code_in_advice_is_code(found):
    """Fails if what stands between backticks cannot be run: a bracket lost, or prose marked as code."""
    for _, row in found.iterrows():
        assert row["do"].count("`") % 2 == 0, row["rule"]
        for code in re.findall(r"`([^`]+)`", row["do"]):
            ast.parse(code)


def test_a_healthy_network_is_left_in_peace():
    """Fails if any rule fires on a network that agrees with its running statistics, seen on enough images."""
    rows = some_rows(40)
    layers = [
        site(rows, "bn", gamma=[0.5, -0.7, 1.2], beta=0.1, **running_stats_of(rows)),
        site(rows, "ln", "layer_norm"),
    ]
    assert len(judge(tables(recording(*layers)))) == 0


def test_judging_changes_no_table(evidence):
    """Fails if a rule writes a helper column into the tables that users get."""
    before = [table.copy() for table in (evidence.layers, evidence.channels, evidence.unread)]
    judge(evidence)
    for table, copy in zip((evidence.layers, evidence.channels, evidence.unread), before, strict=True):
        pd.testing.assert_frame_equal(table, copy)


# Tables that hold nothing, or nothing but NaN


def empty_tables() -> Tables:
    return tables(recording())


def nan_filled(tables: Tables) -> Tables:
    """Every measured number NaN; places, kinds, modes and counts as they are."""
    layers, channels = tables.layers.copy(), tables.channels.copy()
    for table in (layers, channels):
        for name in table.columns[[kind.kind == "f" for kind in table.dtypes]]:
            table[name] = np.nan
    return Tables(layers, channels, tables.unread)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_no_rule_raises_on_tables_without_numbers(rule, evidence):
    """Fails if a rule takes a NaN for a number, or an empty table for one with a first row."""
    assert list(rule.find(Evidence.of(empty_tables()))) == []
    for finding in rule.find(Evidence.of(nan_filled(evidence))):
        assert isinstance(finding, Finding)
        assert "nan" not in finding.because.replace("NaN", "")


def test_nothing_found_is_a_table_too():
    """Fails if no finding means no columns: `report.findings["severity"]` must work."""
    found = judge(empty_tables())
    assert len(found) == 0
    assert set(CONTRACT) <= set(found.columns)
    assert not found["severity"].isin(SEVERITIES).any()


def test_a_rule_without_words_is_not_one():
    """Fails if a Rule can be changed after it was written, or made without its source."""
    with pytest.raises(TypeError, match="missing"):
        Rule("x", "Why?")
    with pytest.raises(AttributeError, match="cannot assign"):
        RULES[0].source = "hearsay"


@pytest.mark.parametrize(
    ("places", "run"), [([2, 3, 4], slice(2, 5)), ([7], slice(7, 8)), ([0, 2, 4], None), ([1, 3], None)]
)
def test_rows_that_follow_one_another_are_a_slice(places, run):
    """Fails if rows in between, of other sites, are taken along, or a large table is copied without need."""
    found = _run(np.array(places))
    assert found == run if run else found.tolist() == places


def test_only_sites_that_are_marked_are_looked_at():
    """Fails if a site is looked at that has nothing, or one is missed: marked by a channel, by its row, or by its call."""
    layers = pd.DataFrame({"layer": ["a", "a", "b", "c"], "call": [0, 1, 0, 0], "x": [0, 0, 0, 9]})
    channels = pd.DataFrame(
        {"layer": ["a", "a", "a", "b", "c"], "call": [0, 0, 1, 0, 0], "y": [1.0, 5.0, 1.0, np.nan, 1.0]}
    )
    evidence = Evidence(layers, channels, pd.DataFrame())
    found = [(row["layer"], row["call"]) for row, _ in evidence.sites_with(channels["y"] > 2)]
    assert found == [("a", 0)]
    found = [(row["layer"], len(of)) for row, of in evidence.sites_with(channels["y"] > 2, layers["x"] > 2)]
    assert found == [("a", 2), ("c", 1)]
    assert [row["layer"] for row, _ in evidence.sites_with(unsound(channels, "y"))] == ["b"]
    assert list(evidence.sites_with(channels["y"] > 9)) == []
