"""What experiments cost, and whether their intervals keep their word; each line in a fresh process, beside its limit.

    FILES="--checkpoint cifar_resnet20.th --data cifar10_jpeg --photographs imagenet_samples"
    python -m scripts.performance.experiments $FILES
    python -m scripts.performance.experiments $FILES --only preview      # one line, printed alone

Writes reports/experiments.csv and experiments.md. The checkpoint and the images are those of reports/README.md; mobilenet_v2
has torchvision's weights, in whose cache scripts/mobilenet_v2.py puts them. Wall seconds are those of a quiet machine only:
CPU seconds stand beside them. RAM is the peak of the process, beside that of one that loads the same and evaluates.
Intervals are those of scripts/ablation_intervals.py. Some fifteen minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

import bnprobe
from bnprobe import models
from bnprobe.experiments.prefix import LIMIT_MB
from bnprobe.models import image_folder
from scripts import ablation_intervals as intervals
from scripts.recalibration_study import Images, batches, images, network

N_PREVIEW, N_ABLATE, BUDGET = 1000, 500, 120
N_DIRECTIONS, N_STUDIES, N_NULL = 4, 100, 1000
Batches = list[Any]
Values = dict[str, float]


class Limit(NamedTuple):
    """What a value of a line must not exceed, or must reach."""

    line: str
    value: str
    most: float
    words: str
    at_least: bool = False


LIMITS = (
    Limit(
        "preview",
        "times",
        2,
        "recalibrate and preview of ResNet-20 on 1,000 images, in times of three evaluations",
    ),
    Limit("ablate", "seconds", 90, "ablation of all vectors of ResNet-20 on 500 images, seconds"),
    Limit("budget", "seconds", 130, f"mobilenet_v2 with budget_s={BUDGET}, seconds"),
    Limit(
        "budget",
        "ram_over_bare",
        1.5,
        f"its peak RAM without the cache of {LIMIT_MB} MB, in times of an evaluation",
    ),
    Limit("null", "accuracy", 0.05, "a change of nothing: share of intervals of accuracy that exclude it"),
    Limit("null", "loss", 0.05, "the same for the loss"),
    Limit(
        "planted",
        "accuracy",
        0.8,
        "2 points of accuracy planted, 1,000 samples: share detected by accuracy (`best_test`: what the best test of "
        "matched pairs can)",
        True,
    ),
    Limit("planted", "loss", 0.8, "the same, detected by the loss", True),
)


class Seconds(NamedTuple):
    """By the clock, and of all cores."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> tuple[Any, Seconds]:
    """What `work` returns, and how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def peak_mb() -> float:
    """Of this process until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def evaluate(model: nn.Module, some: Batches) -> None:
    """A bare pass."""
    with torch.no_grad():
        for x, *_ in some:
            model(x)


def resnet20(options: argparse.Namespace, part: str, n: int) -> tuple[nn.Module, Batches]:
    """The network and its first n images of a part of the data, in batches of 100."""
    whole = images(options.data / part)
    return network(options.checkpoint), batches(Images(whole.x[:n], whole.y[:n]), 100)


def mobilenet_v2(options: argparse.Namespace) -> tuple[nn.Module, Batches]:
    """With torchvision's weights, and all photographs in batches of 8, without labels."""
    subject = models.subject("mobilenet_v2", weights="IMAGENET1K_V1")
    source = image_folder.find_images(options.photographs)
    given = [subject.to_inputs(batch.images) for batch in source.batches(subject.preprocess, 8)]
    return subject.model.eval(), [x if isinstance(x, tuple) else (x,) for x in given]


def bare(load: Callable[[], tuple[nn.Module, Batches]]) -> Values:
    """The peak of a process that evaluates and nothing else."""
    evaluate(*load())
    return {"peak_mb": peak_mb()}


def preview(options: argparse.Namespace) -> Values:
    """Medians of five rounds: three evaluations, and beside them the plan and its preview, which are three passes too."""
    model, tried = resnet20(options, "test", N_PREVIEW)
    _, fit = resnet20(options, "train", N_PREVIEW)

    def three() -> None:
        for _ in range(3):
            evaluate(model, tried)

    rounds = []
    for _ in range(6):
        _, alone = timed(three)
        _, both = timed(lambda: bnprobe.recalibrate(model, fit).preview(tried))
        rounds.append((both.wall / alone.wall, both.cpu / alone.cpu, both.wall, both.cpu))
    times, by_cpu, wall, cpu = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
    return {"times": times, "times_cpu": by_cpu, "seconds": wall, "cpu_seconds": cpu, "peak_mb": peak_mb()}


def ablate(options: argparse.Namespace) -> Values:
    """All replacements of all 19 norms, their stages and the network."""
    model, tried = resnet20(options, "test", N_ABLATE)
    study, took = timed(lambda: bnprobe.ablate(model, tried))
    return {"seconds": took.wall, "cpu_seconds": took.cpu, "rows": len(study.table), "peak_mb": peak_mb()}


def budget(options: argparse.Namespace) -> Values:
    """What is measured in two minutes, and how the estimates agree with it."""
    model, tried = mobilenet_v2(options)
    study, took = timed(lambda: bnprobe.ablate(model, tried, budget_s=BUDGET))
    measured = study.table[~study.table["estimated"]]
    decisions = measured["estimate"].rank().corr(measured["kl"].rank())
    return {
        "seconds": took.wall,
        "cpu_seconds": took.cpu,
        "samples": study.n_samples,
        "rows": len(study.table),
        "measured": len(measured),
        "measured_layers": int((measured["level"] == "layer").sum()),
        "rank_correlation": study.rank_correlation,
        "rank_correlation_kl": float(decisions),
        "peak_mb": peak_mb(),
    }


def null(options: argparse.Namespace) -> Values:
    """The bias of a norm rounded: 5 % of the intervals may exclude the true difference."""
    model = intervals.trained()
    rounded = model[1].bias.detach().bfloat16().float()
    true = {"accuracy": 0.0, "loss": intervals.loss_difference(model, rounded)}
    shares = {
        name: intervals.excluded(model, rounded, N_NULL, metric, true[name])
        for name, metric in intervals.METRICS.items()
    }
    return {**shares, "studies": N_NULL}


def planted(options: argparse.Namespace) -> Values:
    """The bias of a norm moved in several directions, each until the accuracy has fallen by two points."""
    model = intervals.trained()
    found: dict[str, list[float]] = {name: [] for name in (*intervals.METRICS, "best_test")}
    for seed in range(N_DIRECTIONS):
        bias = intervals.moved(model, 0.02, seed)
        for name, metric in intervals.METRICS.items():
            found[name].append(intervals.excluded(model, bias, N_STUDIES, metric))
        found["best_test"].append(intervals.power(*intervals.changed(model, bias), intervals.N_SAMPLES))
    return {
        **{name: statistics.fmean(shares) for name, shares in found.items()},
        "studies": N_DIRECTIONS * N_STUDIES,
    }


def lines(options: argparse.Namespace) -> dict[str, Callable[[], Values]]:
    """By name; those that begin with "bare" are what others are compared with."""
    return {
        "bare resnet20": partial(bare, lambda: resnet20(options, "test", N_PREVIEW)),
        "bare mobilenet_v2": partial(bare, lambda: mobilenet_v2(options)),
        **{work.__name__: partial(work, options) for work in (preview, ablate, budget, null, planted)},
    }


def table_of(found: dict[str, Values]) -> pd.DataFrame:
    """A row per value: line, value, what it is, its limit, and whether that is kept."""
    if "budget" in found and "bare mobilenet_v2" in found:
        beyond = found["budget"]["peak_mb"] - LIMIT_MB
        found["budget"]["ram_over_bare"] = beyond / found["bare mobilenet_v2"]["peak_mb"]
    limits = {(limit.line, limit.value): limit for limit in LIMITS}
    rows = []
    for line, values in found.items():
        for value, number in values.items():
            limit = limits.get((line, value))
            row = {"line": line, "value": value, "number": number, "limit": "", "kept": "", "words": ""}
            if limit:
                kept = number >= limit.most if limit.at_least else number <= limit.most
                row |= {"limit": limit.most, "kept": "yes" if kept else "no", "words": limit.words}
            rows.append(row)
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame, cores: int) -> str:
    """What has a limit, and below it everything."""
    text = ["# What experiments cost, and what their intervals promise", ""]
    text += [f"Made by `python -m scripts.performance.experiments` on {cores} cores.", ""]
    text += ["| what | limit | measured | kept |", "|---|---|---|---|"]
    for _, row in table[table["kept"] != ""].iterrows():
        least = next(one.at_least for one in LIMITS if (one.line, one.value) == (row["line"], row["value"]))
        text.append(
            f"| {row['words']} | {'≥' if least else '≤'} {row['limit']:g} | {row['number']:.3g} | {row['kept']} |"
        )
    text += ["", "| line | value | number |", "|---|---|---|"]
    text += [f"| {row['line']} | {row['value']} | {row['number']:.4g} |" for _, row in table.iterrows()]
    return "\n".join(text) + "\n"


def apart(name: str, given: list[str]) -> Values:
    """A line, measured by this program in a process of its own."""
    command = [sys.executable, "-m", "scripts.performance.experiments", *given, "--only", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="weights of the ResNet-20"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder with train/ and test/"
    )
    parser.add_argument("--photographs", type=Path, required=True, metavar="DIR", help="for mobilenet_v2")
    parser.add_argument("--threads", type=int, default=2, help="cores that torch uses (default 2)")
    parser.add_argument(
        "--only", metavar="NAME", help="measure this line in this process, and print it as JSON"
    )
    parser.add_argument("--lines", nargs="+", metavar="NAME", help="lines to measure (default all)")
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="where to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    known = lines(options)
    if options.only:
        print(json.dumps(known[options.only]()))
        return
    given = [
        f"--{name}={getattr(options, name)}" for name in ("checkpoint", "data", "photographs", "threads")
    ]
    found = {name: apart(name, given) for name in tqdm(options.lines or known)}
    table = table_of(found)
    table.to_csv(options.out / "experiments.csv", index=False, float_format="%.6g")
    text = markdown(table, min(options.threads, os.cpu_count() or 1))
    (options.out / "experiments.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
