"""The page of images that were made: its answer by what the controls say, its pictures, and that names stay names."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import html5lib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bnprobe.report.chapters.made import answer, page
from bnprobe.report.figures.thumbnails import LARGEST, data_uri
from bnprobe.report.formats.html import to_html
from bnprobe.report.formats.text import to_text
from bnprobe.report.made_table import MadeTable, Sheet
from bnprobe.report.page.blocks import Headline, Pictures, Table

NAMES = ("statistics and classes", "classes only", "statistics only", "permuted statistics", "real", "noise")
NAN = float("nan")


def made(
    judge: dict[str, tuple[float, float, float]] | None = None,
    worse: dict[str, float] | None = None,
    **changes: Any,
) -> MadeTable:
    """Six rows of 64 images; `judge` has the share and its interval by row, or the rank where there are many classes, and
    `worse` the test of ranks."""
    ranks = (changes.get("n_classes") or 10) > 100
    rows = []
    for i, name in enumerate(NAMES):
        found = (NAN, NAN, NAN) if judge is None else judge.get(name, (0.1, 0.05, 0.2))
        share, rank = ((NAN,) * 3, found) if ranks else (found, (2.0, 1.0, 3.0))
        rows.append(
            {
                "images": name,
                "n": 64,
                "steps": 300 if i < 4 else 0,
                "own": 1.0,
                "own_rank": 1.0,
                **dict(zip(("judge", "judge_low", "judge_high"), share, strict=True)),
                **dict(zip(("judge_rank", "judge_rank_low", "judge_rank_high"), rank, strict=True)),
                "judge_worse": (worse or {}).get(name, NAN),
                "distance": 0.125 * (i + 1),
                "seconds": 5.0,
            }
        )
    rng = np.random.default_rng(0)
    sheets = tuple(
        Sheet(name, rng.integers(0, 256, (3, 8, 8, 3), np.uint8), (0, 1, 2), (0, 2, -1))
        for name in (*NAMES, "nearest")
    )
    nearest = pd.DataFrame({"distance": [0.3, 0.5, 0.4], "real_distance": [0.2, 0.1, 0.3]})
    given: dict[str, Any] = {
        "table": pd.DataFrame(rows),
        "sheets": sheets,
        "model": "ResNet",
        "judge": "" if judge is None else "VGG",
        "n_classes": 10,
        "shape": (3, 8, 8),
        "steps": 300,
        "seed": 0,
        "seconds": 12.0,
        "nearest": nearest,
        "n_real": 500,
        "class_names": ("cat", "dog"),
    }
    return MadeTable(**{**given, **changes})


GOOD, LOW, SOME = (0.92, 0.83, 0.97), (0.08, 0.03, 0.17), (0.22, 0.14, 0.34)


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        (
            {NAMES[0]: GOOD, NAMES[1]: SOME, NAMES[3]: LOW},
            "from the running statistics and the weights together, but not from the weights alone",
        ),
        ({NAMES[0]: GOOD, NAMES[1]: (0.85, 0.75, 0.92)}, "add nothing significant to the classes here"),
        ({NAMES[0]: GOOD, NAMES[1]: SOME, NAMES[3]: GOOD}, "no better than those of other channels"),
    ],
)
def test_the_answer_follows_from_the_controls(judge: dict[str, Any], says: str) -> None:
    """Fails if the second sentence does not depend on what is significantly better."""
    said = answer(made(judge))
    assert "VGG, which took no part, recognizes 92% of the images" in said
    assert "(95% interval 83% to 97%, 64 images)" in said
    assert "chance is 10%" in said
    assert says in said


def test_intervals_that_overlap_are_no_proof_that_shares_are_alike() -> None:
    """Fails if a difference counts only where intervals lie apart: 19 of 64 and 7 of 64, p = .009 (two proportions)."""
    found = made(
        {NAMES[0]: (0.297, 0.199, 0.418), NAMES[1]: (0.109, 0.054, 0.209), NAMES[3]: (0.094, 0.044, 0.190)}
    )
    assert "not from the weights alone" in answer(found)


def test_images_no_nearer_than_noise_prove_nothing() -> None:
    """Fails if a run that was too short says that running statistics add nothing."""
    short = made({"statistics and classes": LOW, "classes only": LOW})
    short.table.loc[0, "distance"] = 0.8  # that of noise is 0.75
    assert answer(short).endswith(
        "No conclusion: after 300 steps they lie no nearer to the running statistics than noise does. Give more steps."
    )


def test_many_classes_are_told_by_rank() -> None:
    ranks = {NAMES[0]: (12.0, 4.0, 40.0), NAMES[1]: (180.0, 90.0, 300.0), NAMES[3]: (480.0, 300.0, 700.0)}
    said = answer(made(ranks, {NAMES[1]: 0.0123, NAMES[3]: 1e-5}, n_classes=1000))
    assert "puts the class at rank 12 (median)" in said
    assert "(95% interval 4 to 40, 64 images)" in said
    assert "rank 180 when they are made from the classes alone (p = 0.012, image by image)" in said
    assert "chance is 500" in said
    assert "each channel's own statistics say what data look like" in said


@pytest.mark.parametrize(
    ("worse", "says"),
    [
        ({NAMES[1]: 0.049, NAMES[3]: 0.049}, "each channel's own statistics say what data look like"),
        ({NAMES[1]: 0.051, NAMES[3]: 1e-5}, "add nothing significant to the classes here"),
        ({NAMES[1]: 1e-5, NAMES[3]: 0.051}, "no better than those of other channels"),
    ],
)
def test_ranks_are_compared_image_by_image(worse: dict[str, float], says: str) -> None:
    """Fails if ranks count as better where intervals of medians lie apart: a few hard classes widen both."""
    overlapping = {NAMES[0]: (2.0, 1.0, 7.0), NAMES[1]: (33.0, 1.0, 295.0), NAMES[3]: (173.0, 5.0, 231.0)}
    assert says in answer(made(overlapping, worse, n_classes=1000))


def test_without_a_judge_nothing_is_claimed() -> None:
    said = answer(made())
    assert "lie 0.12 running standard deviations from them" in said
    assert "real images 0.62" in said
    assert said.endswith("whether they look like data: pass a judge.")


def test_a_network_without_classes_asks_for_no_judge() -> None:
    assert answer(made(n_classes=None)).endswith(
        "ResNet scores no classes, so no other network can say what its images show."
    )


def test_without_controls_nothing_is_concluded() -> None:
    some = made({NAMES[0]: GOOD})
    alone = made({NAMES[0]: GOOD}, table=some.table.iloc[[0, 5]].reset_index(drop=True))
    assert "Without the controls, nothing says" in answer(alone)


@pytest.mark.parametrize(
    ("judge", "title", "detail"),
    [
        (
            {NAMES[0]: GOOD, NAMES[1]: SOME, NAMES[3]: LOW},
            "Images of a class can be made from the running statistics and the weights together, but not from the weights "
            "alone",
            "Each channel's own statistics say what data look like. VGG, which took no part, recognizes 92%",
        ),
        (
            {NAMES[0]: GOOD, NAMES[1]: (0.85, 0.75, 0.92)},
            "The running statistics add nothing significant to the classes here",
            "The difference may be chance. VGG, which took no part, recognizes 92%",
        ),
        (
            None,
            "No other network judged the images, so nothing here says whether they look like data",
            "Pass a judge. In the norms of ResNet, images made from its running statistics lie 0.12",
        ),
    ],
)
def test_the_page_opens_with_what_follows_and_the_images(
    judge: dict[str, Any] | None, title: str, detail: str
) -> None:
    """Fails if prose or a table comes before the verdict and the pictures, or the numbers before what follows from them."""
    first = page(made(judge)).sections[0]
    headline, pictures, table = first.blocks
    assert isinstance(headline, Headline)
    assert isinstance(pictures, Pictures)
    assert isinstance(table, Table)
    assert (headline.state, headline.title) == ("plain", title)
    assert headline.detail.startswith(detail)
    assert len(pictures.images) == 3
    assert pictures.caption.startswith("Statistics and classes")


def test_the_page_parses_and_holds_each_image_once() -> None:
    html = to_html(page(made({NAMES[0]: GOOD, NAMES[1]: SOME})))
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    images = document.findall(".//main//img")
    assert len(images) == 3 * 7
    assert len({image.get("src") for image in images}) == 3 * 7
    assert all(str(image.get("src")).startswith(("data:image/webp", "data:image/png")) for image in images)
    assert all(image.get("alt") for image in images)
    first, second, third = document.findall(".//ul[@class='pictures']")[0]
    assert (first.get("class"), "".join(first.itertext()).strip()) == ("good", "cat")
    assert (second.get("class"), "".join(second.itertext()).strip()) == ("bad", "dog, seen as 2")
    assert third.get("class") is None
    assert "1.6 times" not in html
    assert "2 times as far from the nearest of 500 real images" in html


def test_the_page_is_text_too() -> None:
    assert "Statistics and classes" in to_text(page(made()), 100)


def test_names_stay_names() -> None:
    html = to_html(page(made({NAMES[0]: GOOD}, class_names=("<b>x</b>", "\u202edog"), model="<script>")))
    assert "<b>x</b>" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;" in html


def test_inputs_that_are_no_images_have_no_pictures() -> None:
    html = to_html(page(made(sheets=(), shape=(4,))))
    assert "<img" not in html
    assert "The answer" in html


def test_notes_are_said() -> None:
    assert "Time ran out after" in to_html(page(made(notes=("Time ran out after 3 steps.",))))


def test_a_thumbnail_holds_the_pixels() -> None:
    """Fails if rows and columns or colors change places, or a large image is embedded as it is."""
    pixels = np.zeros((300, 200, 3), np.uint8)
    pixels[:, 100:] = (250, 120, 10)
    kind, encoded = re.match(r"data:image/(\w+);base64,(.*)", data_uri(pixels)).groups()  # type: ignore[union-attr]
    shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert shown.format == kind.upper()
    assert shown.height == LARGEST
    right = np.asarray(shown.convert("RGB"))[20, -10]
    assert np.abs(right.astype(int) - [250, 120, 10]).max() < 12
    assert np.asarray(shown.convert("RGB"))[20, 5].max() < 12
