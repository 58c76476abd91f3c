"""`bnprobe ablate`: what each vector of each norm is worth, on images or on the user's own batches."""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.paths import default_page, demand_writable, output_file
from bnprobe.cli.subject import add_subject, inputs_of, labels_of_the_model, running, subject_and_batches
from bnprobe.printing import say

if TYPE_CHECKING:
    from bnprobe.models import Subject
    from bnprobe.report.study import Study

VECTORS = ("mean", "var", "scale", "centering", "weight", "bias")

INTERRUPTED = 130


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "ablate",
        help="measure what each running mean, running variance, γ and β is worth",
        description="Replace one vector of a norm at a time (by 0 or 1, its mean, a permutation, what the data give, what "
        "previous layers imply), in each layer, each stage and the whole network, and measure what that does to the "
        "accuracy, or to the decisions where there are no labels. The model is not changed. SUBJECT is a torchvision model "
        "by name (see `bnprobe list`) or your own as package.module:function.",
    )
    command.add_argument("subject", metavar="SUBJECT", help="model whose norms to study")
    add_subject(command, reading=False)
    command.add_argument(
        "--layers", metavar="PATTERN", action="append", help="study only norms whose path matches"
    )
    command.add_argument(
        "--vectors",
        metavar="NAME",
        nargs="+",
        choices=VECTORS,
        default=VECTORS,
        help="what to replace: mean, var, weight, bias; scale and centering of layer and RMS norms (default all)",
    )
    add_budget(command)
    command.add_argument(
        "--metric",
        choices=("loss",),
        help="measure the cross entropy to labels or next tokens, instead of the accuracy or the agreement",
    )
    command.add_argument(
        "--initial", metavar="FILE", help="state dict at initialization, for one replacement more"
    )
    command.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="FILE",
        help="the page to write (default reports/SUBJECT-worth.html)",
    )
    command.add_argument("--csv", type=output_file, metavar="FILE", help="also write the table")
    command.add_argument(
        "--save",
        type=output_file,
        metavar="FILE",
        help="also save the study as JSON, for `bnprobe report --study FILE`",
    )
    command.set_defaults(run=run)


def add_budget(command: argparse.ArgumentParser) -> None:
    """The option that bounds the time of a study."""
    command.add_argument(
        "--budget",
        type=seconds,
        metavar="S",
        help="seconds for ablations: measure what matters most by a first-order estimate, mark the rest as estimated",
    )


def seconds(text: str) -> float:
    """A positive number, as the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of seconds")
    return value


def run(options: argparse.Namespace) -> int:
    """Measure, write the page, print the answer."""
    name = options.subject.rpartition(":")[2]
    out = Path(options.out) if options.out else default_page(f"{name}-worth.html")
    csv = Path(options.csv) if options.csv else None
    save = Path(options.save) if options.save else None
    demand_writable([out, csv, save], [options.checkpoint, options.initial, options.data])
    subject, batches = subject_and_batches(options)
    study = studied(
        subject, batches, options.vectors, options.layers, options.budget, options.initial, options.metric
    )
    page = study.to_html(out)
    say(study.answer)
    for sentence in study.notes:
        say(f"Note: {sentence}")
    if csv:
        from bnprobe.files import write_output
        from bnprobe.report.formats.tables import csv_of

        say(f"table: {write_output(csv, csv_of(study.table))}")
    if save:
        say(f"study: {study.save(save)}")
    say(f"page: {page}")
    return INTERRUPTED if study.interrupted else 0


def studied(
    subject: Subject,
    batches: Any,
    vectors: Sequence[str] = VECTORS,
    layers: list[str] | None = None,
    budget_s: float | None = None,
    initial: str | None = None,
    metric: str | None = None,
) -> Study:
    """The study of a subject on its batches, in which images are shuffled: if it is stopped, it has seen all classes."""
    from bnprobe.experiments.ablate import ablate
    from bnprobe.models.checkpoint_file import load_checkpoint
    from bnprobe.models.user_batches import UserBatches

    if not isinstance(batches, UserBatches):
        picked = list(batches.picked)
        random.Random(0).shuffle(picked)
        batches = replace(batches, picked=tuple(picked), unreadable=[])
    state = load_checkpoint(initial) if initial else None
    with running(subject, batches):
        study = ablate(
            subject.model,
            inputs_of(subject, labels_of_the_model(subject, batches)),
            metric=metric,
            vectors=vectors,
            layers=layers,
            budget_s=budget_s,
            initial=state,
        )
    return replace(study, model=subject.name)
