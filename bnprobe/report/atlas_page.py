"""The page of an audit: how the norms of many checkpoints are distributed, and which checkpoints are unlike the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.report.atlas import FAR, FEWEST, QUANTITIES, Quantity, distance, files_of, measures, outliers
from bnprobe.report.colours import EXPECTED
from bnprobe.report.figures.specs import Curve, Plot, Plots
from bnprobe.report.numbers import count, listed, number, share, shorten
from bnprobe.report.page.blocks import Block, Cell, Figure, Headline, Page, Prose, Section, Table
from bnprobe.rules.wording import kind_words
from bnprobe.severity import SEVERITIES
from bnprobe.stats.moments import Array
from bnprobe.version import __version__

MOST_ROWS = 1000
"""Checkpoints in a table of the page; the audit's own table has all."""

MOST_OUTLIERS = 100

MOST_POINTS = 400
"""Steps of a drawn distribution."""

FEW_PLOTS = 3
"""Distributions that a phone shows, those with a checkpoint that stands out first; the table has all."""

QUANTILES = (("least", 0.0), ("5%", 0.05), ("median", 0.5), ("95%", 0.95), ("most", 1.0))


def page(table: pd.DataFrame, name: str) -> Page:
    """The whole page of an audit's table, which is called `name`."""
    files, found = files_of(table), measures(table)
    unlike = outliers(found)
    kinds = found["kind"].value_counts()
    sections = [Section("answer", "The answer", tuple(_answer(files, unlike)))]
    if len(unlike):
        sections.append(Section("outliers", "Unlike the others", (_outliers(unlike),), short="Outliers"))
    for i, kind in enumerate(kinds.index):
        sections.append(_distributions(str(kind), found[found["kind"] == kind], folded=i > 0))
    every = _files(files, found, unlike)
    hint = "the most serious first"
    sections.append(Section("files", "Every checkpoint", (every,), folded=True, hint=hint, short="Files"))
    sections += _not_read(files)
    return Page(
        title=f"{count(len(files), 'checkpoint')}: what their norms hold",
        lead=f"{count(int(found['n_norms'].sum()), 'normalization layer')} in {shorten(name, 60)}, weights only.",
        sections=tuple(sections),
        footer=f"Made by bnprobe {__version__}. A single self-contained file: works offline and as an attachment.",
        badges=("atlas",),
    )


def _answer(files: pd.DataFrame, unlike: pd.DataFrame) -> Iterator[Block]:
    bad = int((files["error"] != "").sum())
    n = {severity: int((files[severity].fillna(0) > 0).sum()) for severity in SEVERITIES}
    paths = list(dict.fromkeys(unlike["path"]))
    title = (
        f"{count(n['critical'], 'checkpoint')} with critical findings"
        if n["critical"]
        else f"{count(len(paths), 'checkpoint')} unlike the others"
        if paths
        else "No checkpoint is unlike the others"
    )
    said = [f"{n['warning']:,} of {len(files):,} have warnings."]
    if paths:
        said.append(f"Unlike the others: {listed([shorten(path, 60) for path in paths])}.")
    if bad:
        said.append(f"{bad:,} could not be checked.")
    state = "critical" if n["critical"] else "warning" if n["warning"] or paths else "good"
    yield Headline(state, title, " ".join(said), f"{title}. {' '.join(said)}")
    rules = Counter(rule for rules in files["rules"] for rule in rules.split())
    if rules:
        yield Table(
            (
                ("rule", "Rule of bnprobe; `bnprobe rules RULE` explains it."),
                ("checkpoints", "Files with such a finding."),
            ),
            tuple((Cell(rule, number=False), Cell(f"{k:,}")) for rule, k in rules.most_common()),
        )


def _outliers(unlike: pd.DataFrame) -> Table:
    heads = (
        ("checkpoint", "The file, as the list names it."),
        ("norms", "Kind of its norms."),
        ("quantity", "What stands out."),
        ("value", "Of this checkpoint."),
        ("median", "Of all checkpoints with such norms."),
        ("distance", "From the median, in robust standard deviations; of ratios for what is positive."),
    )
    rows = tuple(
        (
            Cell(shorten(row["path"], 60), number=False),
            Cell(kind_words(row["kind"]), number=False),
            Cell(row["quantity"], number=False),
            Cell(number(row["value"])),
            Cell(number(row["median"])),
            Cell(number(row["far"], 2)),
        )
        for row in unlike.head(MOST_OUTLIERS).to_dict("records")
    )
    left = f" The farthest {MOST_OUTLIERS} of {len(unlike):,}." if len(unlike) > MOST_OUTLIERS else ""
    return Table(heads, rows, f"More than {FAR:g} robust standard deviations from the median.{left}")


def _distributions(kind: str, found: pd.DataFrame, folded: bool) -> Section:
    """How each quantity is distributed over the checkpoints that have it; a phone has room for a few of them."""
    words = kind_words(kind)
    shown = [one for one in QUANTITIES if found[one.name].notna().any()]
    blocks: list[Block] = [Prose((_spread(found, words),))]
    table = _quantiles(shown, found)
    if len(found) >= 2:
        plots = {one.title: _plot(one, found[one.name].to_numpy(float)) for one in shown}
        blocks += [
            _figure(kind, len(found), plots, "wide"),
            _figure(kind, len(found), _few(plots), "narrow", table),
        ]
    else:
        blocks.append(table)
    title, n = f"{words[:1].upper()}{words[1:]}s", count(len(found), "checkpoint")
    return Section(f"kind-{kind}", title, tuple(blocks), folded=folded, hint=n * folded, short=words)


def _few(plots: dict[str, Plot]) -> dict[str, Plot]:
    """In their order the first of those in which a checkpoint stands out, and of the others."""
    first = sorted(plots, key=lambda title: len(plots[title].curves) < 2)[:FEW_PLOTS]
    return {title: plot for title, plot in plots.items() if title in first}


def _figure(kind: str, n: int, plots: dict[str, Plot], width: str, table: Table | None = None) -> Figure:
    narrow = width == "narrow"
    return Figure(
        f"atlas-{kind}{'-narrow' * narrow}",
        f"Distributions over {count(n, 'checkpoint')} of {', '.join(plots)}.",
        Plots(tuple(plots.values()), narrow=narrow),
        "Share of checkpoints at or below each value. Orange: those that stand out.",
        width=width,
        table=table,
    )


def _spread(found: pd.DataFrame, words: str) -> str:
    gamma = found["gamma"].dropna()
    n = count(len(found), "checkpoint")
    if gamma.empty:
        return f"{n} with {words}s, without γ."
    low, median, high = (float(gamma.quantile(q)) for q in (0.05, 0.5, 0.95))
    few = f" Fewer than {FEWEST}: none of them is said to stand out." if len(found) < FEWEST else ""
    ends = [number(end, 2) for end in (low, high)]
    spread = f", and between {ends[0]} and {ends[1]} in nine of ten" if ends[0] != ends[1] else ""
    return f"{n} with {words}s. The typical |γ| is {number(median, 2)}{spread}.{few}"


def _plot(quantity: Quantity, values: Array) -> Plot:
    """Share of checkpoints at or below each value."""
    far = np.abs(distance(values, quantity.ratio)) > FAR
    known = np.isfinite(values) & ((values > 0) | (not quantity.ratio))
    x, order = values[known], np.argsort(values[known], kind="stable")
    x, far = x[order], far[known][order]
    y = (np.arange(len(x)) + 1) / max(1, len(x))
    usual = np.flatnonzero(~far)
    steps = usual[np.unique(np.linspace(0, len(usual) - 1, min(len(usual), MOST_POINTS)).astype(int))]
    curves = [Curve(x[steps], y[steps])]
    if far.any():
        curves.append(Curve(x[far], y[far], colour=EXPECTED, dots=True))
    wide = bool(len(x) > 1 and quantity.ratio and x[-1] > 3 * x[0])
    return Plot(
        quantity.title,
        quantity.unit,
        "share of checkpoints",
        tuple(curves),
        log_x=wide,
        ticks=() if wide else _ticks(x),
        limits=(0, 1.03),
    )


def _ticks(x: Array) -> tuple[float, ...]:
    """Two to five round numbers within what values span, since small axes have no room for more; none where they span
    nothing."""
    span = float(x[-1] - x[0]) if len(x) else 0.0
    if not span > 0:
        return ()
    unit = 10.0 ** np.floor(np.log10(span / 2))
    step = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= 4)
    first = int(np.ceil(x[0] / step))
    return tuple(float(f"{i * step:.6g}") for i in range(first, int(np.floor(x[-1] / step)) + 1))


def _quantiles(shown: list[Quantity], found: pd.DataFrame) -> Table:
    over = ((name, f"Over checkpoints: {name}.") for name, _ in QUANTILES)
    heads = (("quantity", "Of a checkpoint's norms of this kind."), *over)
    rows = tuple(
        (
            Cell(one.title, number=False),
            *(Cell(number(float(found[one.name].quantile(q)))) for _, q in QUANTILES),
        )
        for one in shown
    )
    return Table(heads, rows)


def _files(files: pd.DataFrame, found: pd.DataFrame, unlike: pd.DataFrame) -> Table:
    """The most serious first; of each, where its γ stands among those with the same kind of norm."""
    main = (
        found.sort_values("n_norms", ascending=False, kind="stable").drop_duplicates("path").set_index("path")
    )
    rank = found.assign(rank=found.groupby("kind")["gamma"].rank(pct=True)).set_index(["kind", "path"])[
        "rank"
    ]
    far = unlike.groupby("path")["far"].apply(lambda far: float(far.abs().max()))
    order = files.assign(
        far=files["path"].map(far).fillna(0.0), **{name: files[name].fillna(0) for name in SEVERITIES}
    ).sort_values([*SEVERITIES, "far"], ascending=False, kind="stable")
    rows = []
    for file in order.head(MOST_ROWS).to_dict("records"):
        path = file["path"]
        one = main.loc[path] if path in main.index else None
        rows.append(
            (
                Cell(shorten(path, 60), number=False),
                *(Cell(f"{int(file[severity]):,}") for severity in SEVERITIES),
                Cell(f"{int(one['n_norms']):,}" if one is not None else number(float("nan"))),
                Cell(kind_words(str(one["kind"])) if one is not None else "", number=False),
                Cell(number(float(one["gamma"]) if one is not None else float("nan"))),
                Cell(share(float(rank[(one["kind"], path)]) if one is not None else float("nan"))),
                Cell(number(file["far"], 2) if file["far"] else number(float("nan"))),
            )
        )
    heads = (
        ("checkpoint", "The file, as the list names it."),
        *((severity, f"Findings that are {severity}.") for severity in SEVERITIES),
        ("norms", "Norms of the kind that it has most of."),
        ("kind", "That kind."),
        ("typical |γ|", "Median over these norms of the median |γ| of a norm."),
        ("at or below", "Share of the checkpoints with such norms whose typical |γ| is as small or smaller."),
        ("distance", "Of what stands out most of it, in robust standard deviations from the median."),
    )
    left = f"The first {MOST_ROWS:,} of {len(files):,}." if len(files) > MOST_ROWS else ""
    return Table(heads, tuple(rows), left)


def _not_read(files: pd.DataFrame) -> Iterator[Section]:
    bad = files[files["error"] != ""]
    if bad.empty:
        return
    heads = (("checkpoint", "The file, as the list names it."), ("reason", "Why it could not be checked."))
    rows = tuple(
        (Cell(shorten(path, 60), number=False), Cell(shorten(error, 200), number=False))
        for path, error in zip(bad["path"].head(MOST_ROWS), bad["error"].head(MOST_ROWS), strict=True)
    )
    left = f"The first {MOST_ROWS:,} of {len(bad):,}." if len(bad) > MOST_ROWS else ""
    n = count(len(bad), "checkpoint")
    yield Section("not-checked", "Not checked", (Table(heads, rows, left),), folded=True, hint=n)
