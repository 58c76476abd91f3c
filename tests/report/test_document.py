"""What reports and comparisons have in common: pages that are data, words for columns, tables as files, short reprs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.errors import BnprobeError, CannotWrite, NotDefined
from bnprobe.files import arrow
from bnprobe.measures import glossary
from bnprobe.report import figures
from bnprobe.report.document import Document
from bnprobe.report.formats.json import plain
from bnprobe.report.page import blocks

ROWS = some_rows(40)


def a_report(scale: float = 1.0) -> bnprobe.Report:
    memory = memory_of(ROWS)
    layers = [site(ROWS * scale, name, gamma=[0.5, -1.5, 1.0], beta=0.1, **memory) for name in ("a", "b")]
    return bnprobe.report(recording(*layers, site(ROWS, "ln", "layer_norm")))


def a_comparison(scale: float = 2.0) -> bnprobe.Comparison:
    return bnprobe.compare(a_report(), a_report(scale))


BOTH = pytest.mark.parametrize("make", [a_report, a_comparison])


@BOTH
def test_a_page_is_data(make: Callable[..., Document]):
    """Fails if a closure, or anything that is itself alone, gets into a page."""
    page = make()._page
    assert page == make()._page
    assert page != make(3.0)._page
    again = pickle.loads(pickle.dumps(page))
    assert again == page
    text = json.dumps(plain(page), allow_nan=False)
    assert json.dumps(plain(again), allow_nan=False) == text


@BOTH
def test_every_picture_is_drawn_from_what_was_written_and_read(make: Callable[..., Document]):
    """Fails if a spec loses on its way through a file what its drawing needs."""
    page = make()._page
    for figure, again in zip(page.figures(), pickle.loads(pickle.dumps(page)).figures(), strict=True):
        svgs = {figures.to_svg(one.name, lambda one=one: figures.draw(one.spec)) for one in (figure, again)}
        assert len(svgs) == 1


@BOTH
def test_a_column_is_explained_in_words(make: Callable[..., Document]):
    """Fails if a column of the tables has no words, or formula, unit and source are dropped."""
    document = make()
    for name in (*document.layers, *document.channels):
        assert document.explain(name).startswith(f"{name}: ")
    glossary = document._page.sections[-1].blocks[0]
    assert isinstance(glossary, blocks.Glossary)
    entries = glossary.entries
    for entry in entries:
        words = document.explain(entry.name)
        assert entry.meaning in words
        for what, text in (("Formula", entry.formula), ("Unit", entry.unit), ("Source", entry.source)):
            assert (f"  {what}: {text}" in words.split("\n")) == bool(text)


def test_a_misspelt_column_is_answered_with_its_neighbours():
    """Fails if a typo gives a KeyError, or no way on."""
    with pytest.raises(NotDefined, match=r"no column 'kl_medain'. Did you mean kl_median"):
        a_report().explain("kl_medain")
    with pytest.raises(NotDefined, match="The page's glossary lists every column"):
        a_report().explain("xyzzy")
    assert "On side A" in a_comparison().explain("gamma_a")


@BOTH
def test_tables_are_saved_as_csv(make: Callable[..., Document], tmp_path):
    """Fails if a table is missing, or its numbers do not come back."""
    document = make()
    paths = document.save_tables(tmp_path / "new" / "folder")
    names = ["layers", "channels", *(["unmatched", "tensors"] if make is a_comparison else []), "findings"]
    assert paths == [tmp_path / "new" / "folder" / f"{name}.csv" for name in names]
    again = pd.read_csv(paths[1])
    assert list(again) == list(document.channels)
    name = "shift" if make is a_report else "pre_shift"
    np.testing.assert_array_equal(again[name], document.channels[name])


def test_tables_are_saved_as_parquet(tmp_path):
    """Fails if a column of findings, which holds channels, cannot be written."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    report = a_report(3.0)
    paths = report.save_tables(tmp_path, "parquet")
    assert [path.name for path in paths] == ["layers.parquet", "channels.parquet", "findings.parquet"]
    read = pd.read_parquet(paths[1])
    pd.testing.assert_frame_equal(read, report.channels, check_dtype=False, check_column_type=False)
    assert list(pd.read_parquet(paths[2])["rule"]) == list(report.findings["rule"])
    schema = parquet.read_schema(paths[1])
    assert schema.metadata[b"schema"] == b"bnprobe/tables/channels"
    (running_var,) = (column for column in glossary() if column.name == "running_var")
    assert schema.field("running_var").metadata[b"unit"] == running_var.unit.encode()
    assert schema.field("running_var").metadata[b"description"] == running_var.meaning.encode()


def test_without_pyarrow_parquet_says_what_to_install(tmp_path, monkeypatch):
    """Fails if pandas' own words come through, or half of the files are written."""

    def missing(name: str) -> None:
        raise ImportError(name)

    report = a_report()
    monkeypatch.setattr(arrow, "import_module", missing)
    with pytest.raises(BnprobeError, match="Run pip install pyarrow, or use format='csv'"):
        report.save_tables(tmp_path, "parquet")
    assert list(tmp_path.iterdir()) == []


def test_tables_have_two_formats_and_need_a_folder(tmp_path):
    """Fails if a format is guessed, or an OSError reaches the user as it is."""
    with pytest.raises(BnprobeError, match=r"no format 'xlsx' for tables\. Known formats: csv, parquet"):
        a_report().save_tables(tmp_path, "xlsx")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotWrite):
        a_report().save_tables(tmp_path / "file")


@BOTH
def test_reprs_are_short(make: Callable[..., Document]):
    """Fails if looking at an object in a session prints its arrays."""
    document = make()
    page = document._page
    parts = [part for section in page.sections for part in (section, *section.parts)]
    specs = [figure.spec for figure in page.figures()]
    for one in (document, document.figures, page, *parts, *page.figures(), *specs):
        assert len(repr(one)) < 400, repr(one)
        assert "array" not in repr(one)
        assert repr(one).startswith(("<", f"{type(one).__name__}("))
    assert "finding" in repr(document) or "critical" in repr(document)


def test_the_answer_is_text():
    """Fails if the answer of a report is another than its page's, or the page says twice what its lead has said."""
    report = a_report()
    section = next(section for section in report._page.sections if section.id == "answer")
    headline, rest = section.blocks[0], section.blocks[-1]
    said = "Net has 3 norms (2 batch norms, 1 layer norm). Measured on 40 samples in eval mode. "
    said += "A typical |γ| is 1; γ is negative in 2 channels (33%)."
    page = " ".join([headline.text, *rest.paragraphs])
    assert report.answer.replace(said, "γ is negative in 2 channels (33%).", 1) == page
    assert report.answer.endswith(".")
