"""Classes as Python keeps them: an attribute of a class or its metaclass may hide where it comes from, or raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

bases = cast(Callable[[type], tuple[type, ...]], type.__dict__["__mro__"].__get__)
"""A class and all that it is derived from, in the order of their methods."""
members = cast(Callable[[type], Mapping[str, Any]], type.__dict__["__dict__"].__get__)
"""What a class defines itself, by name."""
qualified_name = cast(Callable[[type], str], type.__dict__["__qualname__"].__get__)
"""The name of a class with those around it."""
_name = cast(Callable[[type], str], type.__dict__["__name__"].__get__)
_home = cast(Callable[[type], object], type.__dict__["__module__"].__get__)


def home(cls: type) -> str:
    """The module that defines a class; "" where the class says something that is no text."""
    found = _home(cls)
    return found if type(found) is str else ""


def names_of_bases(thing: object) -> list[str]:
    """The names of the classes that a thing is of, the most derived first."""
    return [_name(cls) for cls in bases(type(thing))]
