"""What the rules found, findings that say the same together, and the page of every rule that found something."""

from __future__ import annotations

import pandas as pd

from bnprobe.recording import Recording
from bnprobe.report.chapters.cards import cards, site_of
from bnprobe.report.numbers import count
from bnprobe.report.page.blocks import Facts, Findings, Prose, Section
from bnprobe.rules.rule_docs import rule_page


def findings_section(
    findings: pd.DataFrame, recording: Recording | None = None, left_out: str = ""
) -> Section:
    """All findings; their places lead to the layers of `recording`. `left_out` says which are not shown."""
    more = (Prose((left_out,)),) if left_out else ()
    return Section("findings", "Findings", (Findings(cards(findings, recording), "No findings."), *more))


def rule_sections(findings: pd.DataFrame) -> tuple[Section, ...]:
    """The page of every rule that found something; a finding's rule id leads here."""
    rules = sorted(set(findings["rule"]))
    if not rules:
        return ()
    parts = tuple(
        Section(f"rule-{rule}", rule, (Facts(tuple(rule_page(rule).items())),), folded=True) for rule in rules
    )
    return (Section("rules", "What the rules mean", (), parts=parts, short="Rules"),)


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
    return f"{site_of(group.iloc[0])}{more}"


def _others(groups: list[pd.DataFrame]) -> str:
    left = len(groups) - 1
    return f" {count(left, 'more finding')} {'is' if left == 1 else 'are'} listed below." if left else ""
