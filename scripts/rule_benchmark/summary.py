"""The tables of the rule benchmark, summed by kind."""

from __future__ import annotations

import pandas as pd

from scripts.rule_benchmark import code_remedies
from scripts.rule_benchmark.dependence import NULL
from scripts.rule_benchmark.remedies import by_rule


def summary(tables: dict[str, pd.DataFrame]) -> tuple[str, bool]:
    """Markdown, and whether nothing was missed and nothing said of what is right.

    `tables` has one or more of planted, cases, healthy, statistics and dependence, as `planted`, `run_cases`, `networks`,
    `statistics` and `dependence` make them.
    """
    lines = ["# What the rules find, miss, and say of what is right", ""]
    lines += [
        "Made by `python -m scripts.rule_benchmark`; a row per look is in the tables beside this file.",
        "",
    ]
    lines += ["| kind | faults | found | missed | right | warned of |", "|---|---|---|---|---|---|"]
    rows = [*_planted(tables), *_cases(tables), *_healthy(tables), *_tokens(tables)]
    rows += [*_statistics(tables), *_dependence(tables), *_code(tables)]
    lines += [f"| {kind} | {' | '.join(str(n) for n in counts)} |" for kind, counts in rows]
    wrong = sum(counts[2] + counts[4] for _, counts in rows)
    tried = by_rule(tables["remedies"]) if "remedies" in tables else []
    if "code" in tables:
        tried += code_remedies.by_rule(tables["code"])
    return "\n".join([*lines, *_named(tables), *tried]) + "\n", wrong == 0


Counts = tuple[int, int, int, int, int]
"""Faults, those found, those missed; looks at what is right, those with a warning."""


def _planted(tables: dict[str, pd.DataFrame]) -> list[tuple[str, Counts]]:
    if "planted" not in tables:
        return []
    rows = []
    for held_out, table in tables["planted"].groupby("held_out"):
        missed = int((table["missed"] != "").sum())
        kind = "planted, held out" if held_out else "planted"
        rows.append((kind, (len(table), len(table) - missed, missed, 0, 0)))
    return rows


def _cases(tables: dict[str, pd.DataFrame]) -> list[tuple[str, Counts]]:
    if "cases" not in tables:
        return []
    rows = []
    for kind, table in tables["cases"].groupby("kind", sort=False):
        n = (
            table["outcome"]
            .value_counts()
            .reindex(["found", "missed", "silent", "false alarm"], fill_value=0)
        )
        found, missed, silent, false = (int(v) for v in n)
        rows.append((f"cases: {kind}", (found + missed, found, missed, silent + false, false)))
    return rows


def _dependence(tables: dict[str, pd.DataFrame]) -> list[tuple[str, Counts]]:
    table = tables.get("dependence")
    if table is None or table.empty:
        return []
    right, off = table["most"] <= NULL[1], ~table["fine"]
    faults, missed = int((~right).sum()), int((off & ~right).sum())
    return [("dependence", (faults, faults - missed, missed, int(right.sum()), int((off & right).sum())))]


def _statistics(tables: dict[str, pd.DataFrame]) -> list[tuple[str, Counts]]:
    """A claim is right until it fails."""
    if "statistics" not in tables:
        return []
    claims = tables["statistics"][tables["statistics"]["holds"] != ""]
    return [("nominal rates", (0, 0, 0, len(claims), int((~claims["fine"]).sum())))]


def _code(tables: dict[str, pd.DataFrame]) -> list[tuple[str, Counts]]:
    """Advice whose code does not run, does not help, or changes more than it says counts as missed."""
    if "code" not in tables:
        return []
    wrong = int((tables["code"]["wrong"] != "").sum())
    return [("code of advice", (len(tables["code"]), len(tables["code"]) - wrong, wrong, 0, 0))]


def _healthy(tables: dict[str, pd.DataFrame]) -> list[tuple[str, Counts]]:
    if "healthy" not in tables:
        return []
    return [
        (f"healthy: {group}", (0, 0, 0, len(table), int((table["rules"] != "").sum())))
        for group, table in tables["healthy"].groupby("group", sort=False)
    ]


def _tokens(tables: dict[str, pd.DataFrame]) -> list[tuple[str, Counts]]:
    table = tables.get("tokens")
    if table is None or table.empty:
        return []
    faults = table["expected"] != ""
    missed = int((table["missing"] != "").sum())
    warned = int((table["others"][~faults] != "").sum())
    return [
        (
            "small transformers",
            (int(faults.sum()), int(faults.sum()) - missed, missed, int((~faults).sum()), warned),
        )
    ]


def _named(tables: dict[str, pd.DataFrame]) -> list[str]:
    """What was missed, and where something was said of what is right, by name."""
    lines = []
    if "planted" in tables:
        bad = tables["planted"][tables["planted"]["missed"] != ""]
        lines += [f"- planted, {row.model}: {row.fault}: {row.missed}" for row in bad.itertuples()]
    if "cases" in tables:
        bad = tables["cases"][tables["cases"]["outcome"].isin(["missed", "false alarm"])]
        lines += [
            f"- {row.outcome}: {row.case}, {row.look}: {row.missing or row.others}"
            for row in bad.itertuples()
        ]
    if "healthy" in tables:
        bad = tables["healthy"][tables["healthy"]["rules"] != ""]
        lines += [f"- false alarm: {row.network} ({row.group}): {row.rules}" for row in bad.itertuples()]
    if "tokens" in tables:
        bad = tables["tokens"][
            (tables["tokens"]["missing"] != "")
            | ((tables["tokens"]["expected"] == "") & (tables["tokens"]["others"] != ""))
        ]
        lines += [
            f"- small transformer, {row.network}, seed {row.seed}: {row.missing or row.others}"
            for row in bad.itertuples()
        ]
    if "statistics" in tables:
        bad = tables["statistics"][~tables["statistics"]["fine"]]
        lines += [
            f"- {row.claim}: {row.found} ± {row.error}, claimed {row.holds} {row.nominal}: {row.setting}, n = {row.images}"
            for row in bad.itertuples()
        ]
    if "dependence" in tables and not tables["dependence"].empty:
        bad = tables["dependence"][~tables["dependence"]["fine"]]
        lines += [
            f"- {row.situation}: {row.counted} {row.mean:.3f} ± {row.error:.3f}" for row in bad.itertuples()
        ]
    return ["", "Not as it should be:", "", *lines] if lines else []
