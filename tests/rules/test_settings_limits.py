"""A misspelt name: how near the nearest one must be, by the share of letters in common, of both names together."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnprobe.errors import BadSettings
from bnprobe.rules.settings import settings


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("ignoZZZZZ", "Did you mean ignore?"),  # 4 of 6 and of 9 letters: 8 of 15
        ("ignZZZ", "Did you mean ignore?"),  # 6 of 12
        ("ignZZZZ", "Known names: ignore, thresholds."),  # 6 of 13
    ],
)
def test_half_of_the_letters_are_near_enough(name: str, advice: str, tmp_path: Path) -> None:
    """Fails if a name is guessed of which less than half is the same, or half is not enough."""
    path = tmp_path / "own.toml"
    path.write_text(f"{name} = 1")
    with pytest.raises(BadSettings) as error:
        settings(path)
    assert str(error.value).endswith(f'no setting is called "{name}". {advice}')


@pytest.mark.parametrize("ignore", ['["channels-dead", 3]', '[3, "channels-dead"]', "[3]"])
def test_every_entry_to_ignore_is_a_name(ignore: str, tmp_path: Path) -> None:
    """Fails if one name makes up for what is none."""
    path = tmp_path / "own.toml"
    path.write_text(f"ignore = {ignore}")
    with pytest.raises(BadSettings, match="ignore is a list of names"):
        settings(path)


@pytest.mark.parametrize(
    ("value", "known"), [("0", True), ("-0.001", False), ("inf", False), ("1e308", True)]
)
def test_a_threshold_is_a_number_of_at_least_zero(value: str, known: bool, tmp_path: Path) -> None:
    """Fails if 0 is none, or an infinite one is."""
    path = tmp_path / "own.toml"
    path.write_text(f"[thresholds]\nshift = {value}")
    if known:
        assert settings(path).limits.shift == float(value)
        return
    with pytest.raises(BadSettings, match=r"is not a number of at least 0\. Give one, like shift = 0\.5\."):
        settings(path)
