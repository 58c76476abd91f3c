"""Five questions about the network, each answered in a few words and by a bar per norm on a fixed scale."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bnprobe.measures import Tables
from bnprobe.recording import Recording
from bnprobe.recording.names import NEVER_UPDATED, SAME, SHIFTED, TOO_FEW, VECTORS
from bnprobe.report.chapters.chapter import unit_of
from bnprobe.report.chapters.headline import begun, fresh, judged_layers, mildly, untrained
from bnprobe.report.chapters.spine import FARTHEST, MOST_SILENT, on_scale
from bnprobe.report.chapters.working import working
from bnprobe.report.figures.from_tables import of
from bnprobe.report.numbers import count, number
from bnprobe.report.page.blocks import Tile, Tiles, bars
from bnprobe.rules.rule import unsound
from bnprobe.rules.thresholds import Limits
from bnprobe.rules.tokens import overflowing_squares

LARGEST_GAMMA = 2.0
"""|γ| of a full bar: that of an untrained norm is half as high."""

NEAR_ONE = 0.05
"""Distance of a typical |γ| from 1 below which two digits would not tell it from that of an untrained norm."""

LARGEST_HALF = 65504.0
"""Number that float16 ends at: a norm whose values are as large has a full bar, one whose are 1 or less an empty one."""


def tiles(recording: Recording, tables: Tables, linked: Iterable[str]) -> Tiles:
    """The questions in their order; `linked` are the sections that they may lead to."""
    there = set(linked)
    found = (
        _trained(tables),
        _match(recording, tables),
        _channels(tables),
        _signal(tables),
        _numerics(tables),
    )
    return Tiles(
        tuple(
            tile if tile.link in there else Tile(tile.question, tile.state, tile.says, tile.bars, tile.high)
            for tile in found
        ),
        "One bar per norm, in the order in which the data reach them.",
    )


def _trained(tables: Tables) -> Tile:
    heights = bars(of(tables.layers, "gamma_abs_median") / LARGEST_GAMMA)
    if untrained(tables):
        return Tile("Trained?", "untrained", "no", heights, link="network")
    if begun(tables):
        return Tile("Trained?", "untrained", "only just begun", heights, link="network")
    gamma = tables.channels["gamma"].abs()
    known = gamma[gamma < np.inf]
    if known.empty and tables.layers["stores"].str.contains("γ").any():
        return Tile("Trained?", "unknown", "not known: no γ is finite", heights, link="network")
    typical = float(known.median())  # of channels, as the answer says it
    says = "yes" if np.isnan(typical) else f"yes: typical |γ| {number(typical, 2)}; untrained it is 1"
    if abs(typical - 1) < NEAR_ONE:
        low, high = known.quantile([0.05, 0.95])
        says = f"yes: |γ| {number(low)} to {number(high)}; untrained it is 1"
    return Tile("Trained?", "good", says, heights, link="network")


def _match(recording: Recording, tables: Tables) -> Tile:
    question = "Data match?"
    layers = tables.layers
    if recording.weights_only:
        return Tile(question, "unknown", "not measured: needs data")
    verdicts = layers["verdict"]
    judged = layers[verdicts.isin((SAME, *SHIFTED))]
    n = int(judged["verdict"].isin(SHIFTED).sum())
    if judged.empty:
        few, never = (verdicts == TOO_FEW).any(), (verdicts == NEVER_UPDATED).any()
        why = (
            f"too few {unit_of(recording)}s to tell"
            if few
            else "running statistics were never updated"
            if never
            else "no running statistics to match"
        )
        return Tile(question, "unknown", why, link="running-stats")
    distance = np.where(verdicts.isin((SAME, *SHIFTED)), of(layers, "w2_rms"), np.nan)
    high = tuple(bool(verdict in SHIFTED) for verdict in verdicts)
    n_left = int((verdicts == TOO_FEW).sum())
    left = " judged" * bool(n_left)
    if not n:
        rest = f"too few {unit_of(recording)}s for the others"
        says = f"yes at {len(judged):,} of {len(judged) + n_left:,} norms, {rest}" if n_left else "yes"
        state = "unknown" if n_left > len(judged) else "good"
        return Tile(question, state, says, bars(distance / FARTHEST), link="running-stats")
    shifted = judged_layers(tables)
    shifted = shifted[shifted["verdict"].isin(SHIFTED)]
    state = "notice" if mildly(shifted) else "warning"
    return Tile(
        question,
        state,
        f"off at {n:,} of {len(judged):,} norms{left}",
        bars(distance / FARTHEST),
        high,
        "running-stats",
    )


def _channels(tables: Tables) -> Tile:
    question = "Channels work?"
    if fresh(tables):
        return Tile(question, "unknown", "not yet: training decides", link="roles")
    found = working(tables.channels)
    if not found.n_known:
        return Tile(question, "unknown", "not known: no activation follows directly", link="roles")
    n, total = found.n_silent, found.n_channels
    unknown = f"; {total - found.n_known:,} unknown" if found.n_known < total else ""
    by_weights = "" if tables.channels["fires"].notna().any() else " by their weights"
    says = f"{n:,} of {total:,} do not" if n else f"yes, all {found.n_known:,}{by_weights}"
    says += unknown
    high = tuple(bool(share > MOST_SILENT) for share in found.shares)
    state = "good" if not n else "notice" if n / total < MOST_SILENT else "warning"
    return Tile(question, state, says, bars(found.shares / MOST_SILENT), high, "roles")


def _signal(tables: Tables) -> Tile:
    question = "Signal by depth"
    own, seen = of(tables.layers, "own_sd"), of(tables.layers, "pre_sd_median")
    sizes = np.where(np.isfinite(own), own, seen)
    known = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not known.size:
        return Tile(question, "unknown", "not measured: needs data")
    low, high = (number(float(size), 2) for size in (known.min(), known.max()))
    says = f"std of the inputs: {low}" if low == high else f"std of the inputs: {low} to {high}"
    gradients = _gradients(of(tables.layers, "grad_out"))
    link = "gradients" if gradients else "network"
    return Tile(question, "plain", f"{says}{gradients}", bars(on_scale(sizes)), link=link)


def _gradients(lengths: NDArray[np.float64]) -> str:
    """How far the lengths of the gradient at several norms lie apart, to follow what is said of the inputs."""
    known = lengths[np.isfinite(lengths) & (lengths > 0)]
    if not known.size:
        return ""
    if known.size == 1:
        return "; its gradient was recorded"
    return f"; gradients within a factor of {number(float(known.max() / known.min()), 2)}"


def _numerics(tables: Tables) -> Tile:
    question = "Numbers safe?"
    layers = tables.layers
    bad = int(layers["n_nonfinite"].sum())
    if bad:
        return Tile(question, "critical", f"{bad:,} not finite", link="findings")
    if broken := _not_finite(tables):
        return Tile(
            question,
            "critical",
            f"no: stored values of {count(broken, 'norm')} are not finite",
            link="findings",
        )
    headroom = of(layers, "half_headroom")
    known = headroom[np.isfinite(headroom)]
    if not known.size:
        return Tile(question, "unknown", "not measured")
    enough = Limits().half_headroom
    heights = bars(1 - np.log(headroom.clip(min=1)) / np.log(LARGEST_HALF))
    squares = overflowing_squares(layers).to_numpy()
    high = tuple(bool(room < enough or over) for room, over in zip(headroom, squares, strict=True))
    least = float(known.min())
    largest = f"largest value {number(LARGEST_HALF / least, 2)}, and float16 ends at {LARGEST_HALF:,.0f}"
    if least < 1:
        state, says = "warning", "float16 would overflow"
    elif squares.any():
        state, says = "notice", f"not in float16: squares overflow at {count(int(squares.sum()), 'norm')}"
    elif least < enough:
        state, says = "notice", f"only just: {largest}"
    else:
        state, says = "good", f"yes: {largest}"
    return Tile(question, state, says, heights, high, "network")


def _not_finite(tables: Tables) -> int:
    """Norms with a stored value that is NaN or infinite."""
    channels, layers = tables.channels, tables.layers
    site = [channels["layer"], channels["call"]]
    stores = layers.set_index(["layer", "call"])["stores"]
    bad = pd.Series(False, index=stores.index)
    for name, said in VECTORS.items():
        there = stores.str.contains(said, regex=False)
        bad |= unsound(channels, name).groupby(site).any().reindex(stores.index, fill_value=False) & there
    return int(bad.sum())
