"""Write the schemas of our JSON: what a reader of a report, a comparison, a study, a check or a certificate may rely on.

python -m scripts.json_schemas           # writes bnprobe/report/schemas/*.json
python -m scripts.json_schemas --check   # exits with 1 where a file is not what the code gives

Keys and columns come from what is written, their meanings and units from the columns' own declarations. A key that goes, or
means something else, breaks readers: raise SCHEMA_VERSION in bnprobe/report/formats/json.py then.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import fields
from inspect import getdoc
from pathlib import Path
from typing import Any

import numpy as np

import bnprobe
from bnprobe.cli.surgery import certificate
from bnprobe.measures import glossary
from bnprobe.recording import About
from bnprobe.report.formats.check import Checked, to_json
from bnprobe.report.formats.json import SCHEMA_VERSION
from bnprobe.report.study_table import StudyTable
from bnprobe.rules import COLUMNS

FOLDER = Path(bnprobe.__file__).parent / "report" / "schemas"

TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
NUMBER = {"type": ["number", "null"], "description": "null where it is not known, or not finite"}
CELL = {"type": ["number", "string", "boolean", "null"]}
TEXTS = {"type": "array", "items": TEXT}
SOMETHING = {"type": ["object", "null"]}
FORMS: dict[type, dict[str, Any]] = {str: TEXT, int: WHOLE, list: TEXTS}

HEAD = {
    "schema": TEXT,
    "schema_version": WHOLE,
    "tool": {"const": "bnprobe"},
    "version": {**TEXT, "description": "of the bnprobe that wrote it"},
}

Schema = dict[str, Any]

DONE = {
    "layer": "path of the norm in the model",
    "kind": "kind of the norm, such as batch_norm",
    "n_channels": "channels of the norm",
    "done": "what was done to it, in words; empty where it was left as it is",
    "why": "why it was left as it is; empty where it was not",
    "change": "largest change of one number of its output, where what came before it is as it was",
    "change_relative": "that over the largest number of its output",
}
"""Columns of what surgery did to each norm."""


def schemas() -> dict[str, Schema]:
    """Every schema, by what documents call themselves."""
    report, comparison, checked, certified = _examples()
    side = _object({field.name: {} for field in fields(About)}, "what was probed, on what, and when")
    findings = _findings(())
    whole = {
        "report": {
            "about": side,
            "integrity": SOMETHING,
            "never_called": TEXTS,
            "not_understood": TEXTS,
            "answer": TEXTS,
            "gradient_imbalance": NUMBER,
            "stem": SOMETHING,
            "layers": _rows(report["layers"][0]),
            "findings": findings,
        },
        "comparison": {
            "a": side,
            "b": side,
            "identical": FLAG,
            "answer": TEXTS,
            "opens": SOMETHING,
            "layers": _rows(comparison["layers"][0]),
            "unmatched": {"type": "array", "items": {"type": "object"}},
            "findings": findings,
        },
        "check": {
            "files": {
                "type": "array",
                "items": _object(
                    {
                        "file": TEXT,
                        "model": TEXT,
                        "weights": TEXT,
                        "notes": TEXTS,
                        "n_parameters": WHOLE,
                        "layers": _rows(checked["files"][0]["layers"][0]),
                        "findings": _findings(("fingerprint", "new")),
                    }
                ),
            }
        },
        "study": {
            **{field.name: {} for field in fields(StudyTable)},
            "model": TEXT,
            "metric": TEXT,
            "n_samples": WHOLE,
            "notes": TEXTS,
            "table": {
                "type": "object",
                "description": "columns by name, all of one length",
                "additionalProperties": {"type": "array", "items": CELL},
            },
        },
        "certificate": {
            "command": {"enum": ["fold", "replace", "prune"]},
            "model": TEXT,
            "layers": {
                "type": "array",
                "items": _object(
                    {
                        name: {**_form(value), "description": DONE[name]}
                        for name, value in certified["layers"][0].items()
                    }
                ),
            },
            "effect": _object(
                {name: _field(bnprobe.Effect, name, value) for name, value in certified["effect"].items()},
                "what the change does to the outputs, on the same samples before and after",
            ),
        },
    }
    made = {name: _whole(name, properties) for name, properties in whole.items()}
    made["certificate"]["properties"] |= {  # of files that were read or written
        "checkpoint": _object({"file": TEXT, "sha256": TEXT}),
        "state_dict": _object({"file": TEXT, "sha256": TEXT}),
    }
    return made


def _field(kind: type, name: str, value: object) -> Schema:
    """A field of a dataclass as it was written, with what its docstring says of it."""
    said = re.search(
        rf"^    {name}: (.+?)\.?\n(?=    \S|\n|\Z)", f"{getdoc(kind)}\n", re.MULTILINE | re.DOTALL
    )
    return {**_form(value), "description": " ".join(said[1].split())} if said else _form(value)


def _form(value: object) -> Schema:
    """What a value may be, by one that was written."""
    return next((form for kind, form in FORMS.items() if isinstance(value, kind)), NUMBER)


def _whole(name: str, properties: Schema) -> Schema:
    head = {**HEAD, "schema": {"const": f"bnprobe/{name}"}, "schema_version": {"const": SCHEMA_VERSION}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:bnprobe:{name}:{SCHEMA_VERSION}",
        "title": f"bnprobe/{name}",
        **_object({**head, **properties}),
    }


def _object(properties: Schema, description: str = "") -> Schema:
    """All of these keys are there; there may be more, as newer versions add some."""
    said = {"description": description} if description else {}
    return {"type": "object", **said, "required": list(properties), "properties": properties}


def _rows(names: Iterable[str]) -> Schema:
    """A table as a list of rows, with what its columns mean."""
    known = {column.name: column for column in glossary()}
    cells = {}
    for name in names:
        column = known.get(name)
        said = {"description": column.meaning, "unit": column.unit} if column else {}
        cells[name] = {**CELL, **{key: text for key, text in said.items() if text}}
    return {"type": "array", "items": _object(cells)}


def _findings(more: tuple[str, ...]) -> Schema:
    kinds: Schema = {
        "severity": {"enum": ["critical", "warning", "info"]},
        "channels": {"type": "array", "items": WHOLE},
        "call": WHOLE,
        "new": FLAG,
    }
    names = [*(name for name in COLUMNS if name != "remedy"), "help", *more]
    return {"type": "array", "items": _object({name: kinds.get(name, TEXT) for name in names})}


def _examples() -> tuple[Any, ...]:
    """A document of each kind, as it is written, of a network of one norm."""
    from torch import nn, randn

    model, rows = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval(), [randn(5, 3)]
    recording = bnprobe.record(model, rows)
    report, comparison = bnprobe.report(recording), bnprobe.compare(recording, recording)
    checked = to_json([Checked("file", report, tuple(np.zeros(len(report.findings), dtype=bool).tolist()))])
    certified = certificate(bnprobe.fold(model, rows), "fold", "model", {})
    return tuple(json.loads(text) for text in (report.to_json(), comparison.to_json(), checked, certified))


def contents() -> dict[Path, str]:
    """What every file holds."""
    return {
        FOLDER / f"{name}.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        for name, schema in schemas().items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    old = [path for path, text in contents().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in old if not check else ():
        FOLDER.mkdir(exist_ok=True)
        path.write_text(contents()[path], "utf-8")
    for path in old:
        print(f"{path.name}: {'is not what the code gives' if check else 'written'}")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
