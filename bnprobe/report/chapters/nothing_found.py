"""What a page says where no rule warns; of weights alone, what was checked, and what takes data to say."""

from __future__ import annotations

import pandas as pd

from bnprobe.measures import Tables
from bnprobe.recording.names import WEIGHTS_ONLY
from bnprobe.report.chapters.chapter import norms
from bnprobe.report.chapters.tokens import sink
from bnprobe.report.numbers import count
from bnprobe.report.page.blocks import Headline

PLURAL = {"γ": "γ", "β": "β", "running_mean": "running means", "running_var": "running variances"}
"""What norms store, by its name in the table of layers, and what sentences call it."""


def nothing_found(tables: Tables, findings: pd.DataFrame) -> Headline:
    """The headline: of weights alone it is no good news, as nothing is known of data."""
    title = nothing_serious(findings, tables.layers)
    if _no_data(tables.layers):
        detail = checked(tables)
        return Headline("unknown", title.removesuffix("."), detail, f"{title} {detail}")
    return Headline("good", title.removesuffix("."), " ".join(sink(tables.layers)), title)


def nothing_serious(findings: pd.DataFrame, layers: pd.DataFrame) -> str:
    """That no rule warns, and how many have notes all the same."""
    notes = findings["rule"].nunique()
    weights = _no_data(layers)
    if notes:
        listed = f"{count(notes, 'note')} {'is' if notes == 1 else 'are'} listed below."
        return f"No rule warns{' about the weights' if weights else ''}; {listed}"
    return f"No rule found a problem{' in the weights' if weights else ''}."


def checked(tables: Tables) -> str:
    """One sentence: the vectors that were looked at, and the questions that are open."""
    stored = ", ".join(tables.layers["stores"])
    *some, last = [words for name, words in PLURAL.items() if name in stored] or ["vectors"]
    looked = f"{', '.join(some)} and {last}" if some else last
    unknown = "whether data match them" if "running_var" in stored else "how large inputs are"
    return (
        f"Only {looked} of {norms(tables.layers['layer'].nunique())} could be checked; {unknown}, and which channels work "
        "on data, cannot be said without data."
    )


def _no_data(layers: pd.DataFrame) -> bool:
    return bool((layers["mode"] == WEIGHTS_ONLY).all())
