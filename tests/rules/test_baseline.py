"""A baseline: known findings do not count, new and worse ones do."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from bnprobe.errors import BadSettings
from bnprobe.rules.baseline import fingerprints, new_ones, read_baseline, write_baseline


def findings(*rows: tuple[str, str, str, tuple[int, ...]]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"severity": s, "rule": r, "layer": layer, "channels": c, "call": 0} for s, r, layer, c in rows],
        columns=["severity", "rule", "layer", "channels", "call"],
    )


KNOWN = findings(("warning", "channels-dead", "a", (1,)), ("info", "channels-constant", "a", (2,)))


def fresh(tmp_path, *tables: pd.DataFrame) -> list[list[bool]]:
    return new_ones(tables, read_baseline(write_baseline([KNOWN], tmp_path / "b.json")))


def test_what_was_there_is_known_whatever_its_channels(tmp_path):
    """Fails if a finding that moved to another channel counts as new."""
    moved = findings(("warning", "channels-dead", "a", (5, 6)), ("info", "channels-constant", "a", ()))
    assert fresh(tmp_path, moved) == [[False, False]]
    assert fingerprints(moved) == fingerprints(KNOWN)


def test_another_layer_rule_or_severity_is_new_and_a_milder_one_is_not(tmp_path):
    """Fails if a finding that became worse is taken for the old one."""
    assert fresh(tmp_path, findings(("warning", "channels-dead", "b", ()))) == [[True]]
    assert fresh(tmp_path, findings(("warning", "half-overflow", "a", ()))) == [[True]]
    assert fresh(tmp_path, findings(("critical", "channels-dead", "a", ()))) == [[True]]
    assert fresh(tmp_path, findings(("info", "channels-dead", "a", ()))) == [[False]]


def test_one_entry_accounts_for_one_finding(tmp_path):
    """Fails if a fault known in one file hides the same fault in the next."""
    assert fresh(tmp_path, KNOWN, KNOWN) == [[False, False], [True, True]]


def test_a_milder_finding_leaves_the_severe_entry_to_the_severe_one(tmp_path):
    """Fails if the most severe finding finds its entry taken."""
    path = write_baseline([findings(("critical", "r", "a", ()), ("info", "r", "a", ()))], tmp_path / "b.json")
    assert new_ones([findings(("critical", "r", "a", ()), ("info", "r", "a", ()))], read_baseline(path)) == [
        [False] * 2
    ]


def test_a_baseline_that_was_committed_still_holds(tmp_path):
    """Fails if another schema or fingerprint makes known findings of a user new: this file is written by hand, with the
    first digits of `printf '["channels-dead", "a", 0]' | sha256sum`."""
    path = tmp_path / "b.json"
    path.write_text(
        '{"format": "bnprobe baseline", "schema": 1, "findings": ['
        '{"fingerprint": "c660a3cb17f3477e", "severity": "warning", "rule": "channels-dead", "layer": "a"}, '
        '{"fingerprint": "8acd8ba989b27472", "severity": "info", "rule": "channels-constant", "layer": "a"}]}'
    )
    assert new_ones([KNOWN], read_baseline(path)) == [[False, False]]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "bnprobe baseline", "schema": 9, "findings": []}', "\0"]
)
def test_what_is_no_baseline_is_refused(content, tmp_path):
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(BadSettings, match="Write it again with --write-baseline FILE"):
        read_baseline(tmp_path / "b.json")
    with pytest.raises(BadSettings, match="Write it again"):
        read_baseline(tmp_path / "gone.json")


def test_a_baseline_is_a_line_per_value_so_that_changes_can_be_reviewed(tmp_path):
    """Fails if the file cannot be read in a difference of two commits, or is longer than it must be."""
    path = write_baseline([findings(("warning", "r", "a", ()))], tmp_path / "b.json")
    mark = fingerprints(findings(("warning", "r", "a", ())))[0]
    lines = [
        "{",
        ' "format": "bnprobe baseline",',
        ' "schema": 1,',
        ' "findings": [',
        "  {",
        f'   "fingerprint": "{mark}",',
        '   "severity": "warning",',
        '   "rule": "r",',
        '   "layer": "a"',
        "  }",
        " ]",
        "}",
    ]
    assert path.read_text() == "\n".join(lines) + "\n"


@pytest.mark.parametrize("severities", [("deadly", "info"), ("info", "deadly"), ("deadly",)])
def test_one_severity_that_there_is_not_makes_it_no_baseline(severities: tuple[str, ...], tmp_path):
    """Fails if a sound entry excuses another, whose severity could not be compared with that of a finding."""
    entries = [{"fingerprint": "c660a3cb17f3477e", "severity": severity} for severity in severities]
    (tmp_path / "b.json").write_text(
        json.dumps({"format": "bnprobe baseline", "schema": 1, "findings": entries})
    )
    with pytest.raises(BadSettings, match="Write it again with --write-baseline FILE"):
        read_baseline(tmp_path / "b.json")
