"""The table of everything that is measured: its lines, limits and parts, without measuring."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.performance import __main__ as performance
from scripts.performance.__main__ import Line


def line(part: str, value: float, limit: float | None) -> Line:
    return Line(part, f"{part} of a network", value, "passes", limit)


def test_a_line_says_whether_it_is_within_its_limit() -> None:
    """Fails if a number at its limit is over it, or one without a limit is counted."""
    text = performance.text([line("first", 2.0, 2.0), line("check", 2.001, 2.0), line("page", 9.0, None)])
    assert "1 of 2 are within their limits" in text
    assert [row.split("|")[-2].strip() for row in text.splitlines()[6:9]] == ["within", "over", ""]


def test_a_part_that_is_measured_again_replaces_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if lines of the other parts are lost, or old ones stay beside new ones."""
    monkeypatch.chdir(tmp_path)
    values = iter([3.0, 5.0, 4.0])

    def part(name: str) -> Iterator[Line]:
        yield line(name, next(values), 4.5)

    parts = {name: (lambda name=name: part(name)) for name in ("first", "check")}
    monkeypatch.setattr(performance, "PARTS", parts)
    for names in (["first", "check"], ["check"]):
        monkeypatch.setattr(sys, "argv", ["performance", "--only", *names])
        performance.main()
    assert [(one.part, one.value, one.limit) for one in performance.kept(performance.TABLE)] == [
        ("first", 3.0, 4.5),
        ("check", 4.0, 4.5),
    ]
    assert "2 of 2 are within" in performance.PAGE.read_text(encoding="utf-8")


def test_a_process_is_measured_by_itself() -> None:
    """Fails if the peak is that of another process, a hundred megabytes of which it touched, or failures pass."""
    hold = "x = bytearray(100_000_000); x[::4096] = bytes(len(x[::4096]))"
    small, large = (
        performance._process([sys.executable, "-c", code])[1]
        for code in ("pass", f"{hold}; raise SystemExit(1)")
    )
    assert 90 < large - small < 130
    with pytest.raises(SystemExit, match="ended with 3"):
        performance._process([sys.executable, "-c", "raise SystemExit(3)"])
