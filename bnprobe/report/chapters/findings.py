"""What the rules found, findings that say the same together, and the page of every rule that found something."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bnprobe.recording import Recording
from bnprobe.recording.names import said
from bnprobe.report.numbers import count, shorten
from bnprobe.report.page.blocks import Facts, FindingGroup, Findings, Prose, Section
from bnprobe.rules.remedies import for_all
from bnprobe.rules.rule_docs import rule_page
from bnprobe.rules.tried import of_all

MOST_CHANNELS = 6
"""Channels of a place that are listed one by one."""


def findings_section(
    findings: pd.DataFrame, recording: Recording | None = None, left_out: str = ""
) -> Section:
    """All findings; their places lead to the layers of `recording`. `left_out` says which are not shown."""
    more = (Prose((left_out,)),) if left_out else ()
    return Section("findings", "Findings", (_grouped(findings, recording), *more))


def rule_sections(findings: pd.DataFrame) -> tuple[Section, ...]:
    """The page of every rule that found something; a finding's rule id leads here."""
    rules = sorted(set(findings["rule"]))
    if not rules:
        return ()
    parts = tuple(
        Section(f"rule-{rule}", rule, (Facts(tuple(rule_page(rule).items())),), folded=True) for rule in rules
    )
    return (Section("rules", "What the rules mean", (), parts=parts),)


def _grouped(findings: pd.DataFrame, recording: Recording | None) -> Findings:
    """Findings that say the same are shown once, with all their places; these lead to the layers of `recording`."""
    layers = recording.layers if recording else ()
    position = {(record.layer, record.call): i for i, record in enumerate(layers)}
    groups = [
        FindingGroup(
            severity=str(severity),
            rule=str(rule),
            says=str(says),
            places=tuple(_place(row) for _, row in group.iterrows()),
            because=tuple(group["because"]),
            do=for_all(tuple(group["do"])),
            source=group["source"].iloc[0],
            at=tuple(_at(row, position) for row in group[["layer", "call", "channels"]].to_dict("records")),
            tried=of_all(tuple(group["tried"])) if "tried" in group else "",
        )
        for (severity, rule, says), group in findings.groupby(["severity", "rule", "says"], sort=False)
    ]
    return Findings(tuple(groups), "No findings.")


def worst_finding(findings: pd.DataFrame) -> str:
    """The first warning or worse in words, with where it holds and how many others there are; empty without any."""
    groups = _serious(findings)
    if not groups:
        return ""
    first = groups[0].iloc[0]
    where = f" (at {_places(groups[0])})" if first["layer"] else ""
    says = str(first["says"]).removesuffix(".")
    return f"{str(first['severity']).capitalize()}: {says}{where}.{_others(groups)}"


def where_worst(findings: pd.DataFrame) -> str:
    """Where the first warning or worse holds, and how many others there are, as sentences of their own."""
    groups = _serious(findings)
    where = f"At {_places(groups[0])}." if groups[0]["layer"].iloc[0] else ""
    return f"{where}{_others(groups)}".strip()


def _serious(findings: pd.DataFrame) -> list[pd.DataFrame]:
    """Warnings and worse, those that say the same together."""
    serious = findings[findings["severity"] != "info"]
    return [group for _, group in serious.groupby(["severity", "rule", "says"], sort=False)]


def _places(group: pd.DataFrame) -> str:
    n = len(group) - 1
    more = f" and {count(n, 'other place')}" if n else ""
    return f"{_site(group.iloc[0])}{more}"


def _others(groups: list[pd.DataFrame]) -> str:
    left = len(groups) - 1
    return f" {count(left, 'more finding')} {'is' if left == 1 else 'are'} listed below." if left else ""


def _at(row: dict[Any, Any], position: dict[tuple[str, int], int]) -> tuple[int, int]:
    """Layer and channel of a finding, -1 where it is about none, or about several channels."""
    channels = row["channels"]
    return position.get((row["layer"], row["call"]), -1), int(channels[0]) if len(channels) == 1 else -1


def _place(row: pd.Series) -> str:
    channels = list(row["channels"])
    return f"{_site(row)}{_which(channels)}" if row["layer"] else "the whole run"


def _which(channels: list[int]) -> str:
    """The channels of a place; of many their number, so that "and 5 more" can only mean places."""
    if not channels:
        return ""
    if len(channels) > MOST_CHANNELS:
        return f", {count(len(channels), 'channel')} ({', '.join(map(str, channels[:3]))}, …)"
    *more, last = map(str, channels)
    return f", channels {', '.join(more)} and {last}" if more else f", channel {last}"


def _site(row: pd.Series) -> str:
    return said(shorten(row["layer"], 60), row["call"])
