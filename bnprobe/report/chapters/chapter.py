"""What a chapter is given, and what it says where the recording lacks what it needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.recording import Recording, site_name
from bnprobe.report.numbers import count, shorten

LONGEST = 48
"""Letters of a layer's name in a sentence."""

NO_DATA = "no data went through the network"


KINDS = {
    "batch_norm": "batch norm",
    "layer_norm": "layer norm",
    "group_norm": "group norm",
    "instance_norm": "instance norm",
    "rms_norm": "RMS norm",
    "unknown_norm": "norm-like layer",
}
"""Kinds of norms as sentences call them; a registered kind goes by its own name."""


@dataclass(frozen=True)
class Material:
    """The recording and the tables made of it."""

    recording: Recording
    tables: Tables


@dataclass(frozen=True)
class Absent:
    """A chapter that cannot be written: its title, and why not, in a few words that end without a stop."""

    title: str
    why: str


def named(row: pd.Series) -> str:
    """The site of a row of the table of layers, as sentences name it."""
    return site_name(shorten(row["layer"], LONGEST), row["call"])


def highest(frame: pd.DataFrame, column: str) -> pd.Series:
    """The row with the largest value of a column that has one."""
    return frame.iloc[int(np.nanargmax(frame[column].to_numpy(dtype=np.float64)))]


def lowest(frame: pd.DataFrame, column: str) -> pd.Series:
    """The row with the smallest value of a column that has one."""
    return frame.iloc[int(np.nanargmin(frame[column].to_numpy(dtype=np.float64)))]


def norms(n: int) -> str:
    """So many norms."""
    return count(n, "norm")
