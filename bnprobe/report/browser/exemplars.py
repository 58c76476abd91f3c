"""The exemplars that travel with the page: numbers of samples by channel, names, and thumbnails in one picture.

A wide network has more of them than a page may hold. Then each layer has those of its purest channels, or without labels of
its first ones, and the samples that are exemplars most often have thumbnails; the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bnprobe.files import is_file
from bnprobe.measures.exemplars import of_samples, purity
from bnprobe.recording import LayerRecord, Recording, SampleTable
from bnprobe.report.browser.packing import pack_bytes
from bnprobe.report.numbers import count, shorten, visible
from bnprobe.stats.exemplars import NOBODY
from bnprobe.stats.moments import Array

MOST_SHOWN = 8
"""Exemplars of a side of a channel."""

MOST_PLACES = 24_000
"""Exemplars of all channels together: 2 bytes each."""

MOST_NAMED = 1_000
"""Samples that have names on the page."""

MOST_THUMBNAILS, FEWEST_THUMBNAILS = 1_000, 150
"""Files that have thumbnails, half a kilobyte each: as many on the page of a narrow network, and of any."""

THUMBNAILS_BY_CHANNELS = 4_000_000
"""Thumbnails times channels between the two: the other numbers of a wide network leave them less room."""

LONGEST = 80
"""Letters of a name."""

LONGEST_PATH, DEEPEST = 4096, 32
"""Letters of a recorded path, and folders at its end that are looked for: no system has longer ones."""

NOWHERE = 0xFFFF
"""The place of no sample."""

Blobs = list[tuple[str, str]]


@dataclass(frozen=True)
class _Shown:
    """The channels of one layer of which exemplars are shown, those samples (channels, 2, K), and their positions."""

    channels: npt.NDArray[np.intp]
    samples: Array
    positions: Array


def exemplars_of(recording: Recording, images: Path | None) -> tuple[dict[str, Any] | None, Blobs]:
    """What the manifest says of exemplars, None without any, and the blobs. Files are looked for below `images` only."""
    table = recording.samples
    if table is None:
        return None, []
    shown = _shown(recording.layers, table)
    used, uses = np.unique(np.concatenate([one.samples.ravel() for one in shown]), return_counts=True)
    ranked = used[np.lexsort((used, -uses))]
    ranked = ranked[ranked != NOBODY].astype(np.int64)
    named = ranked[:MOST_NAMED]
    n_channels = sum(record.n_channels for record in recording.layers)
    room = THUMBNAILS_BY_CHANNELS // max(n_channels, 1)
    squares, cells = _thumbnails(table, named, images, min(max(room, FEWEST_THUMBNAILS), MOST_THUMBNAILS))
    known = of_samples(table)
    place = np.full(len(table) + 1, NOWHERE, dtype="<u2")
    place[named] = np.arange(len(named))
    numbers = np.concatenate([place[one.samples.astype(np.int64)].ravel() for one in shown])
    positions = np.concatenate([one.positions.ravel() for one in shown])
    manifest = {
        "k": shown[0].samples.shape[2],
        "names": [_name(known, i) for i in named.tolist()],
        "labels": [_label(known["label"][i]) for i in named.tolist()],
        "cells": cells,
        "layers": [one.channels.tolist() for one in shown],
        "note": _note(recording, shown, len(ranked), table, len(squares), images),
    }
    blobs = [("exemplars", pack_bytes(numbers.view(np.uint8)))]
    if np.isfinite(positions).any():
        at = np.where(np.isnan(positions), NOWHERE, np.minimum(positions, NOWHERE - 1)).astype("<u2")
        blobs.append(("exemplar-positions", pack_bytes(at.view(np.uint8))))
    if squares:
        from bnprobe.report.figures.contact_sheet import COLUMNS, SIDE, sheet

        manifest |= {"side": SIDE, "columns": COLUMNS}
        blobs.append(("thumbnails", sheet(squares)))
    return manifest, blobs


def _shown(layers: Sequence[LayerRecord], table: SampleTable) -> list[_Shown]:
    """What is shown of each layer; of those without exemplars, nothing."""
    kept = [record for record in layers if record.exemplars is not None]
    k = min(MOST_SHOWN, max(record.exemplars.k for record in kept if record.exemplars is not None))
    widest = MOST_PLACES // (2 * k)
    each = _fair(np.array([record.n_channels for record in kept]), widest)
    found = []
    for record in layers:
        if record.exemplars is None:
            found.append(_Shown(np.zeros(0, np.intp), np.zeros((0, 2, k)), np.zeros((0, 2, k))))
            continue
        pure = np.nan_to_num(np.nanmax(np.nan_to_num(purity(record, table), nan=-1.0), axis=0))
        first = np.argsort(-pure, kind="stable")[:each]
        sample, position = (
            _wide(part.transpose(1, 0, 2)[first][..., :k], k)
            for part in (record.exemplars.sample, record.exemplars.position)
        )
        found.append(_Shown(first, sample, position))
    return found


def _wide(part: Array, k: int) -> Array:
    """With nobody where fewer than k were kept."""
    missing = ((0, 0), (0, 0), (0, k - part.shape[2]))
    return np.pad(part, missing, constant_values=NOBODY)


def _fair(widths: Array, most: int) -> int:
    """How many channels of each layer there is room for, all of a narrow one: the largest number that fits."""
    low, high = 1, int(widths.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(widths, middle).sum() <= most else (low, middle - 1)
    return low


def _thumbnails(
    table: SampleTable, named: Array, images: Path | None, most: int
) -> tuple[list[Any], list[int]]:
    """Thumbnails of the first files that can be found, and for each sample the number of its own, -1 for none."""
    squares: list[Any] = []
    cells = []
    for i in named.tolist():
        found = None
        if images is not None and table.is_path[i] and len(squares) < most:
            found = _square(table.captions[i], images)
        cells.append(-1 if found is None else len(squares))
        squares += [] if found is None else [found]
    return squares, cells


def _square(caption: str, images: Path) -> Any:
    from bnprobe.report.figures.contact_sheet import thumbnail

    path = file_below(images, caption)
    return None if path is None else thumbnail(path)


def file_below(folder: Path, recorded: str) -> Path | None:
    """The file of a recorded path below a folder, which may have been moved since; None where there is none.

    Nothing outside of the folder is found, whatever the path says: a recording of somebody else's must not show files of
    the reader's.
    """
    if len(recorded) > LONGEST_PATH:
        return None
    parts = [part for part in Path(recorded).parts if part not in ("/", "..", ".")][-DEEPEST:]
    for start in range(len(parts)):
        path = folder.joinpath(*parts[start:])
        if is_file(path):
            return path
    return None


def _name(known: dict[str, Any], i: int) -> str:
    """A sample in a few letters: its path, or its number and text."""
    text, caption = str(known["sample"][i]), str(known["caption"][i])
    if caption:
        return visible(f"{text}: {shorten(caption, LONGEST)}")
    return visible(text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}")


def _label(label: Any) -> str:
    return "" if label is None or pd.isna(label) else visible(shorten(str(label), 30))


def _note(
    recording: Recording,
    shown: Sequence[_Shown],
    n_used: int,
    table: SampleTable,
    n_squares: int,
    images: Path | None,
) -> str:
    """What the page leaves out, in sentences."""
    said = []
    n_channels = sum(record.n_channels for record in recording.layers if record.exemplars is not None)
    n_shown = sum(len(one.channels) for one in shown)
    if n_shown < n_channels:
        which = (
            "those with the purest exemplars in each layer"
            if np.isfinite(table.labels).any()
            else "the first of each layer"
        )
        said.append(f"Shown for {n_shown:,} of {n_channels:,} channels, {which}; `report.exemplars` has all.")
    n_files = int(table.is_path.sum())
    if n_files and images is None:
        said.append(
            "To see thumbnails, say where the images are: bnprobe.report(recording, images=FOLDER), or --data."
        )
    elif n_files and images is not None and not n_squares:
        said.append(f"None of {count(n_files, 'file')} was found in {visible(images.name)} as an image.")
    elif n_files and n_squares < min(n_used, n_files):
        said.append(f"The {n_squares:,} files shown most often have thumbnails, out of {n_used:,}.")
    return " ".join(said)
