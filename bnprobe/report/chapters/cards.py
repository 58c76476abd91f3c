"""Findings as cards: those of one rule together, and those of all rules about the same channels that pass nothing on."""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd

from bnprobe.recording import Recording
from bnprobe.recording.names import said
from bnprobe.report.numbers import count, listed, shorten
from bnprobe.report.page.blocks import Action, Bars, Card, Overlap, Place, Source
from bnprobe.report.vocabulary import EVIDENCE
from bnprobe.rules.remedies import for_all
from bnprobe.rules.tried import of_all

MOST_CHANNELS = 6
"""Channels of a place that are listed one by one."""

SAME = 0.5
"""Share of the smaller set of channels that two rules must have in common to be about the same."""

WITHOUT_SIGNAL = frozenset(EVIDENCE)
"""Rules about channels that pass nothing on, which are one card where they are about the same channels."""

FULL, LEAST = 0.25, 0.1
"""Share of a norm's channels at which its bar is full, and the least height of a bar, so that one of many is seen."""

Channel = tuple[str, int, int]
"""Layer, call and channel."""


def cards(findings: pd.DataFrame, recording: Recording | None = None) -> tuple[Card, ...]:
    """The cards, the most severe first, as the findings are; their places lead to the layers of `recording`."""
    severities = list(dict.fromkeys(findings["severity"]))
    of_rule = [rows for _, rows in findings.groupby("rule", sort=False)]
    made = [_card(pd.concat(group), severities, recording) for group in _about_the_same(of_rule)]
    return tuple(sorted(made, key=lambda card: severities.index(card.severity)))


def site_of(row: pd.Series) -> str:
    """The layer of a finding, as its places name it."""
    return said(shorten(row["layer"], 60), row["call"]) if row["layer"] else "the whole run"


def _about_the_same(of_rule: list[pd.DataFrame]) -> list[list[pd.DataFrame]]:
    """Rules about channels without a signal together where they share most of them, in the order of the first."""
    groups: list[tuple[set[Channel], list[pd.DataFrame]]] = []
    for rows in of_rule:
        mine = _channels(rows) if rows["rule"].iloc[0] in WITHOUT_SIGNAL else set()
        for theirs, group in groups:
            if mine and len(mine & theirs) >= SAME * min(len(mine), len(theirs) or 1):
                group.append(rows)
                theirs |= mine
                break
        else:
            groups.append((mine, [rows]))
    return [group for _, group in groups]


def _channels(rows: pd.DataFrame) -> set[Channel]:
    places = zip(rows["layer"], rows["call"], rows["channels"], strict=True)
    return {(layer, int(call), int(c)) for layer, call, channels in places for c in channels}


def _card(rows: pd.DataFrame, severities: list[str], recording: Recording | None) -> Card:
    by_rule = {str(rule): of_rule for rule, of_rule in rows.groupby("rule", sort=False)}
    records = recording.layers if recording else ()
    position = {(record.layer, record.call): i for i, record in enumerate(records)}
    return Card(
        severity=min(rows["severity"], key=severities.index),
        title=_title(by_rule, recording),
        rules=tuple(by_rule),
        places=tuple(_place(here, rows, position) for _, here in rows.groupby(["layer", "call"], sort=False)),
        actions=_actions(by_rule),
        sources=tuple(dict.fromkeys(one for text in rows["source"].unique() for one in sources(text))),
        strip=_strip(rows, recording),
        overlap=_overlap(by_rule) if len(by_rule) > 1 else None,
    )


def _title(by_rule: dict[str, pd.DataFrame], recording: Recording | None) -> str:
    """The sentence of the first rule, with how many channels it is about."""
    of_all = f" of {sum(record.n_channels for record in recording.layers):,}" if recording else ""
    if len(by_rule) > 1:
        n = len(set().union(*map(_channels, by_rule.values())))
        return f"{n:,}{of_all} channel{'s' * (n > 1)} {_without_signal(by_rule, recording)}."
    rows = next(iter(by_rule.values()))
    n, says = len(_channels(rows)), str(rows["says"].iloc[0])
    counted = rows["says"].str.fullmatch("(Some|All) channels .*").all() and n > 1
    return re.sub("^(Some|All) channels", f"{n:,}{of_all} channels", says) if counted else says


def _without_signal(by_rule: dict[str, pd.DataFrame], recording: Recording | None) -> str:
    """How sure it is that these channels pass nothing on: γ near 0 always does it, and a dead one before a ReLU."""
    unsure = {"channels-silent", *(["channels-dead"] if recording and recording.weights_only else [])}
    certain = set().union(*(_channels(rows) for rule, rows in by_rule.items() if rule not in unsure))
    if set().union(*map(_channels, by_rule.values())) == certain:
        return "pass no signal on"
    return (
        "passed no signal on, as far as these data show"
        if "channels-silent" in by_rule
        else "may pass no signal on"
    )


def _place(here: pd.DataFrame, rows: pd.DataFrame, position: dict[tuple[str, int], int]) -> Place:
    """One layer with all that was found there."""
    first = here.iloc[0]
    channels = sorted({int(c) for of_row in here["channels"] for c in of_row})
    several, alike = rows["rule"].nunique() > 1, rows["says"].nunique() == 1
    if several:
        each = [f"{EVIDENCE[row['rule']]}: {row['because'].rstrip('.')}" for _, row in here.iterrows()]
        because = f"{'; '.join(each)}."
    else:
        because = " ".join(
            dict.fromkeys(
                row["because"] if alike else f"{row['says']} {row['because']}" for _, row in here.iterrows()
            )
        )
    at = position.get((first["layer"], first["call"]), -1), channels[0] if len(channels) == 1 else -1
    return Place(f"{site_of(first)}{_which(channels)}", because, at)


def _which(channels: list[int]) -> str:
    """The channels of a place; of many their number, so that "and 5 more" can only mean places."""
    if not channels:
        return ""
    if len(channels) > MOST_CHANNELS:
        return f", {count(len(channels), 'channel')} ({', '.join(map(str, channels[:3]))}, …)"
    *more, last = map(str, channels)
    return f", channels {', '.join(more)} and {last}" if more else f", channel {last}"


def _actions(by_rule: dict[str, pd.DataFrame]) -> tuple[Action, ...]:
    """What to do at all places: where one line of code does not serve all of them, several."""
    found: dict[str, Action] = {}
    for rule, rows in by_rule.items():
        kinds = for_all(tuple(rows["do"]))
        for places, do in kinds:
            here = rows.iloc[list(places)]
            where = [EVIDENCE[rule]] if len(by_rule) > 1 else []
            where += [listed([site_of(row) for _, row in here.iterrows()], 2)] if len(kinds) > 1 else []
            tried = of_all(tuple(here["tried"])) if "tried" in here else ""
            found.setdefault(do, Action(do, ", ".join(where), tried))
    return tuple(found.values())


_SOURCE = re.compile(r"; |, (?=https://)")
_ADDRESS = re.compile(r"https://[^\s,;]+|arXiv:[\d.]+\d")


def sources(text: str) -> tuple[Source, ...]:
    """A rule's source, taken apart: each paper or thread with its address, if it has one."""
    found = []
    for words in _SOURCE.split(text):
        address = _ADDRESS.search(words)
        link = "" if not address else address[0].replace("arXiv:", "https://arxiv.org/abs/")
        short = re.sub(r"https://github\.com/([\w.-]+/[\w.-]+)/(?:issues|pull)/(\d+)", r"\1#\2", words)
        found.append(Source(short.replace("https://", ""), link))
    return tuple(found)


def _strip(rows: pd.DataFrame, recording: Recording | None) -> Bars:
    """A bar per norm: the share of its channels that are concerned, or full where it is the norm itself."""
    if recording is None or len(recording.layers) < 2 or not (rows["layer"] != "").any():
        return ()
    whole = {(row["layer"], row["call"]) for _, row in rows.iterrows() if not len(row["channels"])}
    n_of = Counter((layer, call) for layer, call, _ in _channels(rows))
    bars = []
    for record in recording.layers:
        site = (record.layer, record.call)
        share = 1.0 if site in whole else n_of[site] / record.n_channels / FULL
        bars.append(min(max(share, LEAST), 1.0) if share else None)
    return tuple(bars)


def _overlap(by_rule: dict[str, pd.DataFrame]) -> Overlap:
    """How many channels have which of the findings, the most frequent first."""
    sets = [_channels(rows) for rows in by_rule.values()]
    counted = Counter(tuple(channel in one for one in sets) for channel in set().union(*sets))
    return Overlap(tuple(EVIDENCE[rule] for rule in by_rule), tuple(counted.most_common()))
