"""Blocks without a residual connection, and norms of norms: each fires on its fault, and not on what is built on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from bnprobe.measures import tables
from bnprobe.rules import judge, stream
from rules.edited import edited_rows, findings
from rules.of_streams import recorded


def fired(*built: Any) -> list[tuple[str, str, str]]:
    found = judge(tables(recorded(*built)), rules=stream.RULES)
    return list(zip(found["rule"], found["layer"], found["severity"], strict=True))


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        ((2, True, False), []),
        ((2, False, False), [("no-residual", "blocks.0.first", "warning")]),
        ((1, False, False), []),
        ((2, True, True), [("norm-repeated", "again", "info")]),
    ],
)
def test_what_stacks_are_said_to_lack(built, expected):
    """Fails if a rule is silent on its fault, speaks of a single block, or of a stack that is built as usual."""
    assert fired(*built) == expected


ATTENTION = {"norm_role": "attention"}


@pytest.mark.parametrize(
    ("others", "speaks"),
    [
        ([{}], True),
        (
            [
                {"norm_role": "query"},
                {"norm_role": "key"},
                {"norm_role": "embedding"},
                {"norm_role": "final"},
            ],
            True,
        ),
        # post-norm: the sum is what the norm is given
        ([{"norm_role": "attention output"}], False),
        ([{"norm_role": "MLP"}], False),
        # a sum that is known, whatever the roles
        ([{"branch": 0.5}], False),
        ([{"skip": "stem.fc2"}], False),
        ([{"layer_scale": "blocks.0.gamma"}], False),
    ],
)
def test_what_speaks_for_a_residual_connection(others, speaks):
    """Fails if one norm that is read from a sum is not enough, or one that needs none is."""
    rows = edited_rows(ATTENTION, ATTENTION, *others)
    assert bool(findings("no-residual", rows)) == speaks
