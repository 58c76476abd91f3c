"""`bnprobe report` and `bnprobe demo`: probe a model, or take a saved recording, and write the page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli import ablate
from bnprobe.cli.invariances import add_causal, tried
from bnprobe.cli.partial import add_save_partial, partial_path, stopped
from bnprobe.cli.paths import default_page, demand_writable, output_file
from bnprobe.cli.ranks import gathered, share
from bnprobe.cli.severity import add_config, add_fail_on, exit_code, settings_file
from bnprobe.cli.subject import (
    add_exemplars,
    add_subject,
    described,
    inputs_of,
    labels_of_the_model,
    positive,
    recorded,
    running,
    samples_of,
    subject_and_batches,
)
from bnprobe.errors import BnprobeError
from bnprobe.printing import say, say_lines

if TYPE_CHECKING:
    from bnprobe.models import Subject
    from bnprobe.models.image_folder import Batches
    from bnprobe.models.user_batches import UserBatches
    from bnprobe.recording import Recording
    from bnprobe.report.invariances import Invariances
    from bnprobe.report.result import Report
    from bnprobe.report.study import Study
    from bnprobe.scaling.ranks import Ranks


def add_demo(commands: Any) -> None:
    """Add `demo` to the parser."""
    demo = commands.add_parser(
        "demo",
        help="probe the small trained network that comes with bnprobe",
        description="Probe the embedded network (a narrow mobilenet_v2 that reads handwritten digits) on its held-out "
        "digits, and write the page. Needs neither internet access nor arguments.",
    )
    _add_ablate(demo)
    _add_output(demo, "bnprobe-demo.html")
    demo.set_defaults(run=_demo)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    report = commands.add_parser(
        "report",
        help="probe a model on images, or rebuild the page of a saved recording",
        description="SUBJECT is a torchvision model by name (see `bnprobe list`), your own as package.module:function "
        "(a function without arguments that returns the model), or a saved recording (FILE.bnp). "
        "Under torchrun (torchrun --nproc-per-node 4 -m bnprobe report ...) each process runs its share of the batches, and "
        "the first writes the page.",
    )
    report.add_argument("subject", metavar="SUBJECT", help="model to probe, or recording to show")
    add_subject(report)
    report.add_argument(
        "--train-mode", action="store_true", help="normalize with batch statistics, as in training"
    )
    report.add_argument(
        "--training-batch",
        type=positive,
        metavar="N",
        help="samples per batch and device in training, for the noise of the running statistics (default: assumes 32)",
    )
    add_exemplars(report)
    report.add_argument(
        "--phase",
        metavar="NAME",
        help="of a saved recording, the phase to show (default: what ran in no phase, or the first)",
    )
    report.add_argument(
        "--try",
        action="store_true",
        help="carry out each finding's remedy, show what comes of it, and put the model back (three passes per remedy)",
    )
    _add_ablate(report)
    report.add_argument(
        "--invariances",
        action="store_true",
        help="also try what must not move outputs, as `bnprobe invariances` does: findings, and a chapter of the page",
    )
    add_causal(report)
    report.add_argument(
        "--save", type=output_file, metavar="FILE", help="also save the recording, e.g. run.bnp"
    )
    add_save_partial(report)
    _add_output(report, None)
    report.set_defaults(run=_report)


def _add_ablate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--ablate",
        action="store_true",
        help="also measure what each vector of each norm is worth, as `bnprobe ablate` does, for a chapter of the page",
    )
    command.add_argument(
        "--study",
        metavar="FILE",
        help="for that chapter, a study that was saved: `bnprobe ablate --save FILE`",
    )
    ablate.add_budget(command)


def _add_output(command: argparse.ArgumentParser, default: str | None) -> None:
    shown = default or "reports/SUBJECT.html"
    command.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="FILE",
        default=default,
        help=f"the page to write (default {shown})",
    )
    command.add_argument("--text", action="store_true", help="also print the whole report as text")
    add_fail_on(command)
    add_config(command)


def _demo(options: argparse.Namespace) -> int:
    from bnprobe import models
    from bnprobe.models import image_folder
    from bnprobe.report.study import Study

    demand_writable([Path(options.out)], [settings_file(options), options.study])
    saved = _saved_study(options)
    batches = image_folder.demo_images()
    subject = models.demo()
    every = batches.batches(subject.preprocess, 64)
    recording = recorded(subject, every, None, True, False, None)
    study = saved or _study(subject, every, options) or Study.load(models.DEMO_STUDY)
    return _written(_judged(recording, options, study), Path(options.out), options)


def _report(options: argparse.Namespace) -> int:
    from bnprobe.recording.recording import load

    saved = Path(options.subject)
    if saved.suffix == ".bnp":
        _refuse_model_options(options, MODEL_OPTIONS)
        out = Path(options.out) if options.out else default_page(f"{saved.stem}.html")
        demand_writable([out], [options.subject, options.data, settings_file(options), options.study])
        recording = _trained_with(_phase_of(load(saved), options), options)
        if recording.samples is None:  # of exemplars, --data says where their files are
            _refuse_model_options(options, ("data",))
        return _written(_judged(recording, options, _saved_study(options)), out, options)
    if options.phase is not None:
        raise BnprobeError(
            "--phase is for saved recordings. Phases are named in a loop: with probe.phase('val')."
        )
    from bnprobe.scaling.ranks import ranks  # with it comes torch, which a recording does without

    with ranks() as group:
        return _report_of_a_model(options, group)


def _report_of_a_model(options: argparse.Namespace, group: Ranks) -> int:
    """Record the model and write its page; of several ranks each records its share, and the first writes."""
    from bnprobe.probe.record import Interrupted

    out = Path(options.out) if options.out else default_page(f"{options.subject.rpartition(':')[2]}.html")
    partial = partial_path(options, out)
    save = Path(options.save) if options.save else None
    demand_writable(
        (out, save, partial), (options.checkpoint, options.data, settings_file(options), options.study)
    )
    study = _saved_study(options)
    if options.causal and not options.invariances:
        raise BnprobeError("--causal says what to try. Add --invariances.")
    subject, batches = subject_and_batches(options)
    histograms, loss = not options.no_histograms, options.loss
    own = share(batches, options, group)
    try:
        recording = recorded(
            subject,
            own,
            options.layers,
            histograms,
            options.train_mode,
            loss,
            exemplars=options.exemplars,
            **samples_of(options),
        )
    except Interrupted as stop:
        raise KeyboardInterrupt(stopped(described(stop.recording, own), own, partial)) from None
    recording = gathered(recording, batches, group)
    if group.rank:
        return 0
    recording = _trained_with(recording, options)
    if options.save:
        say(f"recording: {recording.save(options.save)}")
    invariances = tried(subject, batches, options, options.train_mode) if options.invariances else None
    result = _judged(recording, options, study or _study(subject, batches, options), invariances)
    if getattr(options, "try"):
        _try_remedies(result, subject, batches, options)
    return _written(result, out, options)


def _phase_of(recording: Recording, options: argparse.Namespace) -> Recording:
    """One phase of a recording, where one is named."""
    if options.phase is None:
        return recording
    if options.phase not in recording.phases:
        known = ", ".join(recording.phases) or "none"
        raise BnprobeError(f"--phase: {options.subject} has no phase {options.phase!r}. It has {known}.")
    return recording.phases[options.phase]


def _study(subject: Subject, batches: Batches | UserBatches, options: argparse.Namespace) -> Study | None:
    """What vectors are worth, where that is asked for."""
    if not options.ablate:
        if options.budget:
            raise BnprobeError("--budget is for ablations only. Add --ablate.")
        return None
    layers = getattr(options, "layers", None)
    return ablate.studied(subject, batches, layers=layers, budget_s=options.budget)


def _saved_study(options: argparse.Namespace) -> Study | None:
    """The study of a file, if one is named."""
    if not options.study:
        return None
    given = [f"--{name}" for name in ("ablate", "budget") if getattr(options, name)]
    if given:
        raise BnprobeError(
            f"--study {options.study} is a study already, so {' and '.join(given)} can change nothing. Leave one out."
        )
    from bnprobe.report.study import Study

    return Study.load(options.study)


def _try_remedies(
    result: Report, subject: Subject, batches: Batches | UserBatches, options: argparse.Namespace
) -> None:
    import torch

    from bnprobe.experiments.try_remedies import try_remedies

    loss = getattr(torch.nn.functional, options.loss) if options.loss else None
    with running(subject, batches):
        labeled = labels_of_the_model(subject, batches)
        try_remedies(result, subject.model, inputs_of(subject, labeled), loss=loss)


def _trained_with(recording: Recording, options: argparse.Namespace) -> Recording:
    """With the size of training's batches, where it is given; one that the recording holds stays otherwise."""
    return recording.with_training_batch(options.training_batch) if options.training_batch else recording


MODEL_OPTIONS = (
    "weights",
    "checkpoint",
    "batches",
    "limit",
    "size",
    "mean",
    "std",
    "layers",
    "loss",
    "mask",
    "sample_dim",
    "unit",
    "train_mode",
    "exemplars",
    "try",
    "ablate",
    "budget",
    "invariances",
    "causal",
    "save",
    "save_partial",
)
"""Options that a saved recording leaves nothing to change for."""


def _refuse_model_options(options: argparse.Namespace, names: tuple[str, ...]) -> None:
    """A saved recording cannot be changed: refuse options that would."""
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]
    if given:
        raise BnprobeError(
            f"{options.subject} is a saved recording, so {', '.join(given)} can change nothing. "
            "Leave them out, or name the model to record it again."
        )


def _judged(
    recording: Recording,
    options: argparse.Namespace,
    study: Study | None = None,
    invariances: Invariances | None = None,
) -> Report:
    from bnprobe.report import report

    images = getattr(options, "data", None) if recording.samples is not None else None
    return report(
        recording, config=settings_file(options), study=study, invariances=invariances, images=images
    )


def _written(result: Report, out: Path, options: argparse.Namespace) -> int:
    """Write the page, print the answer, and say by the exit code whether a finding is serious."""
    page = result.to_html(out)
    say_lines(f"{result.to_text() if options.text else result.summary()}\n")
    say(f"page: {page}")
    return exit_code(result.findings["severity"], options.fail_on)
