"""What it costs to record in parts and merge them: by channels, parts and samples, measured here and extrapolated.

    python -m scripts.performance.merge_cost       # writes reports/merge_cost.md

Recordings are real ones, of batch norms over vectors, with histograms. CPU seconds of one process, the least of a few
repetitions, since a machine may be shared. What is not measured is computed from the measured points; the page says how.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import bnprobe
from bnprobe.recording import Recording
from bnprobe.scaling.join import join
from bnprobe.scaling.merge import merge_files

PAGE = Path("reports/merge_cost.md")

WIDTH = 1000
"""Channels of a norm at most; those of a ResNet-50 have 500 in the middle."""

MEASURED, ASKED = (100, 1_000, 10_000, 50_000), (100, 1_000, 10_000, 100_000, 1_000_000)
PARTS = (1, 10, 100, 1_000, 10_000, 100_000)
SAMPLES = (10**3, 10**6, 10**9)
REPEATS = 3

N_FILES = 32
"""Parts that are merged from files, to hold the sum of the single steps against."""

RESNET50 = 26_560
"""Channels of the norms of a ResNet-50."""

LINK = 1e9
"""Bytes a second between two machines, where ranks are gathered: ten gigabits."""


class Cost(NamedTuple):
    """Of one recording, or of one merge of two."""

    channels: int
    megabytes: float
    ram: float
    load: float
    join: float
    write: float


def recordings(channels: int, n: int) -> list[Recording]:
    """Parts of so many channels, each of a batch of its own."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(min(WIDTH, channels)) for _ in range(max(1, channels // WIDTH))]
    model = nn.Sequential(*norms).eval()
    return [bnprobe.record(model, [torch.randn(16, norms[0].num_features)]) for _ in range(n)]


def measured(channels: int, folder: Path) -> Cost:
    """Every step of a merge, alone."""
    first, second = recordings(channels, 2)
    path = first.save(folder / f"{channels}.bnp")
    whole = join(first, second)
    return Cost(
        channels,
        path.stat().st_size / 1e6,
        in_ram(first) / 1e6,
        seconds(lambda: bnprobe.load(path)),
        seconds(lambda: join(first, second)),
        seconds(whole.to_bytes),
    )


def in_ram(value: object) -> int:
    """Bytes of the arrays in a recording."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, tuple):
        return sum(map(in_ram, value))
    return sum(map(in_ram, vars(value).values())) if hasattr(value, "__dict__") else 0


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds, the least of a few times."""
    least = math.inf
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        least = min(least, time.process_time() - began)
    return least


def extrapolated(costs: list[Cost], channels: int) -> Cost:
    """By the line through the two largest points; a measured point itself."""
    known = {cost.channels: cost for cost in costs}
    if channels in known:
        return known[channels]
    low, high = costs[-2:]
    share = (channels - low.channels) / (high.channels - low.channels)
    return Cost(channels, *(a + share * (b - a) for a, b in zip(low[1:], high[1:], strict=True)))


def bytes_by_samples(folder: Path) -> Iterator[str]:
    """How large a file is whose histograms count so many samples."""
    part = recordings(1_000, 1)[0]
    for n in SAMPLES:
        path = counting(part, n).save(folder / "counting.bnp")
        yield f"| {n:.0e} | {path.stat().st_size / 1e6:.2f} MB |"


def counting(part: Recording, n: int) -> Recording:
    """The part as if its histograms had counted so many samples as they hold now, `n` in all."""
    layers = []
    for record in part.layers:
        made = {}
        for name in ("pre_histogram", "post_histogram"):
            histogram = getattr(record, name)
            made[name] = replace(histogram, counts=np.round(histogram.counts * n / part.about.n_images))
        layers.append(replace(record, **made))
    return replace(part, layers=tuple(layers))


def merged_from_files(channels: int, folder: Path) -> float:
    """CPU seconds per part of merging files."""
    paths = [part.save(folder / f"part{i}.bnp") for i, part in enumerate(recordings(channels, N_FILES))]
    merge_files(paths[:2])
    began = time.process_time()
    merge_files(paths)
    return (time.process_time() - began) / N_FILES


def page(costs: list[Cost], by_samples: list[str], per_part: float) -> str:
    """The tables, with what was measured, what was not, and what is assumed."""
    rows = [extrapolated(costs, channels) for channels in ASKED]
    known = {cost.channels for cost in costs}
    resnet = extrapolated(costs, RESNET50)
    return f"""# What merging costs

Made by `python -m scripts.performance.merge_cost`. Measured: CPU seconds of one process on a shared machine, the least of
{REPEATS}. Rows with ~ are extrapolated by the line through the two largest measured points ({costs[-2].channels:,} and
{costs[-1].channels:,} channels).

## A part, by channels

| channels | file | RAM | read and check | merge two | write |
|---|---|---|---|---|---|
{_lines(_row(cost, cost.channels in known) for cost in rows)}

## A merge, by parts: {resnet.channels:,} channels, as in a ResNet-50

| parts | all files | tree | CPU, one process | 8 processes | RAM of one process | ranks of a process group, gathered |
|---|---|---|---|---|---|---|
{_lines(_merge_row(resnet, n) for n in PARTS)}

Assumed:

- a part costs one reading and one merge, whatever was merged before: sums do not grow with the parts. Measured on {N_FILES}
  files of 10,000 channels: {per_part * 1e3:.0f} ms a part, where reading and merging alone sum up to
  {_sum(costs) * 1e3:.0f} ms;
- one process holds a sum per level of the tree, and the part that it reads; processes beyond the first take blocks of eight
  parts, and the last merges their sums;
- ranks send their sums up a tree and the whole down again: per level one writing, sending at {LINK / 1e9:g} GB/s, reading
  and merging, then one sending and reading. No rank waits for a slow one;
- norms store running statistics. Norms without take their histogram's scale from the first batch of each part, and a whole
  keeps the histograms of different scales side by side: its file and its RAM grow with the parts. Record such parts with
  `--no-histograms`, or few of them;
- disks and buckets deliver as fast as files are read. Cold, 1,000 parts of {resnet.megabytes:.0f} MB take
  {1_000 * resnet.megabytes / 500:.0f} s at 500 MB/s.

## A file, by samples: 1,000 channels

| samples counted in histograms | file |
|---|---|
{_lines(by_samples)}

Sums and extremes take the same room for any number of samples; counts take one, two or four bytes, and eight from 2³² on.
Time to record grows with samples alone, and is divided by the workers: a shard costs its passes, and once the start of a
process. Merging adds {(resnet.load + resnet.join) * 1e3:.0f} ms a shard, so shards of a minute make merging less than
{max(1, math.ceil((resnet.load + resnet.join) / 60 * 100))} % of recording.
"""


def _lines(rows: Iterator[str] | list[str]) -> str:
    return "\n".join(rows)


def _sum(costs: list[Cost]) -> float:
    one = extrapolated(costs, 10_000)
    return one.load + one.join


def _row(cost: Cost, is_known: bool) -> str:
    mark = "" if is_known else "~"
    times = " | ".join(f"{mark}{value * 1e3:,.1f} ms" for value in (cost.load, cost.join, cost.write))
    return f"| {cost.channels:,} | {mark}{cost.megabytes:,.2f} MB | {mark}{cost.ram:,.1f} MB | {times} |"


def _merge_row(cost: Cost, n: int) -> str:
    depth = math.ceil(math.log2(n)) if n > 1 else 0
    alone = n * cost.load + (n - 1) * cost.join
    # blocks of eight side by side, then their sums one by one
    blocks = math.ceil(n / 8)
    shared = alone / 8 + (blocks - 1) * (cost.load + cost.join) if n > 8 else alone
    send = cost.megabytes * 1e6 / LINK
    gathered = depth * (cost.write + send + cost.load + cost.join) + depth * (send + cost.load)
    return (
        f"| {n:,} | {_size(n * cost.megabytes)} | {depth} levels | {_time(alone)} | {_time(shared)} | "
        f"{_size((depth + 2) * cost.ram)} | {_time(gathered) if n > 1 else '-'} |"
    )


def _size(megabytes: float) -> str:
    return f"{megabytes:,.0f} MB" if megabytes < 1e4 else f"{megabytes / 1e3:,.0f} GB"


def _time(value: float) -> str:
    if value < 100:
        return f"{value:.2g} s"
    return f"{value / 60:,.0f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs = [measured(channels, folder) for channels in MEASURED]
        per_part = merged_from_files(10_000, folder)
        PAGE.write_text(page(costs, list(bytes_by_samples(folder)), per_part), "utf-8")
    print(f"page: {PAGE}")


if __name__ == "__main__":
    main()
