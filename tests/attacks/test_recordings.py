"""Recordings made to harm: refused in one line, or shown as the text and the numbers that they are."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

import bnprobe
from attacks import recordings
from attacks.headers import NAMES
from attacks.sandbox import Sandbox
from attacks.test_checkpoints import assert_cheap, assert_left_nothing, assert_one_line
from bnprobe.errors import BadRecordingFile, BnprobeError


@pytest.mark.parametrize("name", recordings.RECORDINGS)
def test_refused_in_a_line(sandbox: Sandbox, name, tmp_path):
    """Fails if a manifest is believed although no run can have written it, or its reader can be worn out."""
    verdict = sandbox.run("report", recordings.RECORDINGS[name](tmp_path), "-o", tmp_path / "x.html")
    assert_left_nothing(verdict, tmp_path)
    assert_one_line(verdict, r"Record it again, or download the file again\.$")
    assert_cheap(verdict)
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    "place", [("about", "model"), ("about", "notes", 0), ("layers", 0, "layer"), ("layers", 0, "kind")]
)
@pytest.mark.parametrize("name", sorted(NAMES))
def test_texts_stay_texts(sandbox: Sandbox, name, place, tmp_path):
    """Fails if a text of a recording reaches a terminal or a browser as anything but text."""
    page = tmp_path / "out" / "x.html"
    path = recordings.named(tmp_path, place, NAMES[name])
    verdict = sandbox.run("report", path, "-o", page, "--text", writes=page.parent)
    assert verdict.code == 0, verdict.err[-2000:]
    assert_left_nothing(verdict, tmp_path)
    assert all(line.isprintable() for line in verdict.out.split("\n"))
    written = page.read_text("utf-8")
    assert not set(written) & set("\x1b\x07")
    assert not re.search(r"<script>alert|<img src=x|</style></script><img", written)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_stands_in_a_manifest(seed, tmp_path):
    """Fails if an entry or a number, replaced with an extreme, ends in another error than ours (60 of each seed)."""
    refused = 0
    for name, make in recordings.mutations(60, seed):
        refused += _is_refused(name, make(tmp_path))
    assert 10 < refused < 60


def _is_refused(name: str, path: Path) -> bool:
    try:
        _everything(path)
    except BnprobeError as error:
        if "\n" in str(error):
            raise AssertionError(f"{name}: more than one line: {error}") from error
        return isinstance(error, BadRecordingFile)
    except Exception as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    return False


def _everything(path: Path) -> None:
    """All that is made of a recording except its pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # sums at the end of float64
        report = bnprobe.report(bnprobe.load(path))
        report.to_text()
        assert len(report.channels)
        assert len(report.layers)


def test_the_forger_forges_what_loads(tmp_path):
    """Fails if these recordings are refused for another reason than the entry that was changed."""
    path = recordings.forged(tmp_path, lambda tree, arrays: None)
    assert bnprobe.load(path).about.n_images == 8
