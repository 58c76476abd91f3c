"""What a probe costs: time and memory of forward passes with and without it, beside other ways to look.

    python -m scripts.performance.overhead                     # five models, CPU → reports/overhead.csv and .svg
    python -m scripts.performance.overhead --quick             # ResNet-50 alone, three pairs
    python -m scripts.performance.overhead --device cuda       # batch 64; float32, autocast and channels_last
    python -m scripts.performance.overhead --clock cpu --threads 1    # on a machine that others use too

Bare and watched passes alternate in one process, so that a machine that slows down slows both; what is
told is the median of the ratios of neighbors, and their range. Memory is the peak of a fresh process for
each case. Normalization layers first take the statistics of a batch, as in a trained net.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from scripts.performance.ways_to_watch import (
    FLOOR,
    PROBES,
    RIVALS,
    TRAIN,
    TRAIN_PROBES,
    Case,
    Watching,
    traced,
)

BATCHES = {"resnet50": 16, "mobilenet_v3_large": 32, "densenet121": 16, "convnext_tiny": 16, "vit_b_16": 8}
"""Models of torchvision, and images per batch on a CPU."""

CUDA_BATCH = 64
LENGTHS = (5, 50)
"""Batches of the two memory runs: a probe that keeps tensors grows from one to the other."""

# Measuring


WARM_UP = 6
"""Pairs before the first that counts: then histograms count every fourth image in every layer."""


def pairs(case: Case, watching: Watching, n: int, warm_up: int = WARM_UP) -> pd.DataFrame:
    """`n` pairs of neighbors, a bare pass and a watched one; which comes first changes every time."""
    net, x = case.net(), case.images()
    for _ in range(warm_up):
        case.run(net, x)
    rows = []
    with watching(net), Switch(net) as switch:
        for i in range(-warm_up, n):
            one = {}
            for on in (False, True) if i % 2 else (True, False):
                with switch.set(on):
                    one["watched" if on else "bare"] = case.seconds(net, x)
            rows.append(one) if i >= 0 else None
    return pd.DataFrame(rows)


class Switch(ExitStack):
    """Takes all forward hooks of a model off and puts them back, the same ones in the same order."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.tables = [
            table
            for module in net.modules()
            for table in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._forward_hooks_with_kwargs,
                module._forward_pre_hooks_with_kwargs,
                module._forward_hooks_always_called,
            )
        ]
        self.kept = [dict(table) for table in self.tables]

    @contextmanager
    def set(self, on: bool) -> Iterator[None]:
        for table, kept in zip(self.tables, self.kept, strict=True):
            table.clear()
            table.update(kept if on else {})
        try:
            yield
        finally:
            for table, kept in zip(self.tables, self.kept, strict=True):
                table.update(kept)


def times(case: Case, n: int, rivals: bool) -> Iterator[dict[str, object]]:
    """A row for every way to watch."""
    if case.form == TRAIN:
        for name, watching in TRAIN_PROBES.items():
            yield row(case, name, pairs(case, watching, n))
        return
    for name, watching in {**PROBES, **FLOOR, **(RIVALS if rivals else {})}.items():
        yield row(case, name, pairs(case, watching, max(n // 3, 3) if name in RIVALS else n))
    if not rivals:
        return
    for tool in ("nnsight", "torchlens"):
        try:
            version(tool)
        except PackageNotFoundError:
            tqdm.write(f"{tool} is not installed (pip install bnprobe[bench]): left out")
            continue
        net, x = case.net(), case.images()
        run = traced(tool, case, net, x)
        run()
        seen = [{"bare": case.seconds(net, x), "watched": seconds(case, run)} for _ in range(3)]
        yield row(case, tool, pd.DataFrame(seen))


def seconds(case: Case, act: Callable[[], None]) -> float:
    started = case.now()
    act()
    return case.now() - started


def row(case: Case, name: str, seen: pd.DataFrame) -> dict[str, object]:
    ratio = seen["watched"] / seen["bare"]
    result = {
        "model": case.model,
        "batch": case.batch,
        "device": case.device,
        "form": case.form,
        "clock": case.clock,
        "threads": torch.get_num_threads(),
        "watched_by": name,
        "bare_ms": 1e3 * seen["bare"].median(),
        "watched_ms": 1e3 * seen["watched"].median(),
        "ratio": ratio.median(),
        "ratio_low": ratio.min(),
        "ratio_high": ratio.max(),
        "n_pairs": len(ratio),
    }
    tqdm.write(
        f"{case.model:20s} {case.form:13s} {name:34s} {result['ratio']:6.3f}   "
        f"[{result['ratio_low']:.3f}, {result['ratio_high']:.3f}]   bare {result['bare_ms']:.0f} ms"
    )
    return result


# Memory


def peaks(case: Case) -> Iterator[dict[str, object]]:
    """Peak memory in MB above the bare run of the same length, each in a process of its own."""
    for n_batches in LENGTHS:
        bare = peak(case, "bare", n_batches)
        for name in PROBES:
            over = peak(case, name, n_batches) - bare
            tqdm.write(
                f"{case.model:20s} {name:34s} {over:+.0f} MB over {bare:.0f} after {n_batches} batches"
            )
            yield {"model": case.model, "form": case.form, "watched_by": name, f"memory_mb_{n_batches}": over}


def peak(case: Case, name: str, n_batches: int) -> float:
    command = [
        sys.executable,
        "-m",
        "scripts.performance.overhead",
        "--child",
        case.model,
        name,
        str(n_batches),
        case.device,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def child(model: str, name: str, n_batches: int, device: str) -> None:
    """The process whose memory is measured; prints its peak in MB."""
    case = Case(model, 2, device)
    net = case.net()
    with PROBES[name](net) if name in PROBES else nullcontext():
        for _ in range(n_batches):
            case.run(net, case.images())
    print(torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else resident_peak())


def resident_peak() -> float:
    """Peak resident memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # where getrusage counts the parent's memory from before the program was loaded
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1e3
    import resource

    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# What comes out


def machine(device: str) -> str:
    """Where and with what it was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = torch.cuda.get_device_name() if device == "cuda" else f"{cores} cores, {cpu_name()}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("bnprobe", "torch", "torchvision", "numba"))
    return f"{where}; {packages}, Python {platform.python_version()}"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def draw(table: pd.DataFrame, path: Path, where: str) -> None:
    """Ratios by model, a mark per way to watch, and the range of the pairs."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    shown = table.dropna(subset=["ratio"]).assign(
        case=lambda t: (
            t["model"] + ", batch " + t["batch"].astype(str) + t["form"].where(t["form"] != "float32", "")
        )
    )
    sns.set_theme(style="whitegrid")
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.8 * shown["case"].nunique()), layout="constrained")
    sns.stripplot(shown, x="ratio", y="case", hue="watched_by", dodge=True, size=7, ax=axes)
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set(
        xscale="log", xlabel="time of a forward pass, in units of the bare one (median of pairs)", ylabel=""
    )
    axes.xaxis.set_major_locator(mpl.ticker.FixedLocator([1, 1.1, 1.2, 1.5, 2, 3, 5, 10]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_title(where, fontsize=8)
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1, 1), title=None, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def cases(options: argparse.Namespace) -> list[Case]:
    if options.device == "cuda":
        forms = ("float32", "autocast", "channels_last")
        return [Case(model, CUDA_BATCH, "cuda", form) for model in options.models for form in forms]
    forward = [Case(model, BATCHES.get(model, 16), "cpu", clock=options.clock) for model in options.models]
    return forward + [Case(model, 16, "cpu", TRAIN, options.clock) for model in options.train_models]


def options_from(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(BATCHES), help="names that torchvision knows")
    parser.add_argument(
        "--train-models", nargs="*", default=["resnet18"], help="models whose training step is timed too"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of passes (default 9)")
    parser.add_argument("--threads", type=int, help="threads torch may use (default: as it comes)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of this process")
    parser.add_argument(
        "--rivals",
        nargs="*",
        default=["resnet50"],
        help="models on which the other ways to watch are timed too",
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory runs")
    parser.add_argument(
        "--quick", action="store_true", help="ResNet-50 alone, three pairs, no rivals or memory"
    )
    parser.add_argument("--out", type=Path, default=Path("reports/overhead"), help="path without its ending")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.models, options.train_models, options.pairs = ["resnet50"], [], 3
        options.rivals, options.no_memory = [], True
    return options


def main(arguments: list[str] | None = None) -> None:
    options = options_from(arguments)
    if options.child:
        model, name, n_batches, device = options.child
        child(model, name, int(n_batches), device)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    where = machine(options.device)
    tqdm.write(where)
    rows: list[dict[str, Any]] = []
    for case in tqdm(cases(options), desc="time", disable=None):
        rows.extend(times(case, options.pairs, case.model in options.rivals))
    write(rows, options.out, where)  # at once, so that an interrupted run keeps what it has
    measured = [] if options.no_memory else [case for case in cases(options) if case.form == "float32"]
    for case in tqdm(measured, desc="memory", disable=None):
        for one in peaks(case):
            for told in rows:
                if all(told[key] == one[key] for key in ("model", "form", "watched_by")):
                    told.update(one)
        write(rows, options.out, where)
    tqdm.write(f"→ {options.out.with_suffix('.csv')} and {options.out.with_suffix('.svg')}")


def write(rows: list[dict[str, Any]], out: Path, where: str) -> None:
    """The table and the picture of what was measured so far."""
    table = pd.DataFrame(rows).assign(machine=where)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out.with_suffix(".csv"), index=False, float_format="%.4g")
    draw(table, out.with_suffix(".svg"), where)


if __name__ == "__main__":
    main()
