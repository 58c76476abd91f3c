"""What is said of the cases of real users: found, missed, and said of what is right."""

from __future__ import annotations

import importlib.util
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from scripts.rule_benchmark.cases import CASES, Case


def rows_of(case: Case) -> list[dict[str, Any]]:
    """A row per look: what was expected, what is missing, and what else is said at warning or above."""
    rows = []
    for look in case.looks():
        rows.append(
            {
                "kind": case.kind,
                "case": case.name,
                "source": case.source,
                "look": look.title,
                "at_fault": look.at_fault,
                "expected": "; ".join(must.rule for must in look.musts),
                "missing": "; ".join(look.missing),
                "others": "; ".join(look.others),
                "outcome": outcome(look.at_fault, look.missing, look.others),
            }
        )
    return rows


def outcome(at_fault: bool, missing: list[str], others: list[str]) -> str:
    """One word per look: a fault is found or missed, what is right is silent or gets a false alarm."""
    if at_fault:
        return "missed" if missing else "found"
    return "false alarm" if others else "silent"


def run_cases(only: str = "") -> pd.DataFrame:
    """All cases whose name, kind or source holds `only`; those that need an absent package are left out, and named."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: a case says the same every time
    rows = []
    wanted = [case for case in CASES if any(only in text for text in (case.name, case.kind, case.source))]
    for case in tqdm(wanted, desc="cases", unit="case", disable=None):
        if case.needs and importlib.util.find_spec(case.needs) is None:
            print(f"left out: {case.name} (needs {case.needs})")
            continue
        rows += rows_of(case)
    torch.set_num_threads(threads)
    return pd.DataFrame(rows)
