"""Problems of real users, rebuilt: each is found in the right words, and nothing is said of the repaired script."""

from __future__ import annotations

import importlib.util

import pandas as pd
import pytest
import torch

from scripts.rule_benchmark.cases import CASES, Case, Look, Must
from scripts.rule_benchmark.summary import summary


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", [case for case in CASES if not case.slow], ids=lambda case: case.name)
def test_the_fault_is_found_and_the_repair_is_left_in_peace(case: Case):
    """Fails if a finding is silent, lacks the words that name the cause, or a correct script gets a warning.

    And if a case that is listed as missed is not missed any more.
    """
    if case.needs and importlib.util.find_spec(case.needs) is None:
        pytest.skip(f"needs {case.needs}")
    looks = list(case.looks())
    missed = {look.title: look.missing for look in looks if look.missing}
    assert bool(missed) == bool(case.known_miss), missed
    assert {look.title: look.others for look in looks if not look.at_fault and look.others} == {}


def findings(*rows: tuple[str, str, str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["rule", "layer", "severity", "says", "because", "do"])


FOUND = findings(("data-shifted", "bn1", "warning", "The dropout before it is off.", "p is 0.5.", "Move it."))


@pytest.mark.parametrize(
    ("must", "missing"),
    [
        (Must("data-shifted"), ""),
        (Must("data-.*", "bn", ("DROPOUT", r"0\.5", "move")), ""),
        (Must("data"), "no data"),
        (Must("data-shifted", "bn2"), "no data-shifted at bn2"),
        (Must("data-shifted", words=("dropout", "weights")), "data-shifted does not say weights"),
        (Must("data-shifted", severities=("critical",)), "no data-shifted"),
    ],
    ids=["there", "patterns", "rule in part", "other layer", "words", "severity"],
)
def test_what_must_be_found_is_named_where_it_is_missing(must: Must, missing: str):
    """Fails if a finding of another rule, layer or severity, or without the words, passes for the one that is asked for."""
    assert must.missing(FOUND) == missing
    assert must.missing(FOUND.iloc[:0]).startswith("no ")


def test_what_else_is_said_is_counted():
    """Fails if a warning on what is right is overlooked, or a finding that was asked for counts as one."""
    more = pd.concat(
        [
            FOUND,
            findings(("few-images", "", "info", "", "", ""), ("half-overflow", "", "critical", "", "", "")),
        ]
    )
    assert Look("a", more, at_fault=False).others == ["data-shifted", "half-overflow"]
    assert Look("a", more, (Must("data-shifted"),)).others == ["half-overflow"]


def test_the_summary_counts_every_kind():
    """Fails if something missed, or a false alarm, does not show in the sums and in the exit code."""
    cases = pd.DataFrame(
        {
            "kind": ["a", "a", "a", "b"],
            "case": list("wxyz"),
            "look": "data",
            "missing": ["", "no rule", "", ""],
            "others": ["", "", "", "few-images"],
            "outcome": ["found", "missed", "silent", "false alarm"],
        }
    )
    text, fine = summary({"cases": cases})
    assert "| cases: a | 2 | 1 | 1 | 1 | 0 |" in text
    assert "| cases: b | 0 | 0 | 0 | 1 | 1 |" in text
    assert "- missed: x, data: no rule" in text
    assert "- false alarm: z, data: few-images" in text
    assert not fine
    assert summary({"cases": cases[cases["outcome"].isin(["found", "silent"])]})[1]


def test_errors_that_are_not_what_they_say_count_as_faults_and_false_alarms():
    """Fails if a situation outside its bounds passes: of two changes one is found, of two nulls one is bold."""
    table = pd.DataFrame(
        {
            "situation": ["copies", "sorted folder", "nothing", "halves"],
            "counted": "called",
            "least": [0.7, 0.7, 0, 0],
            "most": [1, 1, 0.01, 0.0],
            "mean": [0.9, 0.5, 0.004, 0.03],
            "error": 0.01,
            "fine": [True, False, True, False],
        }
    )
    text, fine = summary({"dependence": table})
    assert "| dependence | 2 | 1 | 1 | 2 | 1 |" in text
    assert "- sorted folder: called 0.500 ± 0.010" in text
    assert "- copies" not in text
    assert not fine


def test_every_kind_of_case_has_a_fault_and_a_repair():
    """Fails if cases vanish, or one has no name of its own."""
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(CASES) >= 35
