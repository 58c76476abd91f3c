"""Norms that take turns: lists with one norm for each domain, task or width, of which a pass calls one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from bnprobe.rules.edits import remedy
from bnprobe.rules.newness import affine_at_start, fresh
from bnprobe.rules.remedies import recalibrate, recalibration
from bnprobe.rules.rule import Evidence, Finding
from bnprobe.rules.wording import count, first_few

FEWEST_PLACES = 2
"""Lists of which the same norm was not called, for this to be a choice and no part that was forgotten."""

NAMED_AS_NORMS = re.compile(r"norm|bn", re.IGNORECASE)


def _lists(evidence: Evidence) -> dict[str, tuple[set[str], set[str]]]:
    """Lists and dictionaries of norms alone, as their names say: which of their norms were called, and which were not."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    never = evidence.unread["layer"][evidence.unread["why"] == "never called"]
    for i, layers in enumerate((evidence.layers["layer"], never)):
        for layer in map(str, layers):
            parent, _, key = layer.rpartition(".")
            found[parent][i].add(key)
    return {parent: keys for parent, keys in found.items() if _is_list(parent, keys[0] | keys[1])}


def _is_list(parent: str, keys: set[str]) -> bool:
    """Whether what has these names is a list of norms alone: numbers without a gap, or names under that of norms."""
    if len(keys) < 2:
        return False
    if all(key.isdecimal() for key in keys):
        return set(map(int, keys)) == set(range(len(keys)))
    named = bool(NAMED_AS_NORMS.search(parent.rpartition(".")[2]))
    return named and not any(map(NAMED_AS_NORMS.search, keys))


def left_out(evidence: Evidence) -> list[str]:
    """The norms that were not called, as others of the same lists were: the same ones in several places."""
    places: dict[frozenset[str], list[str]] = defaultdict(list)
    for parent, (called, uncalled) in _lists(evidence).items():
        if called and uncalled:
            places[frozenset(uncalled)].append(parent)
    return _in_several(places)


def _in_several(places: dict[frozenset[str], list[str]]) -> list[str]:
    """The norms of these names in lists of which several have the same ones."""
    chosen = [(parents, keys) for keys, parents in places.items() if len(parents) >= FEWEST_PLACES]
    return [f"{parent}.{key}" for parents, keys in chosen for parent in parents for key in sorted(keys)]


def not_chosen(layers: list[str]) -> Finding:
    """What is said of them."""
    return Finding(
        "info",
        layers[0],
        "Lists hold several norms for one place, and this run called others than these.",
        f"no forward pass reached {count(len(layers), 'norm')}: {first_few(layers)}; in each of these places another "
        "norm of the same list was called.",
        "Nothing, if each domain, task or width has norms of its own and this run was of one. Otherwise look at what "
        "chooses between them.",
    )


def never_trained(evidence: Evidence) -> dict[str, str]:
    """Norms that were called as they were made, each with another norm of the same list that was trained."""
    lists = _lists(evidence)
    if not lists:  # mostly, without a look at each norm
        return {}
    trained = _trained(evidence)
    new = {str(row["layer"]) for row, channels in evidence.sites if fresh(row, channels)}
    found = {}
    for parent, (called, uncalled) in lists.items():
        learned = [key for key in sorted(called) if f"{parent}.{key}" not in new]
        learned += [key for key in sorted(uncalled) if f"{parent}.{key}" in trained]
        for key in called:
            if learned and f"{parent}.{key}" in new:
                found[f"{parent}.{key}"] = f"{parent}.{learned[0]}"
    return found


def _trained(evidence: Evidence) -> set[str]:
    """Norms that were not called, and are known to have learned."""
    table = evidence.unread
    return set(table["layer"][table["trained"].astype(bool)]) if "trained" in table else set()


def other_was_trained(evidence: Evidence) -> Iterator[Finding]:
    """The norms of a domain that was never trained, beside those of one that was; once for all places."""
    others = never_trained(evidence)
    rows = [row for row, _ in evidence.sites if row["layer"] in others]
    if not rows:
        return
    row = rows[0]
    in_use = row["normalized_by"] == "running"
    more = [str(other["layer"]) for other in rows[1:]]
    yield Finding(
        "critical" if in_use else "warning",
        row["layer"],
        "These norms were never trained, while others of the same lists were"
        + (": eval mode does not normalize." if in_use else "."),
        f"running_mean is 0 and running_var is 1 in all channels, while {others[row['layer']]} was trained"
        + (f"; so it is at {count(len(more), 'further norm')}: {first_few(more)}." if more else "."),
        "Where each domain, task or width has norms of its own, this one was never called in training, or its norms were "
        "not loaded. Choose the one that was trained and compare the accuracy, or train on such data. Where only the "
        f"running statistics are missing: {recalibrate(row)}.",
        call=row["call"],
        remedy=remedy(recalibration(row)),
    )


def never_learned(evidence: Evidence) -> list[str]:
    """Norms without running statistics whose γ and β are as they were made, the same ones in several lists in which others
    have learned."""
    lists = _lists(evidence)
    if not lists:
        return []
    at_start, learned = set(), set()
    for row, channels in evidence.sites:
        if channels["gamma"].notna().any() and not affine_at_start(channels):
            learned.add(str(row["layer"]))
        elif channels["gamma"].notna().any() and channels["running_var"].isna().all():
            at_start.add(str(row["layer"]))
    places: dict[frozenset[str], list[str]] = defaultdict(list)
    for parent, (called, _) in lists.items():
        untouched = frozenset(key for key in called if f"{parent}.{key}" in at_start)
        if untouched and any(f"{parent}.{key}" in learned for key in called):
            places[untouched].append(parent)
    return _in_several(places)


def not_learned(layers: list[str]) -> Finding:
    """What is said of them."""
    return Finding(
        "warning",
        layers[0],
        "These norms never learned, while others of the same lists did.",
        f"γ is exactly at its initial value in all channels of {count(len(layers), 'norm')}: {first_few(layers)}; in each "
        "of these places another norm of the same list has learned.",
        "Nothing, if each domain, task or width has norms of its own and the network is used for those that were trained. "
        "Otherwise train on such data, or look at what chooses between them.",
    )
