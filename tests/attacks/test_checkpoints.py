"""Checkpoints made to harm: refused in a line that says what to do, with nothing run, written or taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attacks import archives, headers, indices, pickles
from attacks.sandbox import Sandbox, Verdict

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore:.*(nested|Sparse|quantize)")
"""What torch says of its own features while an attack is made with them."""

REFUSALS = {**pickles.CODE, **pickles.COSTLY, **archives.ARCHIVES}


def by_name(makers):
    return {"argvalues": list(makers), "ids": [make.__name__ for make in makers]}


def assert_left_nothing(verdict: Verdict, folder: Path) -> None:
    """Nothing ran, nothing was written, no process or connection was started."""
    assert not (folder / "ran").exists()
    assert verdict.events == ()


def assert_one_line(verdict: Verdict, advice: str) -> None:
    assert verdict.code == 2, verdict.err[-2000:]
    assert re.search(advice, verdict.line), verdict.line
    assert "unexpected" not in verdict.line
    assert verdict.line.isprintable()
    assert len(verdict.line) < 2000
    assert verdict.out == ""


def assert_cheap(verdict: Verdict) -> None:
    assert verdict.seconds < 10
    assert verdict.megabytes < 300


@pytest.mark.parametrize("make", **by_name(REFUSALS))
def test_refused_unrun(sandbox: Sandbox, make, tmp_path):
    """Fails if code of a file runs, a declared size is believed, or a traceback is all that is said."""
    verdict = sandbox.run("check", make(tmp_path))
    assert_left_nothing(verdict, tmp_path)
    assert_one_line(verdict, REFUSALS[make])
    assert_cheap(verdict)


@pytest.mark.parametrize("make", **by_name(pickles.CODE))
def test_refused_where_it_is_to_be_loaded(sandbox: Sandbox, make, tmp_path):
    """Fails if `report --checkpoint` has a way of its own to open files."""
    verdict = sandbox.run(
        "report", "attacks.sandbox:tiny", "--checkpoint", make(tmp_path), "-o", tmp_path / "x.html"
    )
    assert_left_nothing(verdict, tmp_path)
    assert_one_line(verdict, pickles.CODE[make])


@pytest.mark.parametrize(
    "make", **by_name((*pickles.NO_NUMBERS, *pickles.ODD_NUMBERS, *archives.HARMLESS, headers.no_numbers))
)
def test_odd_tensors_are_judged_or_refused(sandbox: Sandbox, make, tmp_path):
    """Fails if a tensor of another kind, or numbers at the edge of the format, end in a traceback."""
    page = tmp_path / "out" / "page.html"
    verdict = sandbox.run("check", make(tmp_path), "--format", "html", "-o", page, writes=page.parent)
    assert_left_nothing(verdict, tmp_path)
    assert verdict.code in (0, 2), verdict.err[-2000:]
    assert page.exists() == (verdict.code == 0)
    if verdict.code == 2:
        assert_one_line(verdict, r"\. [A-Z]")
    assert_cheap(verdict)


@pytest.mark.parametrize("name", headers.HEADERS)
def test_lying_headers_are_refused(sandbox: Sandbox, name, tmp_path):
    """Fails if a header's word is taken for the size or the place of anything."""
    verdict = sandbox.run("check", headers.HEADERS[name](tmp_path))
    assert_left_nothing(verdict, tmp_path)
    assert_one_line(verdict, "Copy or download it again|torch.save|Check that|Save the state dict")
    assert_cheap(verdict)


@pytest.mark.parametrize("name", indices.INDICES)
def test_indices_that_lead_elsewhere_are_refused(sandbox: Sandbox, name, tmp_path):
    """Fails if an index can have a file outside of its folder opened, or be read without end."""
    verdict = sandbox.run("check", indices.INDICES[name](tmp_path))
    assert_left_nothing(verdict, tmp_path)
    assert_one_line(verdict, "Put the shards next to|Give the f|Fetch them|Copy or download")
    assert "root:" not in verdict.err
    assert_cheap(verdict)


@pytest.mark.parametrize("form", ["text", "html", "json", "sarif"])
@pytest.mark.parametrize("name", headers.NAMES)
def test_names_stay_names(sandbox: Sandbox, name, form, tmp_path):
    """Fails if a layer's name reaches a terminal or a browser as anything but text."""
    out = tmp_path / "out" / f"page.{form}"
    printed = sandbox.run("check", headers.named(tmp_path, headers.NAMES[name]))
    verdict = sandbox.run("check", tmp_path / "a.safetensors", "--format", form, "-o", out, writes=out.parent)
    for said in (printed, verdict):
        assert said.code == 0, said.err[-2000:]
        assert_left_nothing(said, tmp_path)
        assert all(line.isprintable() for line in said.out.split("\n"))
        assert_cheap(said)
    written = out.read_text("utf-8")
    if form == "html":
        assert "<script>alert" not in written
        assert "<img src=x" not in written
        assert name != "a template" or "{{ 7 * 7 }}" in written
    assert not set(written) & set("\x1b\x07\r")


@pytest.mark.parametrize("name", headers.NAMES)
def test_names_in_complaints(sandbox: Sandbox, name, tmp_path):
    """Fails if a refusal repeats a name of the file as it is."""
    path = headers.unfinished(tmp_path, headers.NAMES[name])
    verdict = sandbox.run("check", path)
    assert_one_line(verdict, "Save the state dict")


def test_a_thousand_norms(sandbox: Sandbox, tmp_path):
    """Fails if time grows faster than the number of layers: eight milliseconds each, on one core."""
    verdict = sandbox.run("check", headers.many(tmp_path), "--format", "json")
    assert verdict.code == 0, verdict.err[-2000:]
    assert verdict.seconds < 40
