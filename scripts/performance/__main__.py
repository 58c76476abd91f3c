"""Everything that a probe, a check and a page cost, beside its limit, in one run: reports/performance.md.

    python -m scripts.performance                    # on a quiet machine, half an hour
    python -m scripts.performance --only check page  # some parts; the other lines stay as they were

Each part is a process of its own, and a ratio has its bare pass in the same one. Limits are those of two quiet cores. The
parts: `first` and `steady` (which see for their own tables), `check`, `import` and `page`. Browser times need chromium and
chromedriver. Of other tools, `steady` runs those that are installed, on the same passes.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.performance import page_budget, page_times

TABLE, PAGE = Path("reports/performance.csv"), Path("reports/performance.md")
FIRST, STEADY = Path("reports/first_pass.csv"), Path("reports/overhead.csv")

FIRST_LIMITS = {"resnet50": 2.0, "mobilenet_v3_large": 2.5, "vit_b_16": 1.5}
"""Attach, one pass and detach, in bare passes: the first time in a process."""
AGAIN_LIMIT = 1.5

PLAIN, USUAL = "bnprobe, histograms=False", "bnprobe, as it comes"
STEADY_LIMITS = {
    ("resnet50", "float32"): (1.03, 1.05),
    ("mobilenet_v3_large", "float32"): (1.10, 1.10),
    ("densenet121", "float32"): (1.08, 1.08),
    ("convnext_tiny", "float32"): (1.03, 1.03),
    ("vit_b_16", "float32"): (1.03, 1.03),
    ("resnet18", "train step"): (1.06, 1.06),
}
"""A pass with the probe, in bare passes: without histograms, and by default."""
RAM_LIMIT = 120.0
"""Megabytes above the bare process, on ResNet-50."""

CHECK_LIMITS = {".safetensors": (1.0, 200.0), ".pt": (1.5, None)}
"""Of `bnprobe check` on a ResNet-50, the whole process: seconds, and megabytes of RAM."""
IMPORT_LIMIT = 50.0
ROUNDS = 5

MADE = """
import sys, torch, torchvision
from safetensors.torch import save_file
state = torchvision.models.resnet50().state_dict()
save_file(state, sys.argv[1] + "/model.safetensors")
torch.save(state, sys.argv[1] + "/model.pt")
"""

RUN = """
import resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(code, time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""From a small process of its own: the peak that Linux tells of a child counts what its parent held when it began."""

IMPORTED = (
    "import time; began = time.perf_counter(); import bnprobe; print(1000 * (time.perf_counter() - began))"
)


class Line(NamedTuple):
    """One number, in the words of a reader, and what it should be at most; None where no limit is set."""

    part: str
    what: str
    value: float
    unit: str
    limit: float | None


def first() -> Iterator[Line]:
    """`first_pass`, with its table."""
    _run("scripts.performance.first_pass")
    for row in _rows(FIRST):
        model, words = row["model"], f"{row['model']}, batch {row['batch']}"
        yield Line(
            "first", f"attach, one pass, detach: {words}", float(row["first"]), "passes", FIRST_LIMITS[model]
        )
        yield Line("first", f"the same again: {words}", float(row["again"]), "passes", AGAIN_LIMIT)


def steady() -> Iterator[Line]:
    """`overhead`, with its table and figure."""
    _run("scripts.performance.overhead")
    for row in _rows(STEADY):
        key, by = (row["model"], row["form"]), row["watched_by"]
        limits = dict(zip((PLAIN, USUAL), STEADY_LIMITS.get(key, (None, None)), strict=True))
        words = f"{row['model']}, batch {row['batch']}, {row['form']}: {by}"
        yield Line("steady", words, float(row["ratio"]), "passes", limits.get(by))
        if row["memory_mb_50"]:
            limit = RAM_LIMIT if row["model"] == "resnet50" else None
            yield Line(
                "steady",
                f"RAM after 50 batches, {row['model']}: {by}",
                float(row["memory_mb_50"]),
                "MB",
                limit,
            )


def check() -> Iterator[Line]:
    """Whole processes, one format after the other in each round."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", MADE, folder], check=True)
        command = [sys.executable, "-m", "bnprobe", "check"]
        runs = {ending: [[*command, f"{folder}/model{ending}"]] * (ROUNDS + 1) for ending in CHECK_LIMITS}
        found = [{ending: _process(runs[ending][i]) for ending in runs} for i in range(ROUNDS + 1)][1:]
    for ending, (seconds, megabytes) in CHECK_LIMITS.items():
        words = f"bnprobe check, ResNet-50 as {ending}, whole process"
        yield Line("check", words, statistics.median(one[ending][0] for one in found), "s", seconds)
        yield Line("check", words, statistics.median(one[ending][1] for one in found), "MB", megabytes)


def imported() -> Iterator[Line]:
    """`import bnprobe` alone."""
    run = [sys.executable, "-c", IMPORTED]
    each = [float(subprocess.check_output(run, text=True)) for _ in range(ROUNDS + 1)][1:]
    yield Line("import", "import bnprobe", statistics.median(each), "ms", IMPORT_LIMIT)


def page() -> Iterator[Line]:
    """Making pages, their size, and what a browser needs for them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (seconds, megabytes) in page_budget.BUDGETS.items():
            recording, made = Path(folder, f"{name}.bnp"), Path(folder, f"{name}.html")
            page_budget.record(name, recording)
            page_budget.measure(recording, made)  # whose modules lie in RAM from now on
            found = [page_budget.measure(recording, made) for _ in range(3)]
            words = f"page of {name}"
            yield Line(
                "page", f"{words}, made", statistics.median(one["seconds"] for one in found), "s", seconds
            )
            yield Line("page", f"{words}, size", found[0]["bytes"] / 1e6, "MB", megabytes)
            if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
                print(
                    f"{words}: browser times are left out, since chromium and chromedriver are not installed."
                )
                continue
            for what, value in page_times.times(made, ROUNDS).items():
                unit = "of the window" if what == "shift" else "ms"
                yield Line("page", f"{words}, {what}", value, unit, page_times.LIMITS[what])


PARTS: dict[str, Callable[[], Iterator[Line]]] = {
    "first": first,
    "steady": steady,
    "check": check,
    "import": imported,
    "page": page,
}


def _run(module: str) -> None:
    subprocess.run([sys.executable, "-m", module], check=True)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _process(command: list[str]) -> tuple[float, float]:
    """Seconds and megabytes (10^6) at the most of a process; findings are its answer and no failure."""
    code, seconds, kibibytes = subprocess.check_output(
        [sys.executable, "-c", RUN, *command], text=True
    ).split()
    if code not in ("0", "1"):
        raise SystemExit(f"{' '.join(command)} ended with {code}. Run it by itself.")
    return float(seconds), int(kibibytes) * 1024 / 1e6


def text(lines: list[Line]) -> str:
    """The table as Markdown, and how many are within their limits."""
    limited = [line for line in lines if line.limit is not None]
    within = sum(line.value <= line.limit for line in limited if line.limit is not None)
    head = [
        "# What it costs",
        "",
        "Made by `python -m scripts.performance` on two shared cores; passes are bare passes of the same process. "
        f"{within} of {len(limited)} are within their limits.",
        "",
        "| what | measured | limit | |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *map(_row, lines), ""])


def _row(line: Line) -> str:
    limit = "" if line.limit is None else f"{line.limit:g}"
    mark = "" if line.limit is None else "within" if line.value <= line.limit else "over"
    return f"| {line.what} | {line.value:.3g} {line.unit} | {limit} | {mark} |"


def kept(path: Path) -> list[Line]:
    """The lines of an earlier run."""
    rows = _rows(path) if path.exists() else []
    return [
        Line(
            row["part"],
            row["what"],
            float(row["value"]),
            row["unit"],
            float(row["limit"]) if row["limit"] else None,
        )
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="some of the parts"
    )
    options = parser.parse_args()
    lines = kept(TABLE)
    for name in options.only:
        found = []
        for line in PARTS[name]():
            print(_row(line), flush=True)
            found.append(line)
        lines = sorted(
            [*(line for line in lines if line.part != name), *found],
            key=lambda line: list(PARTS).index(line.part),
        )
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([Line._fields, *lines])
        PAGE.write_text(text(lines), encoding="utf-8")
    print(f"→ {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
