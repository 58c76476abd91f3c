"""How true the judgement is: faults that were planted, problems of real users, and networks with nothing wrong.

    python -m scripts.rule_benchmark                     # everything, some fifteen minutes; reports/rule_benchmark.md
    python -m scripts.rule_benchmark --parts cases       # or planted, healthy, remedies, code, statistics, ...
    python -m scripts.rule_benchmark --only dropout      # faults and cases whose name, model, kind or rule holds the word
    python -m scripts.rule_benchmark --without-held-out  # while thresholds are being worked on

Tables: planted.csv, remedies.csv, code.csv (code of advice that no planted fault runs), cases.csv, healthy.csv
and tokens.csv (small transformers, trained with a mistake or none,
a minute each on a quiet core) in the folder of --out; sums by kind in rule_benchmark.md;
statistics.csv, in which nominal error rates stand beside those found on data whose truth is known, and
dependence.csv, of images that are copied, in order, or the same on both sides of a comparison.
The sums take in the parts that an earlier run left in that folder.
Exits with 1 where a fault is missed, or a warning is given on what is right.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import pandas as pd

from scripts.rule_benchmark.code_remedies import code_remedies
from scripts.rule_benchmark.dependence import dependence
from scripts.rule_benchmark.healthy import networks
from scripts.rule_benchmark.only import parts_with
from scripts.rule_benchmark.planted import chosen, planted
from scripts.rule_benchmark.remedies import remedies
from scripts.rule_benchmark.run_cases import run_cases
from scripts.rule_benchmark.statistics import statistics
from scripts.rule_benchmark.subjects import subjects
from scripts.rule_benchmark.summary import summary
from scripts.rule_benchmark.tokens import tokens

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("planted", "remedies", "code", "cases", "healthy", "tokens", "statistics", "dependence")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--only", default="", metavar="WORD", help="faults and cases that hold it")
    parser.add_argument(
        "--without-held-out", action="store_true", help="leave out the faults that were held out"
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=Path.home() / ".cache" / "bnprobe" / "planted",
        metavar="DIR",
        help="where trained models are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        metavar="DIR",
        help="folder with cifar_resnet20.th, cifar10_jpeg and imagenet_samples (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reports"), metavar="DIR", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"--parts: no part {', '.join(sorted(unknown))}. There are {', '.join(PARTS)}.")
    try:
        options.parts = parts_with(options.parts, options.only, not options.without_held_out)
    except LookupError as error:
        parser.exit(2, f"{error.args[0]}\n")
    return options


def with_earlier(tables: dict[str, pd.DataFrame], folder: Path) -> dict[str, pd.DataFrame]:
    """These tables, and those of other parts that an earlier run left in the folder."""
    left = {name: folder / f"{name}.csv" for name in PARTS}
    # what is empty was written as nothing
    earlier = {name: pd.read_csv(path, keep_default_na=False) for name, path in left.items() if path.exists()}
    return {**earlier, **tables}


def main() -> int:
    options = parse()
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    options.out.mkdir(parents=True, exist_ok=True)
    tables: dict[str, pd.DataFrame] = {}
    if "planted" in options.parts:
        faults = chosen(options.only, not options.without_held_out)
        found = subjects(options.models, options.data, {fault.subject for fault in faults})
        tables["planted"], _ = planted(faults, found)
    if "remedies" in options.parts:
        faults = chosen(options.only, not options.without_held_out)
        found = subjects(options.models, options.data, {fault.subject for fault in faults})
        tables["remedies"] = remedies(faults, found)
        print(tables["remedies"].drop(columns="why").round(3).to_string(index=False))
    if "code" in options.parts:
        tables["code"] = code_remedies(options.only)
        print(tables["code"].drop(columns="code").round(4).to_string(index=False))
    if "cases" in options.parts:
        tables["cases"] = run_cases(options.only)
        print(tables["cases"][["outcome", "case", "look", "missing", "others"]].to_string(index=False))
    if "healthy" in options.parts:
        tables["healthy"] = networks(options.models, options.data, new=not options.only)
        print(tables["healthy"].to_string(index=False))
    if "tokens" in options.parts:
        tables["tokens"] = tokens(options.models, options.only)
        print(tables["tokens"].to_string(index=False))
    if "statistics" in options.parts:
        tables["statistics"] = statistics(options.data)
        print(tables["statistics"].to_string(index=False))
    if "dependence" in options.parts:
        tables["dependence"] = dependence(options.models, options.data)
        print(tables["dependence"].round(4).to_string(index=False))
    for name, table in tables.items():
        table.to_csv(options.out / f"{name}.csv", index=False)
    whole = not options.only and not options.without_held_out
    text, fine = summary(tables)
    print(f"\n{text}")
    if whole:
        text, _ = summary(with_earlier(tables, options.out))
        (options.out / "rule_benchmark.md").write_text(text, encoding="utf-8")
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
