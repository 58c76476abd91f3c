"""Four processes of torchrun record what one does; and what does not agree is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scripts import ranks_agree


def test_four_ranks_are_one_process(capfd):
    """Fails if four real processes give other counts, or moments that differ by more than 1e-12."""
    assert ranks_agree.main(["--ranks", "4"]) == 0
    assert "4 ranks: counts and extremes the same" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["n", "low", "mean", "m3"])
def test_what_does_not_agree_is_seen(name):
    """Fails if the script could not tell a wrong merge."""
    right = ranks_agree.recorded()
    first = right.layers[0]
    was = getattr(first.pre, name)
    moved = replace(first.pre, **{name: was + 1 if name == "n" else was + 1e-10 * abs(was)})
    wrong = replace(right, layers=(replace(first, pre=moved), *right.layers[1:]))
    assert ranks_agree.disagreement(right, right) == (True, 0.0)
    same, largest = ranks_agree.disagreement(wrong, right)
    assert not same or largest > ranks_agree.ALLOWED
