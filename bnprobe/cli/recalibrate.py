"""`bnprobe recalibrate`: new running statistics from images, tried on other images before anything is written."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.paths import output_file
from bnprobe.cli.state_dict import new_file, save_state_dict
from bnprobe.cli.subject import add_subject, inputs_of, labels_of_the_model, running, subject_and_batches
from bnprobe.errors import BnprobeError
from bnprobe.printing import say, say_lines

if TYPE_CHECKING:
    from bnprobe.experiments.plan import Plan
    from bnprobe.models import Subject
    from bnprobe.models.image_folder import Batches
    from bnprobe.models.user_batches import UserBatches

MOST_ROWS = 12
"""Norms that the printed table lists: those that would change most."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "recalibrate",
        help="renew running statistics on your data, after trying on other samples what that does",
        description="Re-estimate the running statistics of batch norms (precise BN, AdaBN) on one half of the data, "
        "and measure on the other half what that does to the outputs. Nothing is written without --apply. SUBJECT is "
        "a torchvision model by name (see `bnprobe list`) or your own as package.module:function.",
    )
    command.add_argument("subject", metavar="SUBJECT", help="model whose statistics to renew")
    add_subject(command, reading=False)
    command.add_argument(
        "--preview-data",
        metavar="DIR",
        help="folder of images to try the new statistics on (default: every second image of --data, which is then "
        "left out of the estimate)",
    )
    command.add_argument(
        "--layers", metavar="PATTERN", action="append", help="renew only norms whose path matches"
    )
    command.add_argument(
        "--what", choices=("mean", "var", "both"), default="both", help="what to renew (default both)"
    )
    command.add_argument(
        "--alpha",
        type=_number,
        metavar="A",
        default=1.0,
        help="weight of the new statistics, 0 to 1 (default 1)",
    )
    command.add_argument(
        "--prior",
        type=_number,
        metavar="N",
        help="instead of --alpha: images that the stored statistics count for",
    )
    command.add_argument(
        "--layer-by-layer",
        action="store_true",
        help="renew norm after norm, each on what the renewed ones before it give: one pass per norm",
    )
    command.add_argument("--apply", action="store_true", help="write the renewed model's state dict to --out")
    command.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="FILE",
        help="with --apply: state dict to write, .safetensors or .pt; must not exist",
    )
    command.set_defaults(run=run)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number") from None


def run(options: argparse.Namespace) -> int:
    """Plan, preview, print; write only if asked to."""
    from bnprobe.experiments.recalibrate import recalibrate

    out = _out(options)
    subject, batches = subject_and_batches(options)
    fit, other = _halves(batches, options, subject)
    with running(subject, batches):
        other = labels_of_the_model(subject, other)
        plan = recalibrate(
            subject.model,
            inputs_of(subject, fit),
            what=("mean", "var") if options.what == "both" else options.what,
            alpha=options.alpha,
            prior=options.prior,
            layers=options.layers,
            layer_by_layer=options.layer_by_layer,
        )
        effect = plan.preview(inputs_of(subject, other))
    say(f"{subject.name}: {plan.how}.")
    say(f"Samples: {plan.n_samples:,} for the estimate, {effect.n:,} to try it.")
    say_lines(f"\n{_table(plan)}\n")
    for sentence in (*plan.notes, *effect.notes):
        say(f"Note: {sentence}")
    say(f"{effect.says[0].upper()}{effect.says[1:]}.")
    if not out:
        say("Nothing was written. To write the renewed state dict: --apply -o FILE.")
        return 0
    plan.apply()
    say(f"state dict: {save_state_dict(subject.model, out)}")
    return 0


def _out(options: argparse.Namespace) -> Path | None:
    """Where to write; refused before minutes of work."""
    if options.apply != bool(options.out):
        raise BnprobeError(
            "--apply needs -o FILE, the state dict to write."
            if options.apply
            else "-o FILE is written with --apply only. Add it."
        )
    return new_file(options.out, "recalibrate", options.checkpoint) if options.out else None


def _halves(batches: Batches | UserBatches, options: argparse.Namespace, subject: Subject) -> tuple[Any, Any]:
    """What the statistics are made from, and what they are tried on."""
    from bnprobe.models import image_folder
    from bnprobe.models.user_batches import UserBatches

    if options.preview_data:
        source = image_folder.find_images(options.preview_data)
        return batches, source.batches(subject.preprocess, options.batch_size, None)
    if isinstance(batches, UserBatches):
        every = list(batches)
        n, unit = len(every), "batches"
        halves: list[Any] = [replace(batches, whole=every[i::2], limit=None) for i in (0, 1)]
    else:
        n, unit = len(batches.picked), "images"
        halves = [replace(batches, picked=batches.picked[i::2], unreadable=[]) for i in (0, 1)]
    if n < 2:
        raise BnprobeError(
            f"there are fewer than two {unit}, one to renew the statistics on and one to try them. Give more."
        )
    return halves[0], halves[1]


def _table(plan: Plan) -> str:
    """The norms that change most, as text."""
    columns = {
        "layer": "norm",
        "n_channels": "channels",
        "shift_median": "mean moves by (σ)",
        "shift_error_median": "± (σ)",
        "var_ratio_median": "variance ×",
    }
    layers = plan.layers
    size = layers["shift_median"].fillna(0) + layers["var_ratio_median"].clip(lower=1e-30).map(math.log).abs()
    shown = layers.loc[size.sort_values(ascending=False, kind="stable").index[:MOST_ROWS].sort_values()]
    more = len(layers) - len(shown)
    text = (
        shown[list(columns)]
        .rename(columns=columns)
        .to_string(index=False, float_format=lambda value: f"{value:.3g}")
    )
    return text + (f"\n({more} more change less)" if more else "") + "\n"
