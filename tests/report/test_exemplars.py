"""Exemplars on the page: each file once, beside its channel; whose files may be shown; what chance says."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bnprobe
from bnprobe.recording import Recording
from bnprobe.report.browser import exemplars as of_page
from bnprobe.report.browser.exemplars import NOWHERE, exemplars_of, file_below
from bnprobe.report.figures.contact_sheet import COLUMNS, SIDE

N, K = 20, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one color each, whose names say which."""
    folder = tmp_path_factory.mktemp("images") / "test"
    folder.mkdir()
    for i in range(N):
        Image.fromarray(np.full((60, 90, 3), 12 * i, np.uint8)).save(folder / f"{i:02}.png")
    return folder


def recorded(folder: Path | None, labels: bool = True, k: int = K, n: int = N) -> Recording:
    """Two norms, the second of which sees the samples the other way round."""
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(-torch.eye(2))
    x = torch.stack([(torch.arange(n) * 7) % n, torch.arange(n)], 1).float()
    y = torch.arange(n) // 5
    captions = None if folder is None else [folder / f"{i:02}.png" for i in range(n)]
    return bnprobe.record(model, [(x, y)] if labels else [x], exemplars=k, captions=captions)


def squares(blobs: dict[str, str]) -> list[int]:
    """The gray of each square of the sheet."""
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(blobs["thumbnails"]))).convert("L"))
    rows, columns = picture.shape[0] // SIDE, picture.shape[1] // SIDE
    return [
        int(np.median(picture[r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE]))
        for r in range(rows)
        for c in range(columns)
    ]


def test_each_file_is_there_once_and_where_its_name_says(folder):
    """Fails if a file is embedded for every channel that shows it, or a name has the picture of another."""
    recording = recorded(folder)
    manifest, blobs = exemplars_of(recording, folder)
    blobs = dict(blobs)
    assert manifest["columns"] == COLUMNS
    assert manifest["k"] == K
    used = {Path(one).name for one in bnprobe.report(recording).exemplars["sample"]}
    assert {name.split("/")[-1] for name in manifest["names"]} == used
    assert sorted(manifest["cells"]) == list(range(len(used)))
    grays = squares(blobs)
    for name, cell in zip(manifest["names"], manifest["cells"], strict=True):
        assert abs(grays[cell] - 12 * int(Path(name).stem)) <= 2


def test_places_are_those_of_the_table(folder):
    """Fails if a channel shows the samples of another, or the lowest for the highest."""
    recording = recorded(folder)
    manifest, blobs = exemplars_of(recording, None)
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(dict(blobs)["exemplars"])), "<u2").reshape(
        -1, 2, K
    )
    table, row = bnprobe.report(recording).exemplars, 0
    for layer, channels in zip(("0", "2"), manifest["layers"], strict=True):
        for channel in channels:
            for side, name in enumerate(("high", "low")):
                mine = table.query(f"layer == {layer!r} and channel == {channel} and side == {name!r}")[
                    "sample"
                ]
                shown = [manifest["names"][i].split("/")[-1] for i in numbers[row, side]]
                assert shown == [Path(one).name for one in mine]
            row += 1
    assert row == len(numbers)
    assert "thumbnails" not in dict(blobs)
    assert "images=FOLDER" in manifest["note"]


def test_a_wide_network_says_what_it_leaves_out(folder, monkeypatch):
    """Fails if a page grows without bounds, or a reader takes a part for all of it."""
    monkeypatch.setattr(of_page, "MOST_PLACES", 2 * K * 2)
    monkeypatch.setattr(of_page, "THUMBNAILS_BY_CHANNELS", 16)
    monkeypatch.setattr(of_page, "FEWEST_THUMBNAILS", 1)
    manifest, _blobs = exemplars_of(recorded(folder), folder)
    assert [len(channels) for channels in manifest["layers"]] == [1, 1]
    assert "Shown for 2 of 4 channels, those with the purest exemplars in each layer" in manifest["note"]
    assert sorted(cell for cell in manifest["cells"] if cell >= 0) == [0, 1, 2, 3]
    assert "The 4 files shown most often have thumbnails" in manifest["note"]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../secret.png",
        "test/../../secret.png",
        "/somewhere/else/secret.png",
        "",
        "..",
        "\0",
        "x" * 300,
    ],
)
def test_files_outside_of_the_folder_are_not_shown(folder, path):
    """Fails if somebody else's recording can put files of the reader's onto a page."""
    (folder.parent / "secret.png").write_bytes((folder / "00.png").read_bytes())
    assert file_below(folder, path) is None


def test_a_path_of_a_hundred_thousand_folders_is_not_looked_for(folder, monkeypatch):
    """Fails if a recording can have the disk asked for hours, each time for a folder less."""
    asked: list[Path] = []
    monkeypatch.setattr(of_page, "is_file", lambda path: bool(asked.append(path)))
    assert file_below(folder, "a/" * 100_000 + "b.png") is None
    assert file_below(folder, "a/" * 2_000 + "b.png") is None
    assert len(asked) <= 40


def test_a_folder_that_was_moved(folder):
    """Fails if a recording made on another machine shows nothing."""
    assert file_below(folder, "data/test/03.png") == folder / "03.png"
    assert file_below(folder.parent, "data/test/03.png") == folder / "03.png"


def test_files_that_are_no_images(folder, tmp_path):
    """Fails if one damaged file costs the page."""
    for i in range(N):
        (tmp_path / f"{i:02}.png").write_bytes(b"GIF89a, or not")
    manifest, _ = exemplars_of(recorded(folder), tmp_path)
    assert set(manifest["cells"]) == {-1}
    assert "None of" in manifest["note"]


def test_nothing_without_exemplars(folder):
    """Fails if every page says something of exemplars."""
    recording = recorded(None, k=0)
    assert exemplars_of(recording, folder) == (None, [])
    page = bnprobe.report(recording)._page
    assert all(section.id != "exemplars" for section in page.sections)


def test_the_chapter_says_how_pure_and_what_chance_gives(folder):
    """Fails if shares of one norm are told of another, or chance is left out."""
    page = bnprobe.report(recorded(folder))._page
    chapter = next(section for section in page.sections if section.id == "exemplars")
    words = chapter.blocks[0].paragraphs[0]
    # channel 1 counts up, so that its three highest are of one class; channel 0 jumps over classes
    assert words.startswith("On average, of the 3 samples that raise a channel most, ")
    assert " at layer 0 and " in words
    assert "of 3 drawn at random it would be " in words
    assert "exemplars" in bnprobe.report(recorded(folder)).figures


def test_the_purest_channel_is_a_fact(folder):
    """Fails if the best of many is told as if it were typical."""
    from bnprobe.report.chapters.exemplars import purest

    report = bnprobe.report(recorded(folder))
    said = purest(report.recording, report._tables)
    assert said.startswith("Of the 3 samples that raise channel 1 of layer 2 most, 3 are of class 0; ")
    assert "2 of 4 channels are as pure" in said
    assert "drawn at random" in said
    plain = bnprobe.report(recorded(folder, labels=False))
    assert purest(plain.recording, plain._tables) == ""


def test_fewer_samples_than_asked_for():
    """Fails if a page speaks of eight where there are five."""
    report = bnprobe.report(recorded(None, k=8, n=5))
    chapter = next(section for section in report._page.sections if section.id == "exemplars")
    assert "5 samples went through the model" in chapter.blocks[0].paragraphs[1]


def test_a_folder_that_is_none(folder):
    """Fails if a folder that is not there is found out without a word."""
    with pytest.raises(bnprobe.BnprobeError, match="there is no folder"):
        bnprobe.report(recorded(None), images=folder / "nowhere")


def test_tokens_have_positions():
    """Fails if positions of tokens do not travel with the page."""
    recording = bnprobe.record(nn.LayerNorm(3), [torch.randn(4, 6, 3)], exemplars=2, captions=list("abcd"))
    manifest, blobs = exemplars_of(recording, None)
    at = np.frombuffer(zlib.decompress(base64.b64decode(dict(blobs)["exemplar-positions"])), "<u2")
    expected = bnprobe.report(recording).exemplars.sort_values(["channel", "side", "rank"])["position"]
    assert sorted(at.tolist()) == sorted(expected.astype(int).tolist())
    assert NOWHERE not in at
    assert set(manifest["names"]) <= {f"{i}: {name}" for i, name in enumerate("abcd")}
    json.dumps(manifest, allow_nan=False)


def test_thumbnails_stand_beside_their_channel(folder, tmp_path):
    """Fails if the layer view shows no samples, those of another channel, or pictures that the browser does not draw."""
    pytest.importorskip("selenium", reason="the test extra brings selenium")
    from report.browser import reader

    page = bnprobe.report(recorded(folder), images=folder).to_html(tmp_path / "page.html")
    assert page.read_text("utf-8").count('data-name="thumbnails"') == 1
    with reader(tmp_path) as reading:
        reading.look(1280, 900)
        reading.open(page, "#layer=0&channel=1")
        words = reading.run("return [...document.querySelectorAll('.thumbnail')].map((e) => e.title)")
        assert [one.split("/")[-1] for one in words] == [
            *("19.png (class 3)", "18.png (class 3)", "17.png (class 3)"),
            *("00.png (class 0)", "01.png (class 0)", "02.png (class 0)"),
        ]
        sides = reading.run(
            "return [...document.querySelectorAll('.exemplar-side p')].map((e) => e.textContent)"
        )
        assert sides[0] == "highest: 3 of 3 are class 3"
        drawn = reading.run("return getComputedStyle(document.querySelector('.thumbnail')).backgroundImage")
        assert drawn.startswith('url("data:image/jpeg;base64,')
