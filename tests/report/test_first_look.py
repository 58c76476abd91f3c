"""Which measure the map shows first."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd
import pytest

from bnprobe.report.browser.first_look import SHOWN_BY, first_measure
from bnprobe.report.browser.measures import paints

NONE = pd.DataFrame({"severity": [], "rule": []}, dtype=object)


def channels(shift: list[float], ratio: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"shift": shift, "scale_ratio": ratio}, dtype=float).assign(
        role="mixed", gamma=np.linspace(0.2, 1.2, len(shift))
    )


def finding(severity: str, rule: str) -> pd.DataFrame:
    return pd.DataFrame({"severity": [severity], "rule": [rule]})


@pytest.mark.parametrize(
    ("shift", "ratio", "expected"),
    [
        ([0.3, -0.3], [0.95, 1.1], "shift"),
        ([0.1, 0.2], [0.2, 0.3], "scale_ratio"),
        ([np.nan], [np.nan], "shift"),
    ],
)
def test_what_is_further_off_is_shown(shift, ratio, expected):
    """Fails if the map shows means where Normalize was forgotten and variances fell to a twentieth."""
    assert first_measure(NONE, channels(shift, ratio), paints()) == expected


def test_the_top_finding_chooses():
    """Fails if the map of a network of dead channels begins with a shift, or a remark chooses like a warning."""
    moved = channels([0.5], [1.0])
    assert first_measure(finding("warning", "channels-dead"), moved, paints()) == "role"
    assert first_measure(finding("info", "channels-dead"), moved, paints()) == "shift"
    assert first_measure(finding("critical", "data-shifted"), moved, paints()) == "shift"


def test_unknown_roles_are_no_picture():
    """Fails if a file of weights with dead channels, of which no activation is known, begins with a map in one gray."""
    unknown = channels([np.nan], [np.nan]).assign(role="unknown")
    assert first_measure(finding("warning", "channels-dead"), unknown, paints()) == "shift"
    assert first_measure(finding("warning", "channels-dead"), unknown, ["role", "gamma"]) == "gamma"


def test_only_what_the_page_has_is_shown():
    """Fails if a page without data begins with a measure that it does not carry."""
    assert first_measure(NONE, channels([np.nan], [np.nan]), ["gamma", "beta"]) == "gamma"
    assert first_measure(NONE, channels([np.nan], [np.nan]), ["fires"]) == "fires"


def test_a_map_in_one_color_is_no_picture():
    """Fails if the map of a transformer, all of whose γ are near 1, begins in one red, or one that is not flat in sizes."""
    flat = channels([np.nan] * 20, [np.nan] * 20).assign(gamma=np.linspace(0.95, 1.05, 20))
    there = ["gamma", "pre_var", "running_var"]
    assert first_measure(NONE, flat, there) == "pre_var"
    assert first_measure(NONE, flat, ["gamma", "running_var"]) == "running_var"
    assert first_measure(NONE, channels([np.nan] * 20, [np.nan] * 20), there) == "gamma"


def test_every_rule_and_measure_exists():
    """Fails if a rule is renamed and the map no longer follows it."""
    assert set(SHOWN_BY) <= set(paints())
    assert {rule for rules in SHOWN_BY.values() for rule in rules} <= {
        path.name.removesuffix(".md") for path in (resources.files("bnprobe.rules") / "docs").iterdir()
    }
