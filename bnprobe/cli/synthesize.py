"""`bnprobe synthesize`: images made from running statistics and classes, their controls and another network's verdict."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.ablate import INTERRUPTED, seconds
from bnprobe.cli.paths import default_page, demand_writable, output_file
from bnprobe.cli.state_dict import new_file
from bnprobe.cli.subject import (
    add_subject,
    inputs_of,
    labels_of_the_model,
    positive,
    running,
    subject_and_batches,
)
from bnprobe.errors import BnprobeError
from bnprobe.printing import say

if TYPE_CHECKING:
    from bnprobe.models import Subject
    from bnprobe.models.image_folder import Batches
    from bnprobe.models.subject import Constants
    from bnprobe.models.user_batches import UserBatches


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "synthesize",
        help="make images from the running statistics and classes, without data, and have another network judge them",
        description="Optimize noise until every batch norm sees its running mean and variance and each image gets "
        "its class; "
        "the same without statistics, without classes, and with the statistics of other channels, as controls. No data are "
        "needed. SUBJECT is a torchvision model by name (see `bnprobe list`) or your own as package.module:function.",
    )
    command.add_argument("subject", metavar="SUBJECT", help="trained model to make images from")
    add_subject(command, reading=False, data="for comparison; default: none")
    command.add_argument(
        "--judge",
        metavar="SUBJECT",
        help="another trained network of the same classes, which judges the images",
    )
    command.add_argument("--judge-weights", metavar="NAME", help="torchvision weights of the judge")
    command.add_argument("--judge-checkpoint", metavar="FILE", help="state dict of the judge")
    command.add_argument(
        "-n", "--images", type=positive, default=64, metavar="N", help="images to make (default 64)"
    )
    command.add_argument(
        "--targets",
        type=_classes,
        metavar="A,B,...",
        help="numbers of the classes of the images, repeated in turn (default: all classes by turns)",
    )
    command.add_argument(
        "--steps", type=positive, default=150, metavar="N", help="steps of each way (default 150)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default 0)")
    command.add_argument(
        "--no-controls", action="store_true", help="make the images alone, in a quarter of the time"
    )
    command.add_argument(
        "--budget", type=seconds, metavar="S", help="seconds after which to stop with what is there"
    )
    command.add_argument(
        "--state",
        type=output_file,
        metavar="FILE",
        help="keep the run in this file; the same command goes on from there",
    )
    command.add_argument(
        "--save",
        type=output_file,
        metavar="FILE",
        help="also write images and classes, NAME.safetensors; must not exist",
    )
    command.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="FILE",
        help="the page to write (default reports/SUBJECT-made.html)",
    )
    command.set_defaults(run=run)


def _classes(text: str) -> list[int]:
    """Numbers of classes, as the type of an option."""
    parts = text.split(",")
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no list of classes like 3,17,281")
    return [int(part) for part in parts]


def run(options: argparse.Namespace) -> int:
    """Make images, write the page, print the answer."""
    out = (
        Path(options.out) if options.out else default_page(f"{options.subject.rpartition(':')[2]}-made.html")
    )
    state = Path(options.state) if options.state else None
    read = [options.checkpoint, options.judge_checkpoint, options.data]
    demand_writable([out, state], read)
    save = new_file(options.save, "synthesize", options.checkpoint, out, state) if options.save else None
    if save is not None and save.suffix != ".safetensors":
        raise BnprobeError(f"{save.name} is written as safetensors. Name it {save.stem}.safetensors.")
    made = _made(options, state)
    page = made.to_html(out)
    say(made.answer)
    for sentence in made.notes:
        say(f"Note: {sentence}")
    if save:
        say(f"images: {made.save(save)}")
    say(f"page: {page}")
    return INTERRUPTED if made.interrupted else 0


def _made(options: argparse.Namespace, state: Path | None) -> Any:
    from bnprobe.experiments.synthesize.synthesize import synthesize

    subject, batches = _subject(options)
    judge = _judge(options)
    data = (
        None
        if batches is None
        else inputs_of(subject, labels_of_the_model(subject, batches, "they are ignored"))
    )
    with nullcontext() if batches is None else running(subject, batches):
        made = synthesize(
            subject.model,
            n=options.images,
            targets=options.targets,
            steps=options.steps,
            judge=None if judge is None else judge.model,
            shape=options.size,
            normalize=subject.normalize,
            judge_normalize=None if judge is None else judge.normalize,
            data=data,
            controls=not options.no_controls,
            seed=options.seed,
            budget_s=options.budget,
            state=state,
        )
    names = _names(subject, batches)
    return replace(
        made,
        model=subject.name,
        judge="" if judge is None else judge.name,
        class_names=names if len(names) == made.n_classes else (),  # folders may hold some of the classes
    )


def _subject(options: argparse.Namespace) -> tuple[Subject, Batches | UserBatches | None]:
    """The model, and images where they were named."""
    if options.data or options.batches:
        return subject_and_batches(options)
    from bnprobe import models

    names = ("weights", "checkpoint", "size")
    subject = models.subject(options.subject, **{name: getattr(options, name) for name in names})
    return replace(subject, normalize=_constants(options, subject)), None


def _constants(options: argparse.Namespace, subject: Subject) -> Constants | None:
    """Mean and std of the channels as given, however many: no image file, of one or three, is read. Else the subject's."""
    if options.mean is None and options.std is None:
        return subject.normalize
    mean, std = subject.normalize or ((0.0,), (1.0,))
    return options.mean or mean, options.std or std


def _judge(options: argparse.Namespace) -> Subject | None:
    """The other network, if there is one."""
    if not options.judge:
        given = [f"--judge-{name}" for name in ("weights", "checkpoint") if getattr(options, f"judge_{name}")]
        if given:
            raise BnprobeError(
                f"{' and '.join(given)} without --judge can change nothing. Name the judge, too."
            )
        return None
    from bnprobe import models

    judge = models.subject(options.judge, weights=options.judge_weights, checkpoint=options.judge_checkpoint)
    own = ":" in options.judge  # torchvision's weights know their preprocessing
    return replace(judge, normalize=_constants(options, judge)) if own else judge


def _names(subject: Subject, batches: Batches | UserBatches | None) -> tuple[str, ...]:
    """What the classes are called: by the weights, else by the folders of the images."""
    source = getattr(batches, "source", None)
    return subject.classes or (() if source is None else source.classes)
