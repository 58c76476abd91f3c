"""The page as a browser gets it: sound HTML, nothing loaded, nothing foreign, whatever was recorded."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from measures.sites import memory_of, recording, site, some_rows
from torch import nn

import bnprobe
from bnprobe.measures import tables
from bnprobe.recording import LayerRecord, Recording
from bnprobe.report import figures
from bnprobe.report.chapters.overview import network_map
from bnprobe.report.formats.html import with_code
from bnprobe.report.numbers import number
from report import pages
from report.pictured import svg_of, the_map_raises

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '" onmouseover="alert(1)" x=\'',
    "comment": "--><!-- </style></svg><img src=http://example.org/x.png>",
    "entity": "&lt;b&gt; &amp; & &#0;",
    "long": "encoder_" + "x" * 300,
    "lines": "two\nlines\tand a \r return",
    "right to left": "\u202egnp.exe\u202c \u2067abc\u2069",
    "formula": "a$x_1$b",
    "bad formula": "$\\frac$",
    "template": "{{ 7 * 7 }}{% raw %}",
    "control": "bell\x07 escape\x1b[31m null\x00 \x85 \x7f",
    "surrogate": "half \ud800 a pair",
    "wide": "層正規化 🧪 ½",
    "space": " a  b ",
}


def drawn(recorded: Recording) -> str:
    return bnprobe.report(recorded)._html()


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Pictures left out, for tests of everything else."""
    monkeypatch.setattr(figures, "to_svg", lambda name, draw: "<svg></svg>")


def everything() -> list[LayerRecord]:
    """Every kind and every lack: a site per habit that could cost the page its grammar or its sense."""
    rows = some_rows()
    memory = memory_of(rows)
    one, flat = some_rows(n_channels=1), some_rows() * 0 + 2
    holes = some_rows()
    holes[:, 1] = np.nan
    holes[0, 0, 0] = np.inf
    nowhere = np.full_like(rows, np.nan)
    nan = float("nan")
    return [
        site(rows, "stem.bn", gamma=[0.5, -0.2, 1e-4], beta=[0.1, -0.3, 0.2], **memory),
        site(rows, "stem.again", gamma=1, beta=0, **memory),
        site(rows * 2, "stem.again", gamma=1, beta=0, call=1, **memory),
        site(rows, "plain", **memory),
        site(rows, "no memory", gamma=1, beta=0),
        site(rows, "no histograms", gamma=1, beta=0, histograms=False, **memory),
        site(rows, "neither", histograms=False),
        site(rows, "trained", gamma=[1, 2, 3], beta=0, n_calls_training=1, n_calls_running=0, **memory),
        site(rows, "layer", "layer_norm", gamma=[1, -1, 0], beta=0),
        site(rows, "rms", "rms_norm", gamma=1),
        site(rows, "group", "group_norm"),
        site(rows, "instance", "instance_norm"),
        site(rows, "own", "my_own_norm", gamma=1, beta=0),
        site(one, "one.channel", gamma=2, beta=1, **memory_of(one)),
        site(some_rows(1), "one.image", gamma=1, beta=0, running_mean=0, running_var=1e-3),
        site(some_rows(5, 3, 1), "vectors", gamma=1, beta=0, **memory),
        site(flat, "constant", gamma=1, beta=0, running_mean=2, running_var=0),
        site(flat, "constant.fresh", gamma=1, beta=0, running_mean=0, running_var=1),
        site(rows, "switched.off", gamma=0, beta=[0, 1, -1], **memory),
        site(holes, "holes", gamma=1, beta=0, **memory),
        site(nowhere, "nothing.finite", gamma=1, beta=0, **memory),
        site(rows, "poisoned", gamma=1, beta=0, running_mean=[0, nan, np.inf], running_var=[nan, -1, np.inf]),
        site(rows, "poisoned.gamma", gamma=[nan, np.inf, 1], beta=[0, nan, -np.inf], **memory),
        site(rows, "all.poisoned", gamma=nan, beta=nan, running_mean=nan, running_var=nan),
        site(rows, "fused", gamma=1, beta=0, output="read", mismatch=0.3, **memory),
        site(rows, "unreadable", "layer_norm", gamma=1, beta=0, mismatch=float("inf")),
        site(rows * 1e30, "huge", gamma=1e30, beta=-1e30, running_mean=0, running_var=1e-30),
        site(
            some_rows(2, 40, 3),
            "wide",
            gamma=np.linspace(-1, 1, 40),
            beta=0.1,
            **memory_of(some_rows(2, 40, 3)),
        ),
    ]


@pytest.fixture(scope="module")
def all_kinds() -> Recording:
    return recording(*everything(), never_called=("spare",), not_understood=("odd (StrangeNorm)",))


@pytest.fixture(scope="module")
def page(all_kinds: Recording) -> str:
    with pytest.MonkeyPatch.context() as patch:
        # which pictures could not be drawn is a question of its own: see below
        patch.setattr("warnings.warn", lambda *_, **__: None)
        return drawn(all_kinds)


@pytest.fixture(scope="module")
def document(page: str) -> ET.Element:
    return pages.parsed(page)


# One page with everything on it


def test_the_page_is_html(page):
    """Fails if an element is closed twice, nested where it may not be, or a character is forbidden."""
    assert page.startswith("<!doctype html>"), "otherwise browsers fall back to quirks mode"
    assert pages.parsed(page).find("head/title").text == "What the norms of Net learned"


def test_the_page_loads_nothing(document):
    """Fails if a font, a style sheet, a script or a picture comes from elsewhere: pages are opened offline."""
    pages.assert_loads_nothing(document)


def test_ids_stand_once_and_lead_somewhere(document):
    """Fails if two pictures share an id: a browser would clip the second by the first one's frame."""
    pages.assert_ids_are_sound(document)


def test_every_picture_has_words(document, all_kinds):
    """Fails if a figure has no alternative text, or one is missing."""
    pages.assert_pictures_have_words(document)
    parts = pages.sections(document)
    assert len(pages.elements(parts["network"], "figure")) == 1
    assert len(pages.elements(parts["layers"], "table")) == len(all_kinds.layers)


def test_numbers_are_readable(document):
    """Fails if nan, inf or None gets into a sentence, a cell or a picture's label as Python prints it."""
    pages.assert_numbers_are_readable(pages.text_of(document))


def test_every_site_and_every_lack_has_its_place(document, all_kinds):
    """Fails if a site is dropped, or the second call of a layer shows the first one's numbers."""
    parts = pages.sections(document)
    texts = [pages.text_of(parts[f"layer-{i}"]) for i in range(len(all_kinds.layers))]
    for record, text in zip(all_kinds.layers, texts, strict=True):
        assert text.startswith(record.site), record.site
    words = pages.text_of(document)
    assert "spare" in words
    assert "odd (StrangeNorm)" in words
    first, second = (text for text in texts if text.startswith("stem.again"))
    assert "variance equal to running variance" in first
    assert re.search(r"variance 4(\.0+)? times running variance", second)
    calls = [record for record in all_kinds.layers if record.layer == "stem.again"]
    for record, text in zip(calls, (first, second), strict=True):
        for variance in record.pre.var_population:
            assert f" {number(variance)} " in text, "the table of channels is that of another call"


@pytest.mark.parametrize("record", everything(), ids=lambda record: record.site)
def test_every_picture_can_be_drawn(record):
    """Fails if a layer's habit costs it its picture, or numpy warns about a NaN on the way."""
    page = drawn(recording(record))
    pages.assert_sound(page)
    assert page.count("<svg") >= 2
    assert "could not be drawn" not in page


def test_the_same_recording_gives_the_same_bytes(all_kinds):
    """Fails if the page holds the hour, a random id, or an order that a set decided."""
    some = recording(*all_kinds.layers[:3], never_called=("b", "a"))
    assert drawn(some).encode() == drawn(some).encode()


# Names from elsewhere


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["model", "layer", "data", "never called"])
def test_names_are_text_whatever_they_hold(undrawn, name, where):
    """Fails if a name is believed to be markup, breaks an id, or spoils the encoding."""
    hostile = HOSTILE[name]
    rows = some_rows()
    layer = hostile if where == "layer" else "bn"
    about = (
        {"model": hostile} if where == "model" else {"data": hostile, "weights": hostile, "notes": (hostile,)}
    )
    more = {"never_called": (hostile,)} if where == "never called" else {}
    if where not in ("model", "data"):
        about = {}
    page = drawn(recording(site(rows, layer, gamma=1, beta=0, **memory_of(rows)), **about, **more))
    page.encode()
    document = pages.assert_sound(page)
    assert not any(ord(c) < 32 and c != "\n" for c in page), "a control character"
    words = pages.text_of(document)
    if name not in ("long", "control", "surrogate", "lines", "right to left", "space", "entity"):
        assert hostile in words
    if name == "entity":
        assert "&lt;b&gt; &amp; &" in words
    if name == "right to left":
        assert "gnp.exe" in words
        assert "\u202e" not in page, "an override would turn round the words that follow"


@pytest.mark.parametrize(
    "name", ["script", "attribute", "comment", "formula", "bad formula", "long", "right to left", "control"]
)
def test_names_are_text_in_pictures_too(name):
    """Fails if a layer's name is drawn as a formula, ends the SVG, or costs the picture."""
    rows = some_rows()
    sites = [site(rows, path, gamma=1, beta=0, **memory_of(rows)) for path in (HOSTILE[name], "a", "b")]
    channels = tables(recording(*sites)).channels
    svg = svg_of(network_map(channels), "network")
    page = f"<!doctype html><html lang=en><head><title>x</title></head><body>{svg}</body></html>"
    document = pages.parsed(page)
    pages.assert_loads_nothing(document)
    pages.assert_ids_are_sound(document)
    label = next(t for t in map(pages.text_of, pages.elements(document, "text")) if t.endswith("(3)"))
    assert len(label) <= 40
    if name == "script" or "formula" in name:
        assert label == f"{HOSTILE[name]} (3)"


def test_two_hostile_names_do_not_share_an_id(undrawn):
    """Fails if ids are made of names by leaving out what they may not hold."""
    rows = some_rows()
    names = ("a b", "a-b", "a\tb", "a.b", "A.b", "a<b", "a>b")
    layers = [site(rows, name, gamma=1, beta=0, call=call) for name in names for call in (0, 1)]
    pages.assert_sound(drawn(recording(*layers)))


def test_a_live_model_with_hostile_paths(undrawn):
    """Fails if the names of a real model, which torch hardly restricts, get through unescaped."""
    model = nn.Sequential()
    model.add_module("<img src=x onerror=alert(1)>", nn.BatchNorm2d(3))
    model.add_module("a b'\"", nn.Sequential(nn.LayerNorm(7)))
    with bnprobe.attach(model) as probe:
        model(torch.randn(2, 3, 5, 7))
    page = drawn(probe.recording)
    words = pages.text_of(pages.assert_sound(page))
    assert "<img src=x onerror=alert(1)>" in words
    assert "a b'\".0" in words


# A picture that cannot be drawn


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no room"),
        ZeroDivisionError("no room"),
        KeyError("no room"),
        RuntimeError("no room"),
        TypeError("no room"),
        AssertionError("no room"),
        AttributeError("no room"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_picture_that_fails_costs_a_sentence_and_not_the_page(monkeypatch, error):
    """Fails if one bad picture ends the page, hides its error, or takes the other pictures along."""
    the_map_raises(monkeypatch, error)
    with pytest.warns(RuntimeWarning, match="'network' could not be drawn: .*no room"):
        page = drawn(recording(site(some_rows(), gamma=1, beta=0)))
    document = pages.assert_sound(page)
    assert "This picture could not be drawn" in page
    assert "no room" in pages.text_of(pages.sections(document)["network"])
    assert len(pages.elements(document, "svg")) >= 1, "the chapters' own are there"


def test_interruption_is_not_taken_for_a_bad_picture(monkeypatch):
    """Fails if Ctrl-C while drawing is swallowed."""
    the_map_raises(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        drawn(recording(site(some_rows(), gamma=1, beta=0)))


def test_the_error_of_a_picture_is_text_too(monkeypatch):
    """Fails if an error message, which may quote a layer's name, is believed to be markup."""
    the_map_raises(monkeypatch, ValueError("<script>alert(1)</script>"))
    with pytest.warns(RuntimeWarning):
        page = drawn(recording(site(some_rows(), gamma=1, beta=0)))
    pages.assert_sound(page)


# In a notebook


def cell_of(report: bnprobe.Report) -> ET.Element:
    """What a notebook shows, inside a page of its own."""
    cell = report._repr_html_()
    assert "<!doctype" not in cell
    assert "<html" not in cell
    return pages.parsed(
        f"<!doctype html><html lang=en><head><title>x</title></head><body>{cell}</body></html>"
    )


def test_a_notebook_shows_headline_tiles_and_spine(undrawn, all_kinds):
    """Fails if the cell lacks the verdict or the picture, drags in data, layers or findings, or runs a script."""
    document = cell_of(bnprobe.report(all_kinds))
    pages.assert_loads_nothing(document)
    assert [name.rpartition("-")[2] for name in pages.sections(document)] == ["answer"]
    (answer,) = pages.elements(document, "section")
    kinds = [node.attrib.get("class", node.tag) for node in answer]
    assert [kind.split()[0] for kind in kinds] == [
        "h3",
        "headline",
        "tiles",
        "note",
        "wide",
        "narrow",
        "as-table",
    ]
    assert not pages.elements(document, "script")
    assert "to_html(path)" in pages.text_of(document)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cell_holds_names_as_text(undrawn, name):
    """Fails if a name becomes markup or a script in a notebook, where no policy stops it."""
    rows = some_rows()
    hostile = recording(site(rows, HOSTILE[name], gamma=1, beta=0, **memory_of(rows)), model=HOSTILE[name])
    pages.assert_loads_nothing(cell_of(bnprobe.report(hostile)))


def test_two_cells_of_a_notebook_share_no_id(undrawn, all_kinds):
    """Fails if a link, of one cell finds the elements of another."""
    report = bnprobe.report(all_kinds)
    ids = [[n.attrib["id"] for n in cell_of(report).iter() if "id" in n.attrib] for _ in range(2)]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Call `model.eval()` <first>.", "Call <code>model.eval()</code> &lt;first&gt;."),
        ("`a < b` and `c`", "<code>a &lt; b</code> and <code>c</code>"),
        ("one ` alone, and `</code><script>`", "one <code> alone, and </code>&lt;/code&gt;&lt;script&gt;`"),
        ("none", "none"),
    ],
)
def test_code_in_advice_is_code(text, shown):
    """Fails if backticks stand on a page, or what is between them gets out."""
    assert str(with_code(text)) == shown


def test_code_that_fills_a_page_is_marked():
    """Fails if paper cannot leave out code of a page's length, or leaves out a few lines."""
    few, many = (f"`for at in {list(range(n))}: w[at] = 1; b[at] = 0`" for n in (20, 800))
    assert 'class="lines"' in with_code(few)
    assert 'class="lines long"' in with_code(many)
