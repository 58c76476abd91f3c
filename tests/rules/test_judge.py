"""The rule book as a whole: form, order, columns, and rules that survive any table."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from measures.sites import recording, running_stats_of, site, some_rows

from bnprobe.checkpoints.records import without_calls
from bnprobe.measures import Tables, tables
from bnprobe.rules import RULES, judge
from bnprobe.rules.rule import Evidence, Finding, Rule, _run, unsound
from bnprobe.severity import SEVERITIES
from rules.firing import all_found, cases, troubled

CONTRACT = ("severity", "rule", "layer", "channels", "says", "because", "do", "source")


@pytest.fixture(scope="module")
def evidence() -> Tables:
    return tables(troubled())


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    return all_found()


def test_every_rule_can_find_something(found):
    """Fails if a rule lands without a case that fires it: it belongs in rules/firing.py."""
    assert set(found["rule"]) == {rule.id for rule in RULES}


def test_rules_of_calls_have_nothing_to_say_of_weights():
    """Fails if a rule is marked that finds something in a file of weights: `check` would not ask it."""
    marked = [rule for rule in RULES if rule.of_calls]
    assert len(marked) >= 20
    for case in cases():
        weights = replace(case, layers=tuple(map(without_calls, case.layers)), samples=None)
        evidence = Evidence.of(tables(weights))
        assert evidence.weights_only
        assert {rule.id for rule in marked if list(rule.find(evidence))} == set()


@pytest.mark.parametrize(("of_calls", "asked"), [(False, [True, False]), (True, [False])])
def test_rules_of_calls_are_asked_of_calls_alone(of_calls, asked):
    """Fails if they take time in a file of weights, or are not asked of a recording."""
    found = []
    rule = Rule(
        "one", "", "", "", lambda evidence: found.append(evidence.weights_only) or (), of_calls=of_calls
    )
    called = recording(site(some_rows()))
    for case in (replace(called, layers=tuple(map(without_calls, called.layers))), called):
        judge(tables(case), rules=(rule,))
    assert found == asked


def test_columns_of_the_contract(found):
    """Fails if a column is renamed, or a cell is not what its name says."""
    assert set(CONTRACT) <= set(found.columns)
    for _, row in found.iterrows():
        assert row["severity"] in SEVERITIES
        for name in ("rule", "layer", "says", "because", "do", "source"):
            assert isinstance(row[name], str), name
        assert isinstance(row["channels"], tuple)
        assert all(type(channel) is int for channel in row["channels"])


def test_the_most_severe_come_first_and_the_rest_as_in_the_book(evidence):
    """Fails if severities are sorted by letter, or layers of one severity lose their order."""
    found = judge(evidence)
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


@pytest.mark.parametrize(("because", "n"), [(("same", "same"), 1), (("call 1", "call 2"), 2)])
def test_what_a_norm_stores_is_said_once(because: tuple[str, str], n: int) -> None:
    """Fails if a norm that is called twice is told twice that its γ was never trained, or if calls that differ are one."""
    each = [Finding("warning", "n", "Says.", told, "Do.", (), call) for call, told in enumerate(because)]
    found = judge(empty_tables(), rules=(Rule("a-rule", "Is it?", "A book", "0", lambda _: iter(each)),))
    assert list(found["call"]) == list(range(n))
    assert list(found.index) == list(range(n))
