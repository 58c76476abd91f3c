"""Names of layers short enough to stand in a picture: cut part by part, and never a number in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile

from bnprobe.report.numbers import shorten, visible

Parts = list[tuple[str, ...]]

SHARED = 0.5
"""Share of the names that hold a word before it counts as one that tells nothing apart."""


def short_names(paths: Sequence[str], longest: int) -> list[str]:
    """The paths in at most `longest` letters each.

    Where one is too long, what all begin with is left out; then words that most hold; then the words beside the numbers of
    blocks; then the ends of long words. Names that differ stay different, but for the last of these.
    """
    return list(_shortened(tuple(paths), longest))


@lru_cache(maxsize=8)
def _shortened(paths: tuple[str, ...], longest: int) -> tuple[str, ...]:
    """The same, once for the several pictures of a page."""
    names: Parts = [tuple(visible(path).split(".")) for path in paths]
    for leave_out, room in ((_beginning, 1.0), (_common_words, 1.0), (_words_beside_numbers, 1.25)):
        if max(map(_length, names), default=0) <= room * longest:
            break
        shorter = leave_out(names)
        if len(set(shorter)) == len(set(names)):
            names = shorter
    return tuple(_abbreviated(".".join(parts), longest) for parts in names)


def _length(parts: tuple[str, ...]) -> int:
    return len(".".join(parts))


def _beginning(names: Parts) -> Parts:
    """Without the parts that all begin with."""
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*(name[:-1] for name in names), strict=False))
    n = len(list(alike))
    return [name[n:] for name in names]


def _common_words(names: Parts) -> Parts:
    """Without words that most of them hold before their last part: layers, blocks, encoder."""
    held = Counter(part for name in names for part in set(name[:-1]) if not re.search(r"\d", part))
    common = {part for part, n in held.items() if n > SHARED * len(names)}
    return [(*(part for part in name[:-1] if part not in common), name[-1]) for name in names]


def _words_beside_numbers(names: Parts) -> Parts:
    """With the number alone for parts that most hold alike, as in encoder_layer_0."""
    forms = Counter(form for name in names for form in {re.sub(r"\d+", "#", part) for part in name[:-1]})
    common = {form for form, n in forms.items() if "#" in form and n > SHARED * len(names)}
    number = re.compile(r"\d+")
    return [
        tuple(
            number.findall(part)[-1] if i < len(name) - 1 and number.sub("#", part) in common else part
            for i, part in enumerate(name)
        )
        for name in names
    ]


def _abbreviated(name: str, longest: int) -> str:
    """Words cut until the name is short enough, those of the last part last; numbers stay."""
    *before, last = name.split(".")
    for most in range(longest, 1, -1):
        if len(".".join([*before, last])) > longest:
            before = [_cut(part, most) for part in before]
    for most in range(longest, 1, -1):
        if len(".".join([*before, last])) > longest:
            last = _cut(last, most)
    return shorten(".".join([*before, last]), longest)


def _cut(part: str, most: int) -> str:
    """With words of at most so many letters."""
    return re.sub(
        r"[^\W\d_]+…?", lambda word: word[0] if len(word[0]) <= most else f"{word[0][: most - 1]}…", part
    )
