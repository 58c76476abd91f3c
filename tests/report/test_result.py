"""What `bnprobe.report` takes and gives: tables, a page on disk, and nothing changed outside."""

from __future__ import annotations

import gc
import os
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from measures.sites import memory_of, recording, site, some_rows
from support.models import BY_NAME
from torch import nn

import bnprobe
from bnprobe.errors import BadRecordingFile, BnprobeError, CannotWrite, NothingRecorded
from bnprobe.recording import Recording
from bnprobe.report import figures
from bnprobe.report.figures import drawing
from bnprobe.report.figures.specs import NetworkMap
from report import pages
from report.pictured import the_map_raises


@pytest.fixture
def recorded() -> Recording:
    rows = some_rows()
    return recording(site(rows, gamma=1, beta=0, **memory_of(rows)), site(rows, "ln", "layer_norm"))


@pytest.fixture
def undrawn(monkeypatch) -> None:
    monkeypatch.setattr(figures, "to_svg", lambda name, draw: "<svg></svg>")


def test_a_probe_its_recording_and_its_file_give_the_same_report(tmp_path, undrawn):
    """Fails if one way in measures or judges otherwise than another.

    Only that the model was left as it was cannot be said before the probe is off.
    """
    case = BY_NAME["mixed"]
    model = case.model()
    with bnprobe.attach(model) as probe:
        for x in case.batches():
            model(x)
        live = bnprobe.report(probe)
    path = probe.recording.save(tmp_path / "run.bnp")
    reports = [live, bnprobe.report(probe), bnprobe.report(probe.recording)]
    reports += [bnprobe.report(path), bnprobe.report(str(path))]
    before, *after = (report.to_html(tmp_path / f"{i}.html").read_bytes() for i, report in enumerate(reports))
    assert len(set(after)) == 1
    without, n = re.subn(rb"<div><dt>left unchanged</dt>.*</div>\n", b"", after[0])
    assert n == 1
    assert without == before
    for report in reports[1:]:
        pd.testing.assert_frame_equal(report.channels, live.channels)
        pd.testing.assert_frame_equal(report.layers, live.layers)
        pd.testing.assert_frame_equal(report.findings, live.findings)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_collector_is_as_before(recorded, tmp_path, undrawn, wanted, fails):
    """Fails if a page leaves garbage collection off, or switches on what the user has switched off."""
    (gc.enable if wanted else gc.disable)()
    try:
        if fails:
            (tmp_path / "file").write_text("x")
            with pytest.raises(bnprobe.CannotWrite):
                bnprobe.report(recorded).to_html(tmp_path / "file" / "x.html")
        else:
            bnprobe.report(recorded).to_html(tmp_path / "x.html")
        assert gc.isenabled() == wanted
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "wrong", [42, None, nn.BatchNorm2d(3), b"run.bnp", [1, 2]], ids=lambda w: type(w).__name__
)
def test_anything_else_is_refused_with_the_way_in(wrong):
    """Fails if a model or a number gives an AttributeError from inside."""
    with pytest.raises(
        BnprobeError, match=r"got \w+\. Use bnprobe\.attach\(model\) and pass what it returns"
    ):
        bnprobe.report(wrong)


def test_a_file_that_is_none(tmp_path):
    """Fails if a missing or foreign file raises what numpy or the system raises."""
    with pytest.raises(BadRecordingFile, match=r"written with recording\.save\(path\)"):
        bnprobe.report(tmp_path / "none.bnp")
    (tmp_path / "x.bnp").write_text("hello")
    with pytest.raises(BadRecordingFile, match="Record it again"):
        bnprobe.report(tmp_path / "x.bnp")


def test_nothing_recorded_says_what_to_run(tmp_path):
    """Fails if an empty report is made of a probe that saw nothing, or the reason is not told."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.LayerNorm(7))
    advice = "Run the object you attached to; a deepcopy, an exported graph, a wrapper compiled earlier"
    with bnprobe.attach(model) as probe, pytest.raises(NothingRecorded, match=advice):
        bnprobe.report(probe)
    with pytest.raises(
        NothingRecorded, match="attached to 2 layers, and no forward pass that completed called one"
    ):
        bnprobe.report(probe.recording.save(tmp_path / "zero.bnp"))


def test_forward_passes_that_reach_no_norm_are_told_apart():
    """Fails if a model that ran without its norms is said not to have run: the advice differs."""
    model = nn.ModuleDict({"a": nn.Identity(), "bn": nn.BatchNorm2d(3)})
    model.forward = lambda x: model["a"](x)
    with bnprobe.attach(model) as probe:
        model(torch.zeros(2, 3, 4, 4))
    with pytest.raises(
        NothingRecorded, match="attached to 1 layer, and no forward pass that completed called it"
    ):
        bnprobe.report(probe)


def test_to_html_returns_its_path_and_makes_the_folder(recorded, tmp_path, undrawn):
    """Fails if the path is not returned, or its folder must exist before."""
    path = bnprobe.report(recorded).to_html(str(tmp_path / "a" / "b" / "page.html"))
    assert path == tmp_path / "a" / "b" / "page.html"
    pages.assert_sound(path.read_text("utf-8"))
    assert os.listdir(path.parent) == ["page.html"]


def test_a_page_is_whole_or_not_there(recorded, tmp_path, undrawn, monkeypatch):
    """Fails if a full disk leaves half a page, takes yesterday's page along, or leaves a part behind."""
    path = tmp_path / "page.html"
    path.write_text("yesterday's")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bnprobe.files.write.os.fsync", full)
    with pytest.raises(CannotWrite, match=r"No space left on device\. Choose another path for the output"):
        bnprobe.report(recorded).to_html(path)
    assert path.read_text() == "yesterday's"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_page_that_cannot_be_made_leaves_nothing(recorded, tmp_path, monkeypatch):
    """Fails if the file is opened before the page is known."""
    the_map_raises(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bnprobe.report(recorded).to_html(tmp_path / "page.html")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["a folder", "below a file"])
def test_a_path_that_cannot_be_written(recorded, tmp_path, undrawn, where):
    """Fails if the system's own error is raised, or the path is not named."""
    path = tmp_path
    if where == "below a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "page.html"
    with pytest.raises(CannotWrite, match=f"{path}: .*Choose another path for the output"):
        bnprobe.report(recorded).to_html(path)


def test_the_users_own_plots_look_as_before(recorded, tmp_path):
    """Fails if drawing changes matplotlib's settings, opens a figure of pyplot's, or leaves its backend."""
    import matplotlib.pyplot as plt

    plt.rcParams["font.size"] = 17.5
    before, backend, open_figures = dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()
    bnprobe.report(recorded).to_html(tmp_path / "page.html")
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend() == backend
    assert plt.get_fignums() == open_figures
    mpl.rcdefaults()


def test_settings_are_restored_when_drawing_fails(recorded, tmp_path, monkeypatch):
    """Fails if an error in the middle of a picture leaves our style on the user's plots."""

    def fail(*_: object) -> None:
        assert mpl.rcParams["axes.spines.top"] is False
        raise ValueError("no room")

    monkeypatch.setitem(drawing._BY_KIND, NetworkMap, fail)
    before = dict(mpl.rcParams)
    with pytest.warns(RuntimeWarning, match="no room"):
        bnprobe.report(recorded).to_html(tmp_path / "page.html")
    assert dict(mpl.rcParams) == before


def test_the_users_settings_do_not_change_the_page(recorded, tmp_path):
    """Fails if a user's own style (text with LaTeX, a dark background, another font) gets into our pictures."""
    mine = {
        "font.size": 30,
        "axes.facecolor": "black",
        "axes.grid": True,
        "lines.linewidth": 9,
        "axes.labelpad": 40,
    }
    plain = bnprobe.report(recorded).to_html(tmp_path / "a.html").read_bytes()
    with mpl.rc_context(mine):
        assert bnprobe.report(recorded).to_html(tmp_path / "b.html").read_bytes() == plain


def test_pages_are_the_same_in_any_order_of_making(recorded, tmp_path):
    """Fails if a counter that runs through the process gets into the ids."""
    first = bnprobe.report(recorded).to_html(tmp_path / "a.html").read_bytes()
    rows = some_rows(seed=3)
    bnprobe.report(recording(site(rows, gamma=2, beta=1))).to_html(tmp_path / "b.html")
    assert bnprobe.report(recorded).to_html(tmp_path / "c.html").read_bytes() == first


def test_tables_are_made_once(recorded):
    """Fails if each look at a table measures anew, or hands out another object."""
    report = bnprobe.report(recorded)
    assert report.channels is report.channels
    assert report.layers is report.layers
    assert report.findings is report.findings


def test_repr_counts_what_was_found(recorded):
    """Fails if the counts are of another severity."""
    rows = some_rows()
    poisoned = site(rows, "poisoned", running_mean=np.nan, running_var=1)
    report = bnprobe.report(
        recording(poisoned, site(rows, "flat", gamma=0, **memory_of(rows)), never_called=("x", "y"))
    )
    counts = [(report.findings["severity"] == severity).sum() for severity in ("critical", "warning", "info")]
    assert counts == [1, 4, 1]
    assert repr(report).startswith("Report(Net: 2 norm layers, 6 channels, 1 critical, 4 warnings, 1 info")


def test_the_report_leaves_the_recording_as_it_was(recorded, tmp_path, undrawn):
    """Fails if measuring, judging or composing writes into the arrays it was given."""
    before = {
        id(v): v.copy()
        for record in recorded.layers
        for v in vars(record).values()
        if isinstance(v, np.ndarray)
    }
    sums = {record.site: record.pre.m2.copy() for record in recorded.layers}
    report = bnprobe.report(recorded)
    report.to_html(tmp_path / "page.html")
    report.channels["gamma"] = -7.0
    for record in recorded.layers:
        np.testing.assert_array_equal(record.pre.m2, sums[record.site])
        for value in vars(record).values():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, before[id(value)])
