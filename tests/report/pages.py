"""A page read by an independent parser, and what must hold of every page."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

import html5lib

from bnprobe.report.browser import AWAKE, program, program_of_tables

XLINK = "{http://www.w3.org/1999/xlink}href"
LOADING = ("src", "href", "srcset", "data", "poster", "action", "background", XLINK)
RAW = re.compile(r"(?<![\w'’-])(nan|NaT|None|[-+−]?inf)(?![\w'’-])|nan%|<NA>")


def parsed(page: str) -> ET.Element:
    """The document as an HTML5 parser sees it; any departure from the grammar is an error."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)


def text_of(element: ET.Element) -> str:
    """Words of the element, without style sheets and scripts, with single spaces."""
    return " ".join(" ".join(_pieces(element)).split())


def _pieces(element: ET.Element) -> Iterator[str]:
    if _name(element) not in ("style", "script"):
        yield element.text or ""
        for child in element:
            # code stays what it is, as between backticks in plain text
            yield from _pieces(child) if _name(child) != "code" else (f"`{_on_one_line(child)}`",)
            yield child.tail or ""


def _on_one_line(code: ET.Element) -> str:
    """Python of several lines as one that means the same."""
    return "".join(code.itertext()).replace(":\n    ", ": ").replace("\n    ", "; ").replace("\n", "; ")


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def elements(document: ET.Element, name: str) -> list[ET.Element]:
    """All elements of this name, in HTML or SVG."""
    return [node for node in document.iter() if _name(node) == name]


def sections(document: ET.Element) -> dict[str, ET.Element]:
    """Sections and folded parts by their id."""
    found = [
        node for node in document.iter() if _name(node) in ("section", "details") and "id" in node.attrib
    ]
    return {node.attrib["id"]: node for node in found}


def assert_loads_nothing(document: ET.Element) -> None:
    """No frame, no event handler, no address but those inside the page itself, and no script but ours."""
    for node in document.iter():
        name = _name(node)
        assert name not in ("iframe", "object", "embed", "base", "form"), name
        if name == "script":
            _assert_ours(node)
        for key, value in node.attrib.items():
            assert not key.lower().startswith("on"), f"{name} {key}"
            if name == "a" and key == "href" and value.startswith("https://"):
                assert node.attrib["rel"] == "noreferrer", (
                    value
                )  # followed by a reader, and loads nothing before
            elif key in LOADING:
                assert value.startswith(("#", "data:")), f"{name} {key}={value[:80]}"
            _assert_no_address(value, f"{name} {key}")
        if name == "style":
            _assert_no_address("".join(node.itertext()), "style")
    for meta in elements(document, "meta"):
        if "http-equiv" in meta.attrib:
            assert meta.attrib["http-equiv"] == "Content-Security-Policy"
            assert meta.attrib["content"].startswith("default-src 'none'; img-src data:;")
            assert meta.attrib["content"].endswith("; base-uri 'none'; form-action 'none'")


def _assert_ours(script: ET.Element) -> None:
    """Data that no browser runs, or one of the two programs, to the letter."""
    text = "".join(script.itertext())
    if script.attrib.get("data-bnp") == "manifest":
        json.loads(text)
    elif script.attrib.get("data-bnp") == "blob":
        assert script.attrib["type"] == "text/plain"
        assert re.fullmatch(r"[A-Za-z0-9+/]+=*", text), text[:80]
    else:
        assert not script.attrib
        root = re.search(r'getElementById\("(bnprobe[-\w]*)"\)', text)
        assert root, text[:80]
        assert text in (program(root[1]), program_of_tables(root[1]), AWAKE % root[1])


def _assert_no_address(css: str, where: str) -> None:
    for target in re.findall(r"url\(\s*['\"]?([^'\")]*)", css):
        assert target.startswith(("#", "data:")), f"{where}: url({target[:80]})"
    assert "@import" not in css, where


def assert_ids_are_sound(document: ET.Element) -> None:
    """Ids stand once, hold no space, and whatever refers to one finds it."""
    ids = [node.attrib["id"] for node in document.iter() if "id" in node.attrib]
    twice = {name for name in ids if ids.count(name) > 1}
    assert not twice, f"ids used twice: {sorted(twice)[:5]}"
    assert not [name for name in ids if not name or re.search(r"\s", name)]
    for node in document.iter():
        for key, value in node.attrib.items():
            targets = re.findall(r"url\(#([^)]+)\)", value)
            if key in ("href", XLINK) and value.startswith("#"):
                targets.append(value[1:])
            for target in targets:
                assert target in ids, f"{key}={value} leads nowhere"


def assert_pictures_have_words(document: ET.Element) -> None:
    """Every figure says in words what it shows, to those who do not see it."""
    for figure in elements(document, "figure"):
        said = [
            node.attrib.get("aria-label", "") for node in figure.iter() if node.attrib.get("role") == "img"
        ]
        assert said, "a figure without role=img"
        assert len(said[0]) > 20, said
        assert said[0].endswith("."), said


def assert_pictures_are(document: ET.Element, n_pictures: int, sites: Sequence[str]) -> None:
    """The spine twice, the map on paper, every chapter's panels; of each site, words and a place in what moves."""
    figures = elements(document, "figure")
    assert [len(elements(figure, "svg")) == 1 for figure in figures[:3]] == [True] * 3
    assert all(elements(figure, "svg") for figure in figures)
    assert len(figures) == n_pictures
    assert [figure.attrib.get("class") for figure in figures] == ["wide", "narrow", "still"] + [None] * (
        n_pictures - 3
    )
    places = [node.attrib["data-bnp"] for node in elements(document, "div") if "data-bnp" in node.attrib]
    assert places == ["map", "layers"]
    (manifest,) = (
        json.loads("".join(script.itertext()))
        for script in elements(document, "script")
        if script.attrib.get("data-bnp") == "manifest"
    )
    calls = [f" (call {layer['call'] + 1})" if layer["call"] else "" for layer in manifest["layers"]]
    moving = [layer["name"] + call for layer, call in zip(manifest["layers"], calls, strict=True)]
    assert moving == list(sites)
    parts = [node for node in elements(document, "section") if "data-layer" in node.attrib]
    assert [int(part.attrib["data-layer"]) for part in parts] == list(range(len(sites)))
    for part, site in zip(parts, sites, strict=True):
        assert text_of(part).startswith(site)
        assert len(elements(part, "table")) == 1, site


def assert_numbers_are_readable(words: str) -> None:
    """No nan, inf or None as a programmer would print them; advice that sets something to None is code, and may."""
    words = re.sub(r"`[^`]+`", _without_none, words)
    found = [words[max(m.start() - 40, 0) : m.end() + 20] for m in RAW.finditer(words)]
    assert not found, found


def _without_none(code: re.Match[str]) -> str:
    """A line of Python without the None it assigns; what is no Python stays as it is."""
    try:
        lines = ast.walk(ast.parse(code[0].strip("`")))
    except SyntaxError:
        return code[0]
    given = [line.value for line in lines if isinstance(line, ast.Assign)]
    assigned = any(isinstance(value, ast.Constant) and value.value is None for value in given)
    return re.sub(r"= None\b", "=", code[0]) if assigned else code[0]


def assert_sound(page: str) -> ET.Element:
    """Everything above, of a whole page."""
    assert page.startswith("<!doctype html>")
    document = parsed(page)
    assert_loads_nothing(document)
    assert_ids_are_sound(document)
    assert_pictures_have_words(document)
    assert_numbers_are_readable(text_of(document))
    return document
