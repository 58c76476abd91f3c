"""What is public: every name of `bnprobe`, with its signature, docstring and members."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import bnprobe

SECTIONS = {
    "Record": ("attach", "record", "Probe", "register_norm", "NormLayer"),
    "Report": ("report", "check", "Report"),
    "Compare": ("compare", "Comparison"),
    "Recordings": ("Recording", "load"),
    "Errors": (
        "BnprobeError",
        "NoNormLayers",
        "CannotProbe",
        "NothingRecorded",
        "BadLabels",
        "BadMask",
        "Interrupted",
    ),
}
"""The order of a first reading; what is public and not named here follows: errors after errors, the rest at the end."""

PARTS = (
    "bnprobe.report.figures.album.Album",
    "bnprobe.measures.stem.StemReading",
    "bnprobe.comparison.first_difference.DifferenceSite",
    "bnprobe.recording.about.About",
)
"""Classes that nobody has to import: attributes of the public ones."""

LINE = 88
"""Characters up to which a signature stays on one line."""


@dataclass(frozen=True)
class Entry:
    """Something public: `name` as it is written ("Probe.labels"), and what stands before it ("class", "property")."""

    name: str
    kind: str
    signature: str
    doc: str
    members: tuple[Entry, ...] = ()

    @property
    def short(self) -> str:
        """Its own name, without the class."""
        return self.name.rpartition(".")[2]

    @property
    def digest(self) -> str:
        """Changes with the signature and the docstring."""
        return hashlib.sha256(f"{self.name}{self.signature}\n{self.doc}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Section:
    """Entries under one heading."""

    title: str
    entries: tuple[Entry, ...]

    @property
    def id(self) -> str:
        """What links to it."""
        return f"section-{self.title.lower().replace(' ', '-')}"


def sections() -> tuple[Section, ...]:
    """Everything public, in the order of the page."""
    left = [name for name in bnprobe.__all__ if not name.startswith("__")]
    named = {title: [name for name in names if name in left] for title, names in SECTIONS.items()}
    others = [name for name in left if not any(name in names for names in named.values())]
    named["Errors"] += [name for name in others if _is_error(getattr(bnprobe, name))]
    named["More"] = [name for name in others if not _is_error(getattr(bnprobe, name))]
    found = [
        Section(title, tuple(_entry(name, getattr(bnprobe, name)) for name in names))
        for title, names in named.items()
        if names
    ]
    return (*found, Section("Other types", tuple(_part(path) for path in PARTS)))


def entries() -> Iterator[Entry]:
    """All of them, members after their class."""
    for section in sections():
        for entry in section.entries:
            yield entry
            yield from entry.members


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _part(path: str) -> Entry:
    module, _, name = path.rpartition(".")
    return _entry(name, getattr(import_module(module), name))


def _entry(name: str, value: Any) -> Entry:
    doc = inspect.getdoc(value) or ""
    if not isinstance(value, type):
        return Entry(name, "function", signature(value), doc)
    made_by_users = name == "NormLayer"
    shown = signature(value) if made_by_users else ""
    return Entry(name, "class", shown, doc, tuple(_members(name, value)))


def _members(name: str, cls: type) -> Iterator[Entry]:
    """Public methods and properties, own ones first, then those of our classes that it derives from."""
    seen = set()
    for owner in cls.__mro__:
        if not owner.__module__.startswith("bnprobe"):
            continue
        for short, value in vars(owner).items():
            if short.startswith("_") or short in seen or not inspect.getdoc(value):
                continue
            seen.add(short)
            if isinstance(value, property | cached_property):
                yield Entry(f"{name}.{short}", "property", _returns(value), inspect.getdoc(value) or "")
            elif inspect.isfunction(value):
                yield Entry(f"{name}.{short}", "method", signature(value), inspect.getdoc(value) or "")


def _returns(value: property | cached_property[Any]) -> str:
    getter = value.fget if isinstance(value, property) else value.func
    return f": {getter.__annotations__['return']}"


class _AsWritten:
    """An annotation that prints as it is written in the source, without quotes."""

    def __init__(self, text: object) -> None:
        self._text = str(text)

    def __repr__(self) -> str:
        return self._text


def signature(function: Any) -> str:
    """Parameters and result as they are written in the source, a line each where they are long."""
    found = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=_AsWritten(parameter.annotation))
        for parameter in found.parameters.values()
        if parameter.name != "self"
    ]
    returns = "" if isinstance(function, type) else f" -> {_result(function, found.return_annotation)}"
    line = f"{inspect.Signature(parameters)}{returns}"
    if len(line) <= LINE:
        return line
    rows = [f"    {row},\n" for row in _rows(parameters)]
    return f"(\n{''.join(rows)}){returns}"


def _result(function: Any, annotation: str) -> str:
    """The annotation; a generator with a wrapper around it is a context manager."""
    inner = inspect.unwrap(function)
    if inner is not function and inspect.isgeneratorfunction(inner):
        return annotation.replace("Iterator", "AbstractContextManager")
    return annotation


def _rows(parameters: list[inspect.Parameter]) -> Iterator[str]:
    starred = False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield str(parameter)
