"""`bnprobe fold`, `bnprobe replace` and `bnprobe prune`: norms changed in a copy of the model, and what that changes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.paths import demand_writable, output_file
from bnprobe.cli.state_dict import new_file, save_state_dict
from bnprobe.cli.subject import (
    add_subject,
    inputs_of,
    labels_of_the_model,
    positive,
    running,
    subject_and_batches,
)
from bnprobe.errors import BnprobeError
from bnprobe.printing import say, say_lines

if TYPE_CHECKING:
    import pandas as pd

    from bnprobe.experiments.surgery.converted import Converted

Act = Callable[[Any, Any, argparse.Namespace], "Converted"]
"""From the model, its batches and the options to the new model."""

TRIED_ON = (
    "A copy of the model is changed and both run on the data, so the printed change of the outputs is measured. "
    "SUBJECT is a torchvision model by name (see `bnprobe list`) or your own as package.module:function."
)


def add(commands: Any) -> None:
    """Add the three commands to the parser."""
    fold = commands.add_parser(
        "fold",
        help="fold batch norms into the layers before them, and measure that the outputs stay",
        description="Fold batch norms into the convolutions and linear layers before them (conv-bn fusion), where the "
        f"executed pass proves that it can be done. {TRIED_ON}",
    )
    _add_common(fold, "fold", _fold)
    replace = commands.add_parser(
        "replace",
        help="replace batch norms by their affine map, frozen statistics or group norm, and measure the change",
        description=f"Replace batch norms by something that needs no batch statistics. {TRIED_ON}",
    )
    replace.add_argument(
        "--by",
        choices=("affine", "frozen", "group"),
        required=True,
        help="affine: one scale and offset per channel; frozen: the same formula with statistics that never move; group: "
        "group norm that starts with the same output means and standard deviations",
    )
    replace.add_argument(
        "--groups", type=positive, metavar="N", help="for group: number of groups (default: up to 32)"
    )
    _add_common(replace, "replace", _replace)
    prune = commands.add_parser(
        "prune",
        help="remove channels that a ReLU always turns to 0, and measure that the outputs stay",
        description="Remove channels that never work from every layer that holds or reads them, where the executed pass "
        f"proves that nothing else does. {TRIED_ON}",
    )
    prune.add_argument(
        "--proof",
        choices=("weights", "data"),
        default="weights",
        help="what shows that a channel never works: its weights, for any input (default), or the data, for these",
    )
    _add_common(prune, "prune", _prune)


def _add_common(command: argparse.ArgumentParser, name: str, act: Act) -> None:
    command.add_argument("subject", metavar="SUBJECT", help="model to change")
    add_subject(command, reading=False)
    command.add_argument(
        "--layers", metavar="PATTERN", action="append", help="change only norms whose path matches"
    )
    command.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="FILE",
        help="state dict of the new model to write, .safetensors or .pt; must not exist (default: write nothing)",
    )
    command.add_argument(
        "--certificate",
        type=output_file,
        metavar="FILE",
        help="also write as JSON what was done to each norm or why not, and what was measured on how many samples",
    )
    command.set_defaults(run=_run, act=act, command=name)


def _fold(model: Any, batches: Any, options: argparse.Namespace) -> Converted:
    from bnprobe.experiments.surgery.fold import fold

    return fold(model, batches, layers=options.layers)


def _replace(model: Any, batches: Any, options: argparse.Namespace) -> Converted:
    from bnprobe.experiments.surgery.replace import replace_norms

    return replace_norms(model, batches, by=options.by, groups=options.groups, layers=options.layers)


def _prune(model: Any, batches: Any, options: argparse.Namespace) -> Converted:
    from bnprobe.experiments.surgery.prune import prune

    return prune(model, batches, proof=options.proof, layers=options.layers)


def _run(options: argparse.Namespace) -> int:
    """Change a copy, print the table and the effect, write what is asked for."""
    certificate = Path(options.certificate) if options.certificate else None
    command = options.command
    out = new_file(options.out, command, options.checkpoint, certificate) if options.out else None
    demand_writable([certificate], [options.checkpoint, options.data])
    subject, batches = subject_and_batches(options)
    with running(subject, batches):
        found = options.act(subject.model, inputs_of(subject, labels_of_the_model(subject, batches)), options)
    say_lines(f"{_table(found.layers)}\n")
    for sentence in found.effect.notes:
        say(f"Note: {sentence}")
    say(f"{found.says[0].upper()}{found.says[1:]}.")
    if not (found.layers["done"] != "").any():
        raise BnprobeError(f"{command} changed no norm, so nothing was written. The table says why for each.")
    if out:
        say(f"state dict: {save_state_dict(found.model, out)}")
        say(f"It fits {subject.name} only after the same change: bnprobe.{_CALLS[command]} makes that model.")
    else:
        say("Nothing was written. To write the new state dict: -o FILE.")
    if certificate:
        say(f"certificate: {_certify(found, subject.name, options, certificate)}")
    return 0


_CALLS = {"fold": "fold", "replace": "replace_norms", "prune": "prune"}
"""The function that does what a command does."""


def _table(layers: pd.DataFrame) -> str:
    """What was done to each norm, or why not, and the largest change of its output."""
    shown = layers.assign(
        result=layers["done"].where(layers["done"] != "", "kept: " + layers["why"]),
        change=[f"{value:.1e}" if value == value else "" for value in layers["change_relative"]],
    )
    return str(
        shown[["layer", "n_channels", "change", "result"]]
        .rename(columns={"layer": "norm", "n_channels": "channels", "change": "output changes by (share)"})
        .to_string(index=False)
    )


def _certify(found: Converted, name: str, options: argparse.Namespace, path: Path) -> Path:
    """Write what was done and measured, bound to the files by their checksums."""
    from bnprobe.files import is_file, write_output
    from bnprobe.models.load_weights import sha256

    named = {"checkpoint": options.checkpoint, "state_dict": options.out}
    files = {kind: Path(file) for kind, file in named.items() if file}
    sums = {kind: {"file": file, "sha256": sha256(file)} for kind, file in files.items() if is_file(file)}
    return write_output(path, certificate(found, options.command, name, sums).encode())


def certificate(found: Converted, command: str, model: str, files: Mapping[str, Mapping[str, object]]) -> str:
    """What was done to a model and measured, as JSON; `files` are the checkpoint and the new state dict, with their sums."""
    from bnprobe.report.formats.json import to_json

    content = {"command": command, "model": model, **files, "layers": found.layers, "effect": found.effect}
    return to_json("certificate", content)
