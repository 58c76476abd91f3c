"""The atlas of an audit: what stands out, how values are distributed, and a page that says so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bnprobe.cli.main import main
from bnprobe.report.atlas import FEWEST, QUANTITIES, distance, measures, outliers
from bnprobe.report.atlas_page import _ticks, page
from bnprobe.report.audit import FILE, NORM, SEVERITIES, table_of
from bnprobe.report.formats.html import to_html
from bnprobe.report.page.blocks import Figure, Headline, Table

N, LAYERS = 24, 3


def audited(n: int = N, large: int = 7) -> pd.DataFrame:
    """So many checkpoints of batch norms, one of which has |γ| a hundred times as large; one more cannot be read."""
    rng, rows = np.random.default_rng(3), []
    for i in range(n):
        key = {"path": f"a/{i}.pt", "size": 10 + i, "modified": 5, "etag": ""}
        found = dict.fromkeys(SEVERITIES, 0) | {"warning": int(i % 5 == 0)}
        rules = "dead-channels" if i % 5 == 0 else ""
        rows.append(
            {**key, "row": FILE, "n_norms": LAYERS, "n_parameters": 9, **found, "rules": rules, "error": ""}
        )
        for j in range(LAYERS):
            gamma = np.abs(rng.normal(1, 0.2, 5 + j)) * (100 if i == large else 1)
            row = {"row": NORM, "layer": f"bn{j}", "kind": "batch_norm", "n_channels": 5 + j}
            values = {
                "gamma_abs_low": gamma.min(),
                "gamma_abs_median": np.median(gamma),
                "gamma_abs_high": gamma.max(),
                "gamma_near_zero": (i % 3) / (5 + j),
                "beta_median": rng.normal(),
                "running_var_median": rng.uniform(1, 2),
                "running_var_high": rng.uniform(2, 3),
            }
            rows.append({**key, **row, **values})
    rows.append(
        {
            "path": "bad.pt",
            "size": 1,
            "modified": 5,
            "etag": "",
            "row": FILE,
            "error": "bad.pt <is> a web page",
        }
    )
    return table_of(rows)


def test_measures_are_those_of_the_norms():
    """Fails if a quantity is taken over other norms, or channels do not count."""
    table = audited()
    found = measures(table).set_index("path")
    norms = table[(table["row"] == NORM) & (table["path"] == "a/4.pt")]
    one = found.loc["a/4.pt"]
    assert one["n_norms"] == LAYERS
    assert one["gamma"] == np.median(norms["gamma_abs_median"])
    assert one["gamma_low"] == np.median(norms["gamma_abs_low"])
    assert one["gamma_high"] == max(norms["gamma_abs_high"])
    assert one["near_zero"] == pytest.approx(LAYERS * 1 / (5 + 6 + 7))
    assert one["beta"] == np.median(norms["beta_median"])
    assert one["var_high"] == max(norms["running_var_high"])
    assert "bad.pt" not in found.index


def test_the_one_that_is_unlike_the_others_stands_out():
    """Fails if it is missed, or others are named with it."""
    unlike = outliers(measures(audited()))
    assert set(unlike["path"]) == {"a/7.pt"}
    assert {"Typical |γ|", "Smallest |γ|", "Largest |γ|"} == set(unlike["quantity"])
    assert (unlike["far"] > 5).all()
    assert outliers(measures(audited(large=-1))).empty


def test_distances_are_robust_and_need_a_few_values():
    """Fails if a far value hides itself in the spread, or few values are called usual."""
    x = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 1000])
    found = distance(x, ratio=False)
    spread = 1.4826 * np.median(np.abs(x - 5))
    assert found == pytest.approx((x - 5) / spread)
    assert distance(np.exp(x[:8]), ratio=True) == pytest.approx((x[:8] - 4.5) / (1.4826 * 2))
    assert np.isnan(distance(x[: FEWEST - 1], ratio=False)).all()
    assert np.isnan(distance(np.ones(20), ratio=True)).all()
    assert distance(np.array([*x, 0.0]), ratio=True)[-1] == -np.inf
    assert np.isnan(distance(np.array([*x, np.nan]), ratio=False)[-1])


def test_the_page_says_what_the_table_holds():
    """Fails if a checkpoint, a finding or an error is left out of the page."""
    made = page(audited(), "t.parquet")
    assert made.title == "25 checkpoints: what their norms hold"
    (headline,) = (block for block in made.sections[0].blocks if isinstance(block, Headline))
    assert headline.state == "warning"
    assert headline.text == (
        "1 checkpoint unlike the others. 5 of 25 have warnings. Unlike the others: a/7.pt. 1 could not be checked."
    )
    by_id = {section.id: section for section in made.sections}
    assert list(by_id) == ["answer", "outliers", "kind-batch_norm", "files", "not-checked"]
    files = next(block for block in by_id["files"].blocks if isinstance(block, Table))
    texts = [[cell.text for cell in row] for row in files.rows]
    assert sorted(row[0] for row in texts) == sorted([*(f"a/{i}.pt" for i in range(N)), "bad.pt"])
    (seven,) = (row for row in texts if row[0] == "a/7.pt")
    assert seven[4:8] == ["3", "batch norm", seven[6], "100%"]
    assert texts[0][2] == "1", "the most serious come first"
    plots = next(block for block in by_id["kind-batch_norm"].blocks if isinstance(block, Figure)).spec.plots
    assert [plot.title for plot in plots] == [one.title for one in QUANTITIES]
    typical = plots[0]
    gamma = np.sort(measures(audited())["gamma"])
    assert np.array_equal(typical.curves[0].x, gamma[:-1])
    assert typical.curves[0].y == pytest.approx((np.arange(N) + 1)[:-1] / N)
    assert list(typical.curves[1].x) == [gamma[-1]]


def test_a_phone_shows_first_what_stands_out():
    """Fails if a phone's reader scrolls past seven pictures, or the one with a checkpoint that stands out is left out."""
    made = page(audited(), "t.parquet")
    by_id = {section.id: section for section in made.sections}
    wide, narrow = (block for block in by_id["kind-batch_norm"].blocks if isinstance(block, Figure))
    assert [plot.title for plot in narrow.spec.plots] == ["Typical |γ|", "Smallest |γ|", "Largest |γ|"]
    calm = page(audited(large=-1), "t.parquet").sections[1]
    _, few = (block for block in calm.blocks if isinstance(block, Figure))
    assert [plot.title for plot in few.spec.plots] == [one.title for one in QUANTITIES[:3]]
    assert len(narrow.table.rows) == len(wide.spec.plots) == len(QUANTITIES)
    assert [section.id for section in made.sections if section.folded] == ["files", "not-checked"]


def test_the_page_is_one_file_without_markup_of_others():
    """Fails if a name is markup, or the page asks for anything."""
    text = to_html(page(audited(), "<b>.parquet"), None)
    assert "<b>" not in text
    assert "bad.pt &lt;is&gt; a web page" in text
    assert 'src="http' not in text
    assert len(text) < 2**20


@pytest.mark.parametrize(("n", "large"), [(1, -1), (2, 0), (FEWEST - 1, 0), (0, 0)])
def test_few_checkpoints_are_no_traceback(n, large):
    """Fails if a table of one or none is an error, or one of a few is called unlike the others."""
    assert "could not be checked" in to_html(page(audited(n, large), "t.csv"), None)
    assert outliers(measures(audited(n, large))).empty


def test_ticks_are_few_and_round():
    """Fails if labels of a small axis run into one another."""
    for low, high in ((-0.08, 0.09), (0, 1), (0.1, 0.1001), (-3e5, 7), (1e-9, 4e-9)):
        ticks = _ticks(np.linspace(low, high, 9))
        assert 1 <= len(ticks) <= 5
        assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in ticks)
    assert _ticks(np.ones(4)) == _ticks(np.array([])) == ()


def test_the_command_writes_the_page_of_a_table(tmp_path, monkeypatch, capsys):
    """Fails if a table is audited as a list, another file is taken for one, or nothing says where the page is."""
    monkeypatch.chdir(tmp_path)
    audited().to_csv("t.csv", index=False)
    assert main(["audit", "t.csv", "--page", "a.html"]) == 0
    assert capsys.readouterr().out == "page: a.html\n"
    assert "25 checkpoints: what their norms hold" in (tmp_path / "a.html").read_text()
    (tmp_path / "o.csv").write_text("a,b\n1,2\n")
    for arguments, said in {
        ("audit", "o.csv", "--page", "b.html"): "is no table of an audit",
        ("audit", "t.csv", "--page", "t.csv"): "is what is read, and would be replaced",
        ("audit", "t.csv"): "Give -o table.parquet, or a table and --page FILE",
    }.items():
        assert main(list(arguments)) == 2
        out, err = capsys.readouterr()
        assert said in err
        assert err.count("\n") == 1
        assert not out
