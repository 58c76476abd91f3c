"""A study on disk: it comes back as it was, and whatever else a file holds is one line that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bnprobe import BadRecordingFile, BnprobeError, CannotWrite, Study, ablate, record
from bnprobe.report import report
from bnprobe.report.chapters import worth
from bnprobe.report.page.blocks import Figure, Headline
from bnprobe.report.study_file import AGAIN


def study() -> Study:
    """Two norms; one row was estimated only, one layer has a name as paths can be."""
    nan = float("nan")
    rows = [
        ("network", "", "bias", "0", 0.75, 0.5, -0.25, -0.375, -0.125, 0.5, 0.1, 16, 0.01, False, 0.3),
        (
            "layer",
            "a.é\u202e",
            "bias",
            "0",
            0.75,
            1 / 3,
            -5 / 12,
            -0.5,
            -0.25,
            0.5,
            1e-9,
            16,
            nan,
            False,
            nan,
        ),
        ("layer", "b", "var", "permuted", 0.75, nan, nan, nan, nan, nan, nan, 0, nan, True, -1e-300),
    ]
    columns = "level layer vector replacement before after difference low high agreement kl n difference_rest"
    return Study(
        table=pd.DataFrame(rows, columns=[*columns.split(), "estimated", "estimate"]),
        model="Net",
        metric="accuracy",
        n_samples=16,
        seconds=1.5,
        seed=3,
        notes=("Interrupted on sample 16 of 32.",),
        interrupted=True,
    )


def test_the_page_of_a_study_opens_with_its_answer_and_picture() -> None:
    """Fails if a table or prose comes before the answer and the picture, or a share has an axis that goes far beyond 1."""
    found = study()
    first, *others = worth.page(found).sections
    headline, figure = first.blocks
    assert isinstance(headline, Headline)
    assert isinstance(figure, Figure)
    assert headline.title.startswith("Worth most is the bias β of a.é")
    assert headline.detail.startswith("Set to 0, accuracy falls from 75% by 41.7 points")
    assert found.answer == f"{headline.title}: s{headline.detail[1:]}"
    assert [section.id for section in others] == ["together", "worth-rows", "how"]
    assert {panel.limits for panel in figure.spec.panels} == {(None, 1.01)}
    loss = worth.page(replace(found, metric="loss in nats")).sections[0].blocks[1]
    assert {panel.limits for panel in loss.spec.panels} == {(None, None)}


def test_a_study_comes_back_as_it_was(tmp_path: Path) -> None:
    """Fails if a number is rounded, an unknown one becomes 0, or a column changes its type."""
    path = study().save(tmp_path / "new" / "worth.json")
    again = Study.load(path)
    pd.testing.assert_frame_equal(again.table, study().table, check_exact=True)
    for name in ("model", "metric", "n_samples", "seconds", "seed", "notes", "interrupted"):
        assert getattr(again, name) == getattr(study(), name), name
    assert again.answer == study().answer
    assert path.read_bytes().isascii()


def test_a_network_in_which_no_vector_matters_is_told_in_a_sentence() -> None:
    """Fails if a vector is named as the one that matters most where none changes the metric."""
    found = study()
    measured = found.table["level"] == "layer"
    found.table.loc[measured, ["after", "difference", "low", "high", "estimated"]] = [
        0.75,
        0.0,
        0.0,
        0.0,
        False,
    ]
    assert found.answer == (
        "No vector of one layer is worth anything: accuracy on 16 samples without each is no worse than 75%."
    )


def test_a_measured_study_comes_back_whole(tmp_path: Path) -> None:
    """Fails if a column that is measured is not kept."""
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    measured = ablate(model, [torch.randn(20, 6)], vectors="bias")
    again = Study.load(measured.save(tmp_path / "worth.json"))
    pd.testing.assert_frame_equal(again.table, measured.table, check_exact=True)


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite):
        study().save(tmp_path)


def put(content: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    *first, last = path
    inside: Any = content
    for name in first:
        inside = inside[name]
    inside[last] = value
    return content


def drop(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


WRONG: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: [c], "no study"),
    (lambda c: put(c, "schema", value="bnprobe/report"), "no study"),
    (lambda c: put(c, "schema_version", value=99), "Update"),
    (lambda c: drop(c, "metric"), "metric is missing"),
    (lambda c: put(c, "n_samples", value=-1), "n_samples"),
    (lambda c: put(c, "notes", value=[1]), "notes"),
    (lambda c: put(c, "seconds", value=None), "seconds"),
    (lambda c: drop(c, "table"), "columns are missing"),
    (lambda c: put(c, "table", "kl", value="no list"), "columns are missing"),
    (lambda c: put(c, "table", "kl", value=[1.0]), "one length"),
    (lambda c: put(c, "table", value={name: [] for name in c["table"]}), "one length"),
    (lambda c: put(c, "table", "vector", value=["bias", "bias", "gamma"]), "vector of row 2 is 'gamma'"),
    (lambda c: put(c, "table", "after", value=[0.5, "0.5", None]), "after of row 1 is '0.5'"),
    (lambda c: put(c, "table", "estimated", value=[0, 0, 1]), "estimated of row 0"),
    (lambda c: put(c, "table", "n", value=[16, 16, None]), "n of row 2 is None"),
]


@pytest.mark.parametrize(("change", "says"), WRONG, ids=[says for _, says in WRONG])
def test_what_is_no_study_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    path = study().save(tmp_path / "worth.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(BadRecordingFile, match=says) as caught:
        Study.load(path)
    said = str(caught.value)
    assert said.startswith("worth.json: ")
    assert said.endswith((AGAIN, "Study.save.", "bnprobe."))
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{" * 100_000, b'{"a": 1'])
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "worth.json"
    path.write_bytes(content)
    with pytest.raises(BadRecordingFile, match=r"Pass a file of Study\.save") as caught:
        Study.load(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecordingFile, match=r"worth\.json: No such file"):
        Study.load(tmp_path / "worth.json")


def test_numbers_that_are_not_finite_are_not_known(tmp_path: Path) -> None:
    odd = study()
    odd.table.loc[0, "estimate"] = np.inf
    assert np.isnan(Study.load(odd.save(tmp_path / "worth.json")).table["estimate"][0])


def test_the_study_of_another_model_is_refused() -> None:
    recording = record(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), [torch.randn(5, 6)])
    with pytest.raises(BnprobeError, match=r"the study is of Net.*Pass the study of this model"):
        report(recording, study=study())


def test_an_interval_ends_where_the_metric_does() -> None:
    """Fails if an accuracy of 100% is said to rise, or one of 2% to fall by 3 points; what was measured stays."""
    row = study().table.iloc[0]
    given = [(1.0, -0.02, 0.002), (0.02, -0.03, 0.1), (0.75, -0.375, -0.125)]
    shown = [(-0.02, 0.0), (-0.02, 0.1), (-0.375, -0.125)]
    for (before, low, high), expected in zip(given, shown, strict=True):
        assert worth._ends(study(), changed(row, before, low, high)) == expected
    loss = replace(study(), metric="loss")
    assert worth._ends(loss, changed(row, 0.02, -0.03, 1.5)) == (-0.03, 1.5)
    cells = [cell.text for cell in worth._row(study(), changed(row, 1.0, -0.02, 0.002))]
    assert "−2 to 0" in cells


def changed(row: pd.Series, before: float, low: float, high: float) -> pd.Series:
    new = row.copy()
    new["before"], new["low"], new["high"] = before, low, high
    return new
