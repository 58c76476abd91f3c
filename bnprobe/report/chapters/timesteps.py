"""Timesteps of a diffusion model: how far they decide on what modulates its norms, and on what the norms divide by."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.norm_roles import names_by_role
from bnprobe.measures.timesteps import share_of_time, timesteps
from bnprobe.recording import Recording
from bnprobe.report.chapters.chapter import all_norms, norms, unit_of
from bnprobe.report.colours import EXPECTED, MEASURED, MUTED, ROSE, VIOLET
from bnprobe.report.figures.specs import Curve, Plot, Plots
from bnprobe.report.numbers import number, share
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.stats.timesteps import GATE, LOGARITHMIC, PARTS, SCALE, SHIFT

TITLE = "What does the timestep change?"

FOLLOWS, IGNORES = 0.5, 0.01
"""Shares of the variance of what modulates a typical norm, from which on it follows timesteps, and below which not."""

COLOURS = {SCALE: MEASURED, SHIFT: EXPECTED, GATE: VIOLET}


def chapter(recording: Recording, tables: Tables) -> tuple[Section, ...]:
    """The section; none where the model was given no timesteps."""
    table = timesteps(recording)
    if table.empty:
        return ()
    words = [*_modulated(recording, table), *_groups(tables, table)]
    figures = (_figure(table),) if table["low"].nunique() > 1 else ()
    return (Section("timesteps", TITLE, (Prose(tuple(words)), *figures), short="Timesteps"),)


def _modulated(recording: Recording, table: pd.DataFrame) -> list[str]:
    """How far timesteps decide on scales, shifts and gates."""
    found = [record.timesteps for record in recording.layers if record.timesteps is not None]
    modulated = [stats for stats in found if stats.sums is not None]
    if not modulated:
        return []
    n = len(modulated)
    which = all_norms(n) if n == len(recording.layers) else norms(n)
    words = []
    if (
        (table[GATE].dropna() == 0).all()
        and (table[f"{GATE}_sd"].dropna() == 0).all()
        and table[GATE].notna().any()
    ):
        words.append(
            "Every gate is 0 at every timestep, so no branch with a gate adds anything, as in a new network."
        )
    shares = {part: np.array([share_of_time(stats, part) for stats in modulated]) for part in PARTS}
    typical = {
        part: float(np.nanmedian(of_norms))
        for part, of_norms in shares.items()
        if np.isfinite(of_norms).any()
    }
    if not typical:
        return [*words, f"What modulates {which} is the same at every timestep that was seen."]
    said = [f"{share(value)} of that of {part}s" for part, value in typical.items()]
    said[0] = said[0].replace("that", "the variance", 1)
    verdict = (
        "follows the timestep"
        if max(typical.values()) >= FOLLOWS
        else "does not depend on the timestep"
        if max(typical.values()) < IGNORES
        else "depends on the timestep in part"
    )
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return [
        *words,
        f"What modulates {which} {verdict}: {listed} lies between timesteps (typical norm); the rest lies between "
        f"{unit_of(recording)}s of one bucket of timesteps.",
    ]


def _groups(tables: Tables, table: pd.DataFrame) -> list[str]:
    """By how much the standard deviations change that norms divide by."""
    known = table[table["group_sd"] > 0]
    n_buckets = table["low"].nunique()
    if n_buckets < 2:
        ends = f"between {number(table['low'].min())} and {number(table['high'].max())}"
        return [f"All timesteps lie {ends}, in one bucket: what they change cannot be said."]
    if known.empty:
        return []
    by_group = known.groupby(["layer", "call", "group"], sort=False)["group_sd"]
    factors = (by_group.max() / by_group.min()).groupby(level=["layer", "call"], sort=False).median()
    names = names_by_role(tables.layers)
    at = list(zip(tables.layers["layer"], tables.layers["call"], strict=True)).index(
        tuple(factors.index[int(np.argmax(factors))])
    )
    most = f"; most at {names[at]}, {number(float(factors.max()), 2)}-fold" if len(factors) > 1 else ""
    return [
        f"The standard deviation that the typical norm divides by changes {number(float(factors.median()), 2)}-fold over "
        f"{n_buckets} buckets of timesteps{most}."
    ]


def _figure(table: pd.DataFrame) -> Figure:
    """The typical size of what modulates the norms, and what they divide by, over timesteps."""
    log_x = bool(table["argument"].isin(LOGARITHMIC).all())
    x_label = str(table["argument"].iloc[0])
    plots = []
    curves = [
        _curve(table, _size(table, part), 0.5, part, COLOURS[part])
        for part in PARTS
        if table[part].notna().any()
    ]
    if curves:
        plots.append(
            Plot(
                "what modulates the norms, typical size",
                x_label,
                "root mean square",
                tuple(curves),
                log_x=log_x,
            )
        )
    relative = _relative(table)
    if relative.notna().any():
        ends = (
            (0.5, "typical group", MEASURED),
            (0.05, "5% of the groups", MUTED),
            (0.95, "95% of the groups", ROSE),
        )
        curves = [_curve(table, relative, q, label, colour) for q, label, colour in ends]
        title, unit = "standard deviation that norms divide by", "relative to its mean"
        plots.append(Plot(title, x_label, unit, tuple(curves), log_x=log_x, log_y=True))
    return Figure(
        "timesteps",
        f"What modulates the norms, and what they divide by, over {table['low'].nunique()} buckets of timesteps.",
        Plots(tuple(plots)),
        "`report.timesteps` has every norm and group.",
    )


def _size(table: pd.DataFrame, part: str) -> pd.Series:
    """The root mean square of a modulation."""
    return (table[part] ** 2 + table[f"{part}_sd"] ** 2) ** 0.5


def _relative(table: pd.DataFrame) -> pd.Series:
    """The standard deviation of each group relative to its geometric mean over timesteps."""
    logs = pd.Series(np.log(table["group_sd"].where(table["group_sd"] > 0).to_numpy(float)), table.index)
    centre = logs.groupby([table["layer"], table["call"], table["group"]]).transform("mean")
    return pd.Series(np.exp((logs - centre).to_numpy(float)), table.index)


def _curve(table: pd.DataFrame, values: pd.Series, q: float, label: str, colour: str) -> Curve:
    """A quantile of values by bucket, at the mean of its timesteps."""
    x = table.groupby("low")["timestep"].mean()
    y = values.groupby(table["low"]).quantile(q)
    return Curve(x.to_numpy(float), y.reindex(x.index).to_numpy(float), label, colour)
