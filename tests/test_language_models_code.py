"""The page for people who know BatchNorm and meet a language model: every block runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.paths import ROOT
from support.token_models import Gpt, tokens

from bnprobe.measures import glossary

TEXT = (ROOT / "docs" / "language_models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)


@pytest.mark.slow
def test_every_block_runs_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fails if a reader who pastes the blocks, with a model and batches of tokens, meets an error."""
    monkeypatch.chdir(tmp_path)
    model = Gpt(n=2).eval()
    names: dict[str, object] = {"model": model, "loader": [tokens(4), tokens(4, seed=1)]}
    assert len(BLOCKS) == 6
    for code in BLOCKS:
        exec(compile(code, "language_models.md", "exec"), names)
    assert (tmp_path / "reports" / "language_model.html").stat().st_size > 10_000


def test_columns_that_are_named_exist():
    """Fails if the page names a column that was renamed."""
    columns = {
        name for row in re.findall(r"^\|.*\| (.*) \|$", TEXT, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    known = {column.name for column in glossary()}
    assert {"loudest_token", "read_share", "norm_role", "branch"} <= columns
    assert columns <= known
