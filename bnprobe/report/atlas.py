"""An audit as an atlas: what each checkpoint's norms are like, and which checkpoints are unlike the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.report.audit import FILE, NORM
from bnprobe.stats.moments import Array

FEWEST = 8
"""Checkpoints with one kind of norm from which one of them can stand out."""

FAR = 5.0
"""Robust standard deviations from the median beyond which one stands out: of normal values one in a million."""


@dataclass(frozen=True)
class Quantity:
    """One number of a checkpoint, over its norms of one kind; `ratio` says that it is compared by ratios."""

    name: str
    title: str
    meaning: str
    unit: str = ""
    ratio: bool = True


QUANTITIES = (
    Quantity("gamma", "Typical |γ|", "Median over norms of the median |γ| of a norm.", "|γ|"),
    Quantity("gamma_low", "Smallest |γ|", "Median over norms of the smallest |γ| of a norm.", "min |γ|"),
    Quantity("gamma_high", "Largest |γ|", "Largest |γ| of any norm.", "max |γ|"),
    Quantity("near_zero", "|γ| near 0", "Share of channels with |γ| below 0.01.", "share of channels", ratio=False),
    Quantity("beta", "Typical β", "Median over norms of the median β of a norm.", "β", ratio=False),
    Quantity("var", "Typical running variance", "Median over norms of the median running variance of a norm.", "σ²"),
    Quantity("var_high", "Largest running variance", "Largest running variance of any norm.", "max σ²"),
)  # fmt: skip


def measures(table: pd.DataFrame) -> pd.DataFrame:
    """A row per checkpoint and kind of norm, with the names of QUANTITIES as columns."""
    norms = table[table["row"] == NORM]
    channels = norms["n_channels"].astype("float64")
    norms = norms.assign(
        zeros=norms["gamma_near_zero"] * channels, judged=channels.where(norms["gamma_near_zero"].notna())
    )
    grouped = norms.groupby(["kind", "path"], sort=False)
    found = pd.DataFrame(
        {
            "n_norms": grouped.size(),
            "gamma": grouped["gamma_abs_median"].median(),
            "gamma_low": grouped["gamma_abs_low"].median(),
            "gamma_high": grouped["gamma_abs_high"].max(),
            "near_zero": grouped["zeros"].sum(min_count=1) / grouped["judged"].sum(min_count=1),
            "beta": grouped["beta_median"].median(),
            "var": grouped["running_var_median"].median(),
            "var_high": grouped["running_var_high"].max(),
        }
    )
    return found.reset_index()


def outliers(found: pd.DataFrame) -> pd.DataFrame:
    """What stands out, the farthest first: `path`, `kind`, `quantity`, `value`, `median` of the others, and how `far` from
    it, in robust standard deviations (1.4826 times the median distance from the median), of logarithms for ratios."""
    rows = []
    for kind, one in found.groupby("kind", sort=False):
        for quantity in QUANTITIES:
            values = one[quantity.name].to_numpy(float)
            far = distance(values, quantity.ratio)
            for i in np.flatnonzero(np.abs(far) > FAR):
                median = float(np.nanmedian(values))
                rows.append((one["path"].iloc[i], kind, quantity.title, values[i], median, far[i]))
    table = pd.DataFrame(rows, columns=["path", "kind", "quantity", "value", "median", "far"])
    return table.iloc[np.argsort(-table["far"].abs().to_numpy(float), kind="stable")].reset_index(drop=True)


def distance(values: Array, ratio: bool) -> Array:
    """How far each value lies from the median, signed, in robust standard deviations; NaN where too few values, or too
    many equal ones, say what is usual. Of ratios a value that is not positive is infinitely far below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(values > 0, np.log(values), -np.inf) if ratio else values.astype(float)
    x = np.where(np.isnan(values), np.nan, x)
    if np.isfinite(x).sum() < FEWEST:
        return np.full(len(x), np.nan)
    median = np.nanmedian(x)
    spread = 1.4826 * np.nanmedian(np.abs(x - median))
    if not spread > 0 or not np.isfinite(median):
        return np.full(len(x), np.nan)
    return np.asarray((x - median) / spread)


def files_of(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of files."""
    return table[table["row"] == FILE].reset_index(drop=True)
