"""`bnprobe invariances`: what moves a model's outputs and should not, on images or on the user's own batches."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from bnprobe.cli.severity import add_fail_on, exit_code
from bnprobe.cli.subject import add_subject, inputs_of, running, subject_and_batches
from bnprobe.printing import say

if TYPE_CHECKING:
    from bnprobe.models import Subject
    from bnprobe.report.invariances import Invariances


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "invariances",
        help="try what must not move outputs: the last token, padding, other samples of the batch",
        description="Change the last token (outputs of earlier tokens must stay), add padding (those of tokens must stay), "
        "and run a sample alone (its outputs must stay), and name the first norm whose input changes where they do not. The "
        "model is not changed. Tokens come from --batches; with images only the batch is tried. SUBJECT is a torchvision "
        "model by name (see `bnprobe list`) or your own as package.module:function.",
    )
    command.add_argument("subject", metavar="SUBJECT", help="model to try")
    add_subject(command, reading=False)
    add_options(command)
    command.add_argument("--train-mode", action="store_true", help="run the model in train mode")
    add_fail_on(command)
    command.set_defaults(run=run)


def add_options(command: argparse.ArgumentParser) -> None:
    """What is to be known of the model."""
    command.add_argument(
        "--mask", metavar="NAME", help="argument that holds the mask, ~NAME if it is true for padding"
    )
    add_causal(command)


def add_causal(command: argparse.ArgumentParser) -> None:
    """The option --causal."""
    command.add_argument(
        "--causal",
        choices=("yes", "no"),
        help="whether the model is meant to predict next tokens (default: by its class, attention and outputs)",
    )


def run(options: argparse.Namespace) -> int:
    """Try it, print the answer, and say by the exit code whether a finding is serious."""
    subject, batches = subject_and_batches(options)
    found = tried(subject, batches, options, options.train_mode)
    for row in found.sentences:
        say(row)
    for _, finding in found.findings.iterrows():
        say(f"{finding['severity']}: {finding['says']} {finding['do']} ({finding['rule']})")
    for sentence in found.notes:
        say(f"Note: {sentence}")
    return exit_code(found.findings["severity"], options.fail_on)


def tried(subject: Subject, batches: Any, options: argparse.Namespace, train_mode: bool) -> Invariances:
    """What moves the outputs of a subject."""
    from bnprobe.experiments.invariances.invariances import invariances
    from bnprobe.norms.module_tree import set_mode

    model = set_mode(subject.model, train_mode)
    causal = None if options.causal is None else options.causal == "yes"
    with running(subject, batches):
        return invariances(model, inputs_of(subject, batches), mask=options.mask, causal=causal)
