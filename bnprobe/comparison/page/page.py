"""The page of a comparison: both sides beside each other, sorted by what changed."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from bnprobe.comparison import Differences, Pair, Pairs, first_beyond_noise, glossary
from bnprobe.comparison.page.broken import broken
from bnprobe.comparison.page.figures import layer_change, network_map
from bnprobe.comparison.page.moving import has_histograms
from bnprobe.comparison.page.spine import spine
from bnprobe.recording import Recording
from bnprobe.report.chapters.chapter import called, unit_of
from bnprobe.report.chapters.findings import findings_section, rule_sections
from bnprobe.report.chapters.glossary import glossary_section
from bnprobe.report.compose import SELF_CONTAINED
from bnprobe.report.numbers import count, number, share, shorten
from bnprobe.report.page.blocks import Block, Facts, Figure, Headline, Moving, Page, Prose, Section, Table
from bnprobe.report.page.tables import cells

LONGEST = 40
"""Letters of a model's name in the line below the title."""
MOST_LAYERS = 24
"""Layers with a part of their own, the most changed first; the tables have all."""
MOST_CHANNELS = 12
MOST_PICTURES = 6
"""Of these, layers with a picture on paper."""

LAYER_HEADS = (
    *(
        "layer",
        "n_channels",
        "change",
        "affine_gap",
        "running_gap",
        "pre_gap",
        "pre_noise",
        "pre_changed_share",
    ),
    *(
        "pre_w1_median",
        "pre_w1_noise",
        "post_gap",
        "post_noise",
        "post_changed_share",
        "fires_change_mean",
        "went_silent",
    ),
    *("mode_a", "mode_b", "normalized_by_a", "normalized_by_b", "n_images_a", "n_images_b"),
    *("n_batches_tracked_a", "n_batches_tracked_b", "n_nonfinite_a", "n_nonfinite_b"),
)
SAME_IF_EQUAL = ("mode", "normalized_by", "n_images", "n_batches_tracked", "n_nonfinite")
"""Columns of both sides that are shown where they differ somewhere."""
CHANNEL_HEADS = (
    *("channel", "pre_mean_a", "pre_mean_b", "pre_shift", "pre_shift_se", "pre_ratio", "pre_w1"),
    *("post_mean_a", "post_mean_b", "post_var_a", "post_var_b", "fires_a", "fires_b"),
    *(
        "gamma_a",
        "gamma_b",
        "beta_a",
        "beta_b",
        "running_mean_a",
        "running_mean_b",
        "running_var_a",
        "running_var_b",
    ),
)
STORED = ("gamma", "beta", "running_mean", "running_var")


def compose(
    a: Recording,
    b: Recording,
    found: Pairs,
    tables: Differences,
    findings: pd.DataFrame,
    answer: tuple[str, ...],
    limit: float,
    left_out: str = "",
) -> Page:
    """The page: the answer with both sides on one spine, findings, the network, the layers that changed most, the rest.

    `limit` is the gap from which a difference is reported.
    """
    names = " and ".join(dict.fromkeys(side.about.model for side in (a, b)))
    return Page(
        title=f"What changed in the norms of {names}",
        lead=f"A: {_side(a)}. B: {_side(b)}. {count(len(found.common), 'common norm')}, "
        f"{count(len(tables.channels), 'channel')}.",
        sections=(
            Section("answer", "The answer", _first(tables, findings, answer, limit), short="Answer"),
            findings_section(findings, left_out=left_out),
            Section(
                "network",
                "The network at a glance",
                (Moving("map"), _network(tables), _layer_table(tables)),
                short="Map",
            ),
            _most_changed(found, tables),
            *_unmatched(tables),
            Section("compared", "What is compared", (_sides(a, b),)),
            Section("provenance", "How to read it", (Facts(tuple(_how(a, b, tables.layers))),)),
            *rule_sections(findings),
            glossary_section(glossary()),
        ),
        footer=f"Made by {a.about.versions.split(',')[0]} from a recording of {a.about.started} (A) and one of "
        f"{b.about.started} (B). {SELF_CONTAINED}",
        badges=("A against B",),
    )


def _first(
    tables: Differences, findings: pd.DataFrame, answer: tuple[str, ...], limit: float
) -> tuple[Block, ...]:
    """The verdict, both sides on one spine, and the rest of the answer."""
    title, _, detail = answer[0].partition(". ")
    first = Headline(_state(tables, findings), title.removesuffix("."), detail, answer[0])
    more = answer[1:]
    return (first, *spine(tables, limit), *([Prose(more)] if more else []))


def _state(tables: Differences, findings: pd.DataFrame) -> str:
    """That of the worst finding; without one, whether anything differs that the choice of samples does not explain."""
    worst = next((kind for kind in ("critical", "warning") if (findings["severity"] == kind).any()), "")
    layers = tables.layers
    differs = first_beyond_noise(layers) is not None or layers["filters_differ"].any() or len(tables.tensors)
    return worst or ("notice" if differs or tables.apart or broken(layers) else "good")


def _side(recording: Recording) -> str:
    """A side in a few words."""
    about = recording.about
    model = shorten(called(about.model), LONGEST)
    if recording.weights_only:
        return f"{model}, weights only"
    return f"{model} on {count(about.n_images, unit_of(recording))}"


def _sides(a: Recording, b: Recording) -> Facts:
    """What A is, the reference, and B, which is held against it: once where they are alike."""
    rows: list[tuple[str, str]] = []
    for (name, of_a), (_, of_b) in zip(_facts_of(a), _facts_of(b), strict=True):
        rows += [(name, of_a)] if of_a == of_b else [(f"{name}, A", of_a), (f"{name}, B", of_b)]
    return Facts(tuple(rows))


def _facts_of(recording: Recording) -> list[tuple[str, str]]:
    about = recording.about
    modes = sorted({record.mode for record in recording.layers})
    return [
        ("model", f"{about.model}, {about.n_parameters:,} parameters"),
        ("weights", about.weights),
        ("data", about.data),
        ("preprocessing", about.preprocessing),
        ("mode", ", ".join(modes)),
        ("measured on", count(about.n_images, unit_of(recording)) if about.n_images else "no data"),
        ("norms", count(len(recording.layers), "site")),
        ("recorded", f"{about.started}, {about.device}"),
    ]


def _layer_table(tables: Differences) -> Table:
    layers = tables.layers.sort_values("change", ascending=False, kind="stable", na_position="last")
    heads = [head for head in LAYER_HEADS if head == "layer" or layers[head].notna().any()]
    for name in SAME_IF_EQUAL:
        if (layers[f"{name}_a"] == layers[f"{name}_b"]).all():
            heads = [head for head in heads if head not in (f"{name}_a", f"{name}_b")]
    note = "One row per common norm, most changed first. Hover over a head for the column's name and meaning."
    return replace(_table(layers, heads, note), layers=tuple(int(i) for i in layers.index))


def _table(frame: pd.DataFrame, heads: list[str], note: str) -> Table:
    meanings = {column.name: column.meaning for column in glossary()}
    return Table(
        tuple((head, meanings[head]) for head in heads),
        tuple(zip(*(cells(frame, head) for head in heads), strict=True)),
        note,
    )


def _network(tables: Differences) -> Figure:
    seen = bool(tables.layers[["pre_gap", "post_gap"]].notna().any(axis=None))
    above = (
        "Above: difference of the inputs and of the outputs; the band is what the choice of samples alone would make"
        if seen
        else "Above: difference of the running statistics and of γ and β"
    )
    return Figure(
        "comparison",
        "How far apart the two sides are by depth, over maps of the difference of every channel.",
        network_map(tables),
        f"One column per norm, in the order in which the data reach them. {above}. Below: every channel, sorted by |γ| "
        "of A and stretched to the same height.",
        still=True,
    )


def _most_changed(found: Pairs, tables: Differences) -> Section:
    order = tables.layers["change"].sort_values(ascending=False, kind="stable", na_position="last").index
    changed = [int(i) for i in order if tables.layers["change"][i] > 0][:MOST_LAYERS]
    if tables.apart:
        changed = []
    words = (
        "The channels of A and B do not correspond, so no layer is shown channel by channel."
        if tables.apart
        else f"{_how_many(len(changed), int((tables.layers['change'] > 0).sum()))} All of them are in comparison.layers."
        if changed
        else "No norm changed."
        if tables.layers["identical"].all()
        else "No difference of a norm can be measured."
    )
    if not has_histograms(tables.channels):
        words += (
            f" The histograms of all {len(tables.channels):,} channels would not fit: the page draws none of them "
            "beside the map."
        )
    return Section(
        "layers",
        "Layer by layer",
        (Prose((words,)), Moving("layers")),
        parts=tuple(_layer(i, found.common[i], tables, k < MOST_PICTURES) for k, i in enumerate(changed)),
        short="Layers",
    )


def _how_many(shown: int, changed: int) -> str:
    if changed == 1:
        return "The one norm that changed."
    pictures = f" The first {MOST_PICTURES} have a picture." if shown > MOST_PICTURES else ""
    if shown == changed:
        return f"The {shown} norms that changed, most changed first.{pictures}"
    return f"The {shown} of {changed:,} changed norms that changed most, most changed first.{pictures}"


def _layer(position: int, pair: Pair, tables: Differences, pictured: bool) -> Section:
    channels = tables.channels
    mine = channels[(channels["layer"] == pair.a.layer) & (channels["call"] == pair.a.call)]
    row = tables.layers.iloc[position]
    heads = [head for head in CHANNEL_HEADS if mine[head].notna().any()]
    for name in STORED:
        if (mine[f"{name}_a"] == mine[f"{name}_b"]).all():
            heads = [head for head in heads if head != f"{name}_b"]
    by = max(
        (
            f"{aspect}_gap"
            for aspect in ("pre", "post", "running", "affine")
            if mine[f"{aspect}_gap"].notna().any()
        ),
        key=lambda name: float(row[name]),
    )
    shown = mine.loc[
        mine[by].sort_values(ascending=False, kind="stable", na_position="last").index[:MOST_CHANNELS]
    ]
    note = f"The {len(shown)} of {len(mine):,} channels with the largest {by}. All of them are in comparison.channels."
    return Section(
        f"layer-{position}",
        pair.a.site,
        (
            Prose((_layer_words(row),)),
            *([_layer_figure(pair, mine, by)] if pictured else []),
            replace(_table(shown, heads, note), brief=True),
        ),
        hint=f"change {number(float(row['change']), 2)}, {count(len(mine), 'channel')}",
        layer=position,
    )


def _layer_words(row: pd.Series) -> str:
    """The gaps of one layer in a sentence."""
    parts = [
        f"{words} by {number(float(row[f'{aspect}_gap']), 2)} {unit}"
        for aspect, words, unit in (
            ("pre", "inputs", "standard deviations"),
            ("post", "outputs", "of the layer's standard deviation"),
            ("running", "running statistics", "standard deviations"),
            ("affine", "γ and β", "of the layer's scale"),
        )
        if row[f"{aspect}_gap"] > 0
    ]
    changed = row["pre_changed_share"]
    tail = (
        f" The inputs of {share(float(changed))} of the channels changed beyond sampling error."
        if changed == changed
        else ""
    )
    return f"A and B differ: {', '.join(parts)}.{tail}" if parts else ""


def _layer_figure(pair: Pair, channels: pd.DataFrame, by: str) -> Figure:
    return Figure(
        f"comparison {pair.a.call} {pair.a.layer}",
        f"The channels of {pair.a.site} that changed most, A and B over each other, and all channels.",
        layer_change(pair, channels, by),
        "Filled: A. Line: B.",
        still=True,
    )


def _unmatched(tables: Differences) -> tuple[Section, ...]:
    alone = tables.unread
    if alone.empty:
        return ()
    heads = {
        "layer": "",
        "n_channels": "",
        "side": "where it is",
        "why": "why it was not compared",
    }
    rows = tuple(zip(*(cells(alone, head) for head in heads), strict=True))
    return (Section("unmatched", "Not compared", (Table(tuple(heads.items()), rows),)),)


_ERRORS = {
    "samples": "count samples, not pixels, and take them and both sides as independent; of copies they are too small, and "
    "where both sides saw the same data, too wide for these data: they say what other data would show",
    "folds": "count samples, and where whole batches differ more than independent samples would, these; they take batches "
    "and both sides as independent",
    "pairs": "count batch by batch how both sides differ, which saw the same samples in the same order, so that what these "
    "have in common cancels; they take batches as independent",
}
"""What errors mean, by what they count."""


def _errors(layers: pd.DataFrame) -> str:
    kinds = [kind for kind in _ERRORS if (layers["error_from"] == kind).any()]
    return "; elsewhere they ".join(_ERRORS[kind] for kind in reversed(kinds))


def _how(a: Recording, b: Recording, layers: pd.DataFrame) -> list[tuple[str, str]]:
    return [
        (
            "difference",
            "√(difference of means² + difference of standard deviations²), root mean square over channels",
        ),
        (
            "its unit",
            "the channel's own standard deviation (root mean square of both sides, the smaller eps added to its square) "
            "for inputs and running statistics, because the norm divides by it; the layer's for outputs and for γ and β, "
            "because a channel that hardly varies hardly matters",
        ),
        ("errors", _errors(layers)),
        (
            "beyond sampling error",
            "q < 0.01: of all channels called changed, on average at most 1% are not (false discovery rate); means and "
            "standard deviations of all channels tested together (Benjamini & Hochberg 1995)",
        ),
        *[(f"note on {name}", note) for name, side in (("A", a), ("B", b)) for note in side.about.notes],
    ]
