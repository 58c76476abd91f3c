"""Norms that take turns: a norm for each domain, of which a run calls one."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bnprobe.rules import Finding, alternatives
from rules.edited import evidence, findings, healthy

NEW = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}


def of_rule(rule: str, called: dict[str, dict[str, float]], uncalled: dict[str, bool]) -> list[Finding]:
    """What a rule says of norms that were called, with changes, and of others, of which some were trained."""
    base = evidence(*(healthy(name, **changes) for name, changes in called.items()))
    table = pd.DataFrame({"layer": list(uncalled), "why": "never called", "trained": list(uncalled.values())})
    return findings(rule, replace(base, unread=table))


@pytest.mark.parametrize(
    ("called", "uncalled", "severities"),
    [
        (("a.norms.0", "b.norms.0"), ("a.norms.1", "b.norms.1"), ["info"]),
        (("a.norms.day", "b.norms.day"), ("a.norms.night", "b.norms.night"), ["info"]),
        (("a.3.0", "b.3.0"), ("a.3.1", "b.3.1"), ["info"]),
        # one list may as well have a norm that was forgotten
        (("a.norms.0",), ("a.norms.1",), ["warning"]),
        # other norms in each
        (("a.norms.0", "b.norms.1"), ("a.norms.1", "b.norms.0"), ["warning", "warning"]),
        # layers of a block
        (("a.bn1", "b.bn1"), ("a.bn2", "b.bn2"), ["warning", "warning"]),
        (("a.first", "b.first"), ("a.second", "b.second"), ["warning", "warning"]),
        (("a.1", "b.1"), ("a.4", "b.4"), ["warning", "warning"]),
    ],
)
def test_norms_of_other_domains_are_a_note(
    called: tuple[str, ...], uncalled: tuple[str, ...], severities: list[str]
) -> None:
    """Fails if a norm per domain is a warning, or one that a block forgets is a note."""
    found = of_rule("layer-unread", {name: {} for name in called}, dict.fromkeys(uncalled, True))
    assert [one.severity for one in found] == severities
    assert ("this run called others" in found[0].says) is (severities == ["info"])


def test_a_domain_that_was_never_trained() -> None:
    """Fails if its norms pass for an untrained network, or are reported at each place."""
    called, uncalled = {"a.norms.1": NEW, "b.norms.1": NEW}, {"a.norms.0": True, "b.norms.0": True}
    (found,) = of_rule("statistics-never-updated", called, uncalled)
    assert (found.severity, found.layer) == ("critical", "a.norms.1")
    assert "while others of the same lists were" in found.says
    assert "a.norms.0 was trained; so it is at 1 further norm: b.norms.1" in found.because
    assert of_rule("affine-untrained", called, uncalled) == []


def test_both_domains_in_one_run() -> None:
    """Fails if what was called and trained is no evidence, or each place is also said to have an idle γ."""
    called = {"a.norms.0": {}, "a.norms.1": NEW}
    (found,) = of_rule("statistics-never-updated", called, {})
    assert "a.norms.0 was trained" in found.because
    assert of_rule("affine-untrained", called, {}) == []


def test_a_new_network_with_a_norm_per_domain_is_untrained() -> None:
    """Fails if a domain is said to have been left out where nothing was trained."""
    called, uncalled = {"a.norms.1": NEW, "b.norms.1": NEW}, {"a.norms.0": False, "b.norms.0": False}
    found = of_rule("statistics-never-updated", called, uncalled)
    assert {one.severity for one in found} == {"info"}


@pytest.mark.parametrize(
    ("keys", "is_list"),
    [({"0"}, False), ({"0", "1", "2"}, True), ({"0", "2"}, False), ({"1", "4"}, False)],
)
def test_numbers_without_a_gap_are_a_list(keys: set[str], is_list: bool) -> None:
    """Fails if the norms of a row of layers, between which others lie, are taken for a choice."""
    assert alternatives._is_list("features", keys) is is_list


GAINS = {"running_mean": None, "running_var": None, "beta": None}
AS_MADE = {**GAINS, "gamma": 1.0}
IDLE = {"gamma": 1.0, "beta": 0.0}


@pytest.mark.parametrize(
    ("norms", "alone", "together"),
    [
        ({"a.norms.0": GAINS, "a.norms.1": AS_MADE, "b.norms.0": GAINS, "b.norms.1": AS_MADE}, 0, 2),
        ({"a.norms.0": GAINS, "a.norms.1": {**AS_MADE, "beta": 0.0}, "b.norms.0": GAINS, "b.norms.1": AS_MADE}, 0, 2),
        # one list may hold a norm for each block
        ({"a.norms.0": GAINS, "a.norms.1": AS_MADE}, 1, 0),
        # others in each
        ({"a.norms.0": GAINS, "a.norms.1": AS_MADE, "b.norms.0": AS_MADE, "b.norms.1": GAINS}, 2, 0),
        # none has learned
        ({"a.norms.0": AS_MADE, "a.norms.1": AS_MADE, "b.norms.0": AS_MADE, "b.norms.1": AS_MADE, "c": GAINS}, 4, 0),
        # the layers of a block
        ({"a.bn1": GAINS, "a.bn2": AS_MADE, "b.bn1": GAINS, "b.bn2": AS_MADE}, 2, 0),
        # of norms that store statistics, these say whether they were trained
        ({"a.norms.0": {}, "a.norms.1": IDLE, "b.norms.0": {}, "b.norms.1": IDLE}, 2, 0),
    ],
)  # fmt: skip
def test_gains_of_a_domain_that_was_never_trained(
    norms: dict[str, dict[str, float | None]], alone: int, together: int
) -> None:
    """Fails if norms without statistics are reported at each place, or what is no choice is taken for one."""
    found = findings(
        "affine-untrained", evidence(*(healthy(name, **changes) for name, changes in norms.items()))
    )
    joined = [one for one in found if "others of the same lists did" in one.says]
    assert len(found) - len(joined) == alone
    assert [one.severity for one in joined] == ["warning"] * bool(together)
    if together:
        assert "in all channels of 2 norms: a.norms.1, b.norms.1" in joined[0].because
