"""The schemas of our JSON: what is written keeps to them, by a validator that is not ours, and the code gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from measures.sites import recording, running_stats_of, site, some_rows
from rules.firing import troubled

import bnprobe
from bnprobe.cli.surgery import certificate
from bnprobe.report.formats.check import Checked, to_json
from bnprobe.report.study import Study
from scripts.json_schemas import FOLDER, contents, schemas

NAMES = ("certificate", "check", "comparison", "report", "study")


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """A document of each kind: of a recording in which every rule finds something, and of a study of two rows."""
    import pandas as pd

    whole = troubled()
    report = bnprobe.report(whole)
    rows = some_rows()
    other = recording(site(2 * rows, "healthy", gamma=1.5, beta=0, **running_stats_of(rows)))
    table = pd.DataFrame(
        {
            "level": ["network", "layer"], "layer": ["", "a"], "vector": "mean", "replacement": "0", "before": 0.5,
            "after": [0.25, float("nan")], "difference": -0.25, "low": -0.5, "high": 0.0, "agreement": 1.0, "kl": 0.0,
            "n": 40, "difference_rest": float("nan"), "estimated": [False, True], "estimate": [float("nan"), 0.1],
        }
    )  # fmt: skip
    study = Study(table, "Net", "accuracy", 40, 1.5, 0, ("note",), False)
    return {
        "certificate": json.loads(written_certificate()),
        "report": json.loads(report.to_json()),
        "comparison": json.loads(bnprobe.compare(whole, other).to_json()),
        "check": json.loads(to_json([Checked("a.pt", report, (True,) * len(report.findings), True)])),
        "study": study,
    }


def written_certificate() -> str:
    """Of a group norm, whose own change is not known, with a file."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    found = bnprobe.replace_norms(model, [torch.randn(6, 3, 5, 5)], by="group")
    return certificate(found, "replace", "Net", {"state_dict": {"file": Path("a.pt"), "sha256": "0" * 64}})


def documents(written: dict[str, Any], tmp_path) -> dict[str, Any]:
    study = written["study"].save(tmp_path / "study.json")
    return {**written, "study": json.loads(study.read_text())}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_keeps_to_its_schema(name, written, tmp_path):
    """Fails if a key or a column goes, or holds another type, without its schema being changed."""
    jsonschema = pytest.importorskip("jsonschema", reason="of the test extra")
    schema = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    document = documents(written, tmp_path)[name]
    jsonschema.validate(document, schema)
    for key in schema["required"]:
        broken = {one: value for one, value in document.items() if one != key}
        with pytest.raises(jsonschema.ValidationError, match=f"'{key}' is a required property"):
            jsonschema.validate(broken, schema)
    other = {**document, "schema": "bnprobe/other"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(other, schema)


def test_a_row_without_a_column_is_refused(written):
    """Fails if a schema says of tables that they are lists, and nothing of their columns."""
    jsonschema = pytest.importorskip("jsonschema", reason="of the test extra")
    schema = json.loads((FOLDER / "report.json").read_text("utf-8"))
    for table, column in (("layers", "shift_rms"), ("findings", "says")):
        rows = [
            {name: value for name, value in row.items() if name != column} for row in written["report"][table]
        ]
        with pytest.raises(jsonschema.ValidationError, match=f"'{column}' is a required property"):
            jsonschema.validate({**written["report"], table: rows}, schema)


def test_the_files_are_what_the_code_gives():
    """Fails if a column or key came, went or means another thing, and nobody ran `python -m scripts.json_schemas`."""
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in NAMES}
    for path, text in contents().items():
        assert path.read_text("utf-8") == text, path.name


def test_columns_say_what_they_mean_and_in_which_unit():
    """Fails if a reader of the schema must look elsewhere for what a number is."""
    rows = schemas()["report"]["properties"]["layers"]["items"]["properties"]
    assert rows["shift_rms"]["unit"] == "running σ"
    unsaid = [name for name, cell in rows.items() if "description" not in cell]
    assert unsaid == []
