"""The order of severities."""

from __future__ import annotations

from bnprobe.severity import SEVERITIES, at_least


def test_worse_comes_first():
    """Fails if the order is that of the alphabet, or turned round."""
    assert SEVERITIES == ("critical", "warning", "info")


def test_a_severity_and_every_worse_one():
    """Fails if --fail-on warning counts notes, or not criticals."""
    assert at_least("info") == SEVERITIES
    assert set(at_least("warning")) == {"critical", "warning"}
    assert at_least("critical") == ("critical",)
