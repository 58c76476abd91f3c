"""JSON of every document: strict, in one envelope, with what the tables hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.report.formats.json import SCHEMA_VERSION, plain, rows, to_json
from report.test_html import everything

ROWS = some_rows(40)


def strict(text: str) -> Any:
    """What a parser makes of it that knows no NaN and no key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
        return dict(pairs)

    return json.loads(text, parse_constant=lambda name: pytest.fail(name), object_pairs_hook=once)


class Place(NamedTuple):
    layer: str
    gap: float


@dataclass(frozen=True)
class Boxed:
    inside: Any


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (-float("inf"), None),
        (np.float32("inf"), None),
        (np.float64(0.1), 0.1),
        (np.int64(2**53 + 1), 2**53 + 1),
        (np.bool_(True), True),
        (True, True),
        (pd.NA, None),
        (pd.NaT, None),
        (np.array([[1.0, np.nan], [np.inf, 2.0]]), [[1.0, None], [None, 2.0]]),
        (np.array(7), 7),
        ((1, (2, "x"), []), [1, [2, "x"], []]),
        ({3: float("nan")}, {"3": None}),
        (Place("a", float("nan")), {"layer": "a", "gap": None}),
        (Boxed((np.int8(1),)), {"type": "Boxed", "inside": [1]}),
        (Path("a/b"), "a/b"),
        ("half \ud800", "half \ud800"),
        (None, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_document_holds_has_a_form(value, expected):
    """Fails if a number of numpy's becomes text, infinity is written, or a flag becomes 1."""
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


def test_what_has_no_form_is_refused():
    """Fails if the repr of an object gets into a file."""
    with pytest.raises(TypeError, match="object has no form in JSON"):
        plain({"a": [object()]})


def test_rows_keep_whole_numbers_whole():
    """Fails if a table's counts become floats because another of its columns holds floats."""
    table = pd.DataFrame({"n": [1, 2], "x": [0.5, np.nan], "channels": [(1, 2), ()]})
    assert rows(table) == [
        {"n": 1, "x": 0.5, "channels": [1, 2]},
        {"n": 2, "x": None, "channels": []},
    ]
    assert all(type(row["n"]) is int for row in rows(table))


def test_the_envelope_comes_first_and_keys_keep_their_order():
    """Fails if the schema is missing, or two runs write their keys in two orders."""
    text = to_json("thing", {"z": 1, "a": 2})
    assert list(strict(text)) == ["schema", "schema_version", "tool", "version", "z", "a"]
    whole = strict(text)
    assert (whole["schema"], whole["schema_version"]) == ("bnprobe/thing", SCHEMA_VERSION)
    assert whole["version"] == version("bnprobe")
    assert text.endswith("}\n")


def test_a_report_of_everything_is_strict_json():
    """Fails if one habit of a norm gets a NaN into the file, or a row is lost."""
    report = bnprobe.report(recording(*everything(), never_called=("spare",)))
    whole = strict(report.to_json())
    assert whole["schema"] == "bnprobe/report"
    assert [row["layer"] for row in whole["layers"]] == list(report.layers["layer"])
    assert [row["rule"] for row in whole["findings"]] == list(report.findings["rule"])
    assert all(row["help"].startswith("file:") for row in whole["findings"])
    assert whole["about"]["model"] == "Net"
    assert whole["never_called"] == ["spare"]
    assert " ".join(whole["answer"]) == report.answer
    assert "channels" not in whole
    assert report.to_json() == report.to_json()


def test_numbers_of_the_layers_are_those_of_the_table():
    """Fails if numbers are rounded, or stand under another column's name."""
    report = bnprobe.report(recording(site(ROWS, "a", gamma=1.5, beta=0, **memory_of(ROWS))))
    (row,) = strict(report.to_json())["layers"]
    assert set(row) == set(report.layers.columns)
    for name, value in row.items():
        expected = report.layers[name].iloc[0]
        if isinstance(expected, float | np.floating) and not np.isfinite(expected):
            assert value is None, name
        else:
            assert value == expected, name


def test_a_comparison_has_the_same_envelope():
    """Fails if comparisons have a JSON of their own making."""
    memory = memory_of(ROWS)
    sides = [recording(site(ROWS * scale, "a", **memory)) for scale in (1.0, 2.0)]
    found = bnprobe.compare(*sides)
    whole = strict(found.to_json())
    assert list(whole)[:4] == ["schema", "schema_version", "tool", "version"]
    assert whole["schema"] == "bnprobe/comparison"
    assert (whole["a"]["model"], whole["b"]["model"]) == ("Net", "Net")
    assert whole["answer"] == list(found.answer)
    assert whole["opens"]["gap"] == found.opens.gap
