"""Folders of torch.distributed.checkpoint made to harm: their table is a pickle, and so is each part of a tensor."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacks import pickles
from attacks.rank_folders import as_a_part, as_the_table, before_the_end_of_the_table, healthy
from attacks.sandbox import Sandbox, Verdict
from attacks.test_checkpoints import assert_cheap, assert_left_nothing, assert_one_line, by_name

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


ATTACKS = {**pickles.CODE, **pickles.COSTLY}
ADVICE = r"so it was not loaded\. If you trust it, run|Copy the whole folder again|Copy or download"


@pytest.mark.parametrize("way", [as_the_table, as_a_part], ids=["table", "part"])
@pytest.mark.parametrize("make", **by_name(ATTACKS))
def test_refused_unrun(sandbox: Sandbox, make, way, tmp_path):
    """Fails if the table of a folder, or a part of a tensor, is unpickled by other means than those of whole files."""
    assert_refused(sandbox.run("check", way(make(tmp_path), tmp_path / "ranks")), tmp_path)


@pytest.mark.parametrize("make", **by_name(pickles.CODE))
def test_refused_unrun_where_nothing_of_it_remains(sandbox: Sandbox, make, tmp_path):
    """Fails if code runs while a table is read that is whole and sound in the end."""
    folder = before_the_end_of_the_table(make(tmp_path), tmp_path / "ranks")
    assert_refused(sandbox.run("check", folder), tmp_path)


def assert_refused(verdict: Verdict, folder: Path) -> None:
    assert_left_nothing(verdict, folder)
    assert_one_line(verdict, ADVICE)
    assert str(folder / "ranks") in verdict.line
    assert "UnknownName" not in verdict.line
    assert_cheap(verdict)


def test_the_folder_itself_is_sound(sandbox: Sandbox, tmp_path):
    """Fails if the attacks above are refused for another reason than what was put into them."""
    verdict = sandbox.run("check", healthy(tmp_path / "ranks"))
    assert verdict.code == 0, verdict.err
