"""One rule on one recording."""

from __future__ import annotations

import pandas as pd
from measures.sites import recording

from bnprobe.measures import tables
from bnprobe.recording import LayerRecord
from bnprobe.rules import judge


def fired(rule: str, *layers: LayerRecord, **about: object) -> pd.DataFrame:
    """What this rule finds in a recording of these sites."""
    found = judge(tables(recording(*layers, **about)))
    return found[found["rule"] == rule].reset_index(drop=True)
