"""From facts to blocks: what the page says, in which order, in whose words."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.measures import Tables, glossary
from bnprobe.measures.shape import median
from bnprobe.recording import About, LayerRecord, Recording
from bnprobe.report.blocks import (
    Cell,
    Entry,
    Facts,
    Figure,
    FindingGroup,
    Findings,
    Glossary,
    Page,
    Prose,
    Section,
    Table,
)
from bnprobe.report.words import count, listed, number, share, shorten

KINDS = {
    "batch_norm": "batch norm",
    "layer_norm": "layer norm",
    "group_norm": "group norm",
    "instance_norm": "instance norm",
    "rms_norm": "RMS norm",
}

MOST_ROWS = 24
"""Channels in the table of a layer; the rest are in `report.channels`."""

LAYER_HEADS = (
    "layer",
    "kind",
    "n_channels",
    "mode",
    "normalized_by",
    "gamma_abs_median",
    "gamma_negative",
    "fires_median",
    "never_positive",
    "shift_rms",
    "var_ratio_median",
    "own_mean",
    "own_sd",
    "own_log_var_sd",
    "pre_skew_median",
    "pre_kurtosis_median",
)
CHANNEL_HEADS = (
    "channel",
    "gamma",
    "beta",
    "running_mean",
    "running_var",
    "pre_mean",
    "pre_var",
    "shift",
    "shift_se",
    "scale_ratio",
    "kl",
    "pre_skew",
    "pre_kurtosis",
    "post_mean",
    "post_var",
    "post_min",
    "post_max",
    "fires",
)


def compose(recording: Recording, tables: Tables, findings: pd.DataFrame) -> Page:
    """The page: what was probed, the answer, findings, the network, every layer, the glossary."""
    return Page(
        title=f"What the norms of {recording.about.model} learned",
        lead=_lead(recording),
        sections=(
            Section("probed", "What was probed", (Facts(tuple(_facts(recording))),)),
            Section("answer", "The answer", (Prose(tuple(answer(recording, tables, findings))),)),
            Section("findings", "Findings", (_findings(findings),)),
            Section("network", "The network at a glance", (_network_figure(tables), _layer_table(tables))),
            Section(
                "layers",
                "Layer by layer",
                (Prose((_how_to_read(recording),)),),
                parts=tuple(_layer_section(i, record, tables) for i, record in enumerate(recording.layers)),
            ),
            Section("provenance", "How it was measured", (Facts(tuple(_provenance(recording))),)),
            Section(
                "glossary",
                "Glossary",
                (Glossary(tuple(_entries())),),
                folded=True,
                hint="every column, in words",
            ),
        ),
        footer=f"Made by {recording.about.versions.split(',')[0]} from a recording of {recording.about.started}. "
        "One file, no scripts, nothing loaded from elsewhere.",
    )


def nothing_seen(recording: Recording) -> str:
    """What to say of a recording without a single call."""
    n = len(recording.never_called)
    return (
        f"attached to {count(n, 'layer')}, {count(recording.about.n_forwards, 'forward pass')} seen. Run the object you "
        "attached to; a deepcopy, an exported graph or a wrapper compiled earlier does not report here."
    )


def _lead(recording: Recording) -> str:
    about = recording.about
    n = sum(record.n_channels for record in recording.layers)
    return (
        f"{count(len(recording.layers), 'normalization layer')}, {count(n, 'channel')}, "
        f"{count(about.n_images, 'image')} seen in {number(about.seconds, 2)} s."
    )


def answer(recording: Recording, tables: Tables, findings: pd.DataFrame) -> list[str]:
    """The answer in a few sentences, made of this network's numbers."""
    sentences = [
        _what_there_is(recording),
        *_memory(tables.layers),
        *_learned(tables.channels),
        *_own(tables.layers),
        _verdict(findings),
    ]
    return [sentence for sentence in sentences if sentence]


def _what_there_is(recording: Recording) -> str:
    kinds: dict[str, int] = {}
    for record in recording.layers:
        kinds[record.kind] = kinds.get(record.kind, 0) + 1
    names = ", ".join(count(n, KINDS.get(kind, kind)) for kind, n in kinds.items())
    where = names if len(kinds) == 1 else f"{count(len(recording.layers), 'norm')} ({names})"
    modes = {record.mode for record in recording.layers}
    mode = f"in {modes.pop()} mode" if len(modes) == 1 else "in more than one mode"
    return (
        f"{recording.about.model} holds {where}; "
        f"{count(recording.about.n_images, 'image')} went through it {mode}."
    )


def _memory(layers: pd.DataFrame) -> list[str]:
    """Whether the data look like what the running statistics remember, and where they do not."""
    known = layers[layers["var_ratio_median"].notna()]
    if known.empty:
        return []
    ratio, shift = median(known["var_ratio_median"].to_numpy()), median(known["shift_rms"].to_numpy())
    off = np.abs(np.log(known["var_ratio_median"].clip(lower=1e-12)))
    far = known.loc[off.idxmax()]
    close = 0.8 < ratio < 1.25 and shift < 0.25
    text = (
        f"The data {'look much like' if close else 'differ from'} what the batch norms remember of their training set: "
        f"typically the mean lies {number(shift, 2)} remembered deviations away and the variance is "
        f"{number(ratio, 2)} of the remembered one"
    )
    if len(known) > 2 and not 0.8 < far["var_ratio_median"] < 1.25:
        last = known.iloc[-1]
        text += (
            f"; the variance is furthest off at {shorten(far['layer'])} ({number(far['var_ratio_median'], 2)}), "
            f"and {number(last['var_ratio_median'], 2)} at the last norm, {shorten(last['layer'])}"
        )
    return [text + "."]


def _learned(channels: pd.DataFrame) -> list[str]:
    """What gamma and beta say, and what the outputs do."""
    sentences = []
    gamma, fires = channels["gamma"].dropna(), channels["fires"].dropna()
    if len(gamma) and not (gamma == 1).all():
        negative, small = int((gamma < 0).sum()), int((gamma.abs() < 1e-2).sum())
        sentences.append(
            f"The learned scale is typically {number(float(gamma.abs().median()), 2)}; it is negative in "
            f"{_of_channels(negative, len(gamma))}, and {_of_channels(small, len(gamma))} "
            f"{'were' if small > 1 else 'was'} switched off (|γ| < 0.01)."
        )
    if len(fires):
        never = int((fires == 0).sum())
        sentences.append(
            f"After the norm the typical channel is positive for {share(float(fires.median()))} of its values; "
            f"{_of_channels(never, len(fires))} {'were' if never > 1 else 'was'} never positive."
        )
    return sentences


def _of_channels(n: int, total: int) -> str:
    """So many channels, with their share."""
    return f"{count(n, 'channel')} ({share(n / total)})" if n else "no channel"


def _own(layers: pd.DataFrame) -> list[str]:
    """How the statistics of norms without memory run through depth."""
    known = layers[layers["own_sd"].notna()]
    if len(known) < 2:
        return []
    first, last = known.iloc[0], known.iloc[-1]
    steady = median(known["own_log_var_sd"].to_numpy())
    return [
        f"What the norms without memory divide by goes from {number(first['own_sd'], 2)} at {shorten(first['layer'])} "
        f"to {number(last['own_sd'], 2)} at {shorten(last['layer'])}; from sample to sample its logarithm varies by "
        f"{number(steady / 2, 2)}."
    ]


def _verdict(findings: pd.DataFrame) -> str:
    serious = findings[findings["severity"] != "info"]
    if serious.empty:
        return "No rule found anything to worry about."
    rules = [f"{rule} ({count(len(group), 'place')})" for rule, group in serious.groupby("rule", sort=False)]
    return f"Worth a look: {listed(rules, 4)}."


def _findings(findings: pd.DataFrame) -> Findings:
    """Findings that say the same are shown once, with all their places."""
    groups = [
        FindingGroup(
            severity=str(severity),
            rule=str(rule),
            says=str(says),
            places=tuple(_place(row) for _, row in group.iterrows()),
            because=tuple(group["because"]),
            do=group["do"].iloc[0],
            source=group["source"].iloc[0],
        )
        for (severity, rule, says), group in findings.groupby(["severity", "rule", "says"], sort=False)
    ]
    return Findings(tuple(groups), "No rule found anything.")


def _place(row: pd.Series) -> str:
    call = f" (call {row['call'] + 1})" if row["call"] else ""
    channels = list(row["channels"])
    which = (
        f", channel{'s' if len(channels) > 1 else ''} {listed([str(c) for c in channels], 6)}"
        if channels
        else ""
    )
    return f"{shorten(row['layer'], 60)}{call}{which}" if row["layer"] else "the whole run"


def _network_figure(tables: Tables) -> Figure:
    def draw() -> Any:
        from bnprobe.report import figures

        return figures.network(tables.channels)

    return Figure(
        "network",
        "Maps of the whole network, one column per normalization layer, under a profile by depth.",
        draw,
        "One column per layer, in the order in which the data reach them; within a column the channels are sorted "
        "by |γ|, the largest on top, and every column is stretched to the same height (number of channels in "
        "brackets). White lines separate stages.",
    )


def _layer_table(tables: Tables) -> Table:
    layers = tables.layers
    heads = [head for head in LAYER_HEADS if head == "layer" or layers[head].notna().any()]
    same = [
        head for head in ("kind", "mode", "normalized_by") if len(layers) > 1 and layers[head].nunique() == 1
    ]
    note = "One row per layer; hold the pointer over a column's name for its meaning."
    if same:
        note += (
            " The same for all layers: " + ", ".join(f"{head} {layers[head].iloc[0]}" for head in same) + "."
        )
    return _table(layers, [head for head in heads if head not in same], note)


def _table(frame: pd.DataFrame, heads: list[str], note: str) -> Table:
    meanings = {column.name: column.meaning for column in glossary()}
    return Table(
        tuple((head, meanings[head]) for head in heads),
        tuple(tuple(_cell(row[head]) for head in heads) for _, row in frame[heads].iterrows()),
        note,
    )


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(shorten(value, 40), number=False)
    return Cell(number(float(value)))


def _how_to_read(recording: Recording) -> str:
    if all(record.pre_histogram is None for record in recording.layers):
        return "Distributions were not recorded (histograms=False)."
    return (
        "Each picture shows a few telling channels: the three most shifted, two typical ones, the one with the heaviest "
        "tail and the least shifted. Filled is what was seen; the line is what the norm remembers (before) or aims at "
        "(after)."
    )


def _layer_section(position: int, record: LayerRecord, tables: Tables) -> Section:
    channels = tables.channels
    mine = channels[(channels["layer"] == record.layer) & (channels["call"] == record.call)]
    heads = [head for head in CHANNEL_HEADS if mine[head].notna().any()]
    by = "shift" if mine["shift"].notna().any() else "pre_kurtosis"
    order = mine[by].abs().sort_values(ascending=False, kind="stable", na_position="last").index
    shown = mine.loc[order[:MOST_ROWS]]
    note = f"Sorted by |{by}|."
    if len(mine) > MOST_ROWS:
        note = f"The {MOST_ROWS} of {len(mine):,} channels with the largest |{by}|; all of them are in report.channels."
    return Section(
        f"layer-{position}",
        record.site,
        (Prose((_layer_words(record, mine),)), _layer_figure(record, mine), _table(shown, heads, note)),
        folded=True,
        hint=f"{KINDS.get(record.kind, record.kind)}, {count(record.n_channels, 'channel')}",
    )


def _layer_words(record: LayerRecord, channels: pd.DataFrame) -> str:
    """What this layer is and does, in a few numbers."""
    fires, gamma = channels["fires"], channels["gamma"].dropna()
    text = f"{record.class_name} with {count(record.n_channels, 'channel')}, {record.mode} mode, "
    text += f"normalized by {_BY[record.normalized_by]}. "
    if channels["shift"].notna().any():
        shift = np.sqrt(np.mean(channels["shift"][np.isfinite(channels["shift"])] ** 2))
        text += (
            f"The mean moved by {number(float(shift), 2)} remembered σ (root mean square over channels), the variance is "
            f"{number(median((channels['scale_ratio'] ** 2).to_numpy()), 2)} of the remembered one. "
        )
    if len(gamma):
        text += f"|γ| is typically {number(float(gamma.abs().median()), 2)}, "
    text += f"and the outputs are positive {share(float(fires.median()))} of the time (median channel)."
    if record.output == "read":
        text += " Its output was read as it is, because the map is not one affine map per channel."
    if record.parameters_moved:
        text += " γ or β changed during the recording: they are shown as at its end."
    if record.buffers_moved:
        text += " The running statistics were updated during the recording: they are shown as before it."
    return text


_BY = {
    "running": "its running statistics",
    "batch": "the statistics of each batch",
    "both": "running statistics in some calls and the batch in others",
    "sample": "each sample's own statistics",
}


def _layer_figure(record: LayerRecord, channels: pd.DataFrame) -> Figure:
    def draw(record: LayerRecord, channels: pd.DataFrame) -> Any:
        from bnprobe.report import figures

        return figures.layer(record, channels)

    return Figure(
        f"layer {record.call} {record.layer}",
        f"Distributions of some channels of {record.site} before and after the norm, and its channels by γ and β.",
        partial(draw, record, channels),
    )


def _facts(recording: Recording) -> list[tuple[str, str]]:
    about: About = recording.about
    return [
        ("model", f"{about.model}, {about.n_parameters:,} parameters"),
        ("weights", about.weights),
        ("data", about.data),
        ("preprocessing", about.preprocessing),
    ]


def _provenance(recording: Recording) -> list[tuple[str, str]]:
    about = recording.about
    facts = [
        ("seen", f"{count(about.n_images, 'image')} in {count(about.n_forwards, 'forward pass')}"),
        ("time", f"{number(about.seconds, 3)} s in the model, started {about.started}"),
        ("device", about.device),
        ("versions", about.versions),
        ("outputs", _outputs(recording)),
    ]
    if recording.never_called:
        facts.append(("never called", listed(list(recording.never_called), 12)))
    if recording.not_understood:
        facts.append(("not understood", listed(list(recording.not_understood), 12)))
    return facts + [("note", note) for note in about.notes]


def _outputs(recording: Recording) -> str:
    derived = [record for record in recording.layers if record.output == "derived"]
    read = len(recording.layers) - len(derived)
    gaps = [record.mismatch for record in derived if np.isfinite(record.mismatch)]
    text = (
        f"statistics after the norm derived from the input at {count(len(derived), 'layer')}, read at {read}"
    )
    if gaps:
        text += f"; derived and real output differ by at most {number(max(gaps), 2)} of the largest output"
    return text


def _entries() -> list[Entry]:
    return [Entry(c.name, c.meaning, c.formula, c.unit, c.source) for c in glossary()]
