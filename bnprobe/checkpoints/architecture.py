"""A checkpoint with its architecture: kinds, eps and neighbors come from the model, not from names.

One blank input shows how layers are wired. Where the model takes none of those that its first layer suggests, kinds and
eps are still the model's, activations those of its sequences, and feeding weights those of the order of its modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from bnprobe.checkpoints.attention import with_bounds
from bnprobe.checkpoints.blank import blanks
from bnprobe.checkpoints.groups import Norm, grouped
from bnprobe.checkpoints.records import records, without_calls
from bnprobe.errors import BadCheckpoint, BnprobeError
from bnprobe.models import Subject, subject
from bnprobe.norms import ModuleTree, NormLayer, describe
from bnprobe.norms.module_tree import joined
from bnprobe.probe import attach
from bnprobe.probe.record import record as record_over
from bnprobe.recording import LayerRecord, Recording
from bnprobe.recording.neighbours import Neighbours
from bnprobe.weights import state_of
from bnprobe.weights.messages import one_line
from bnprobe.weights.with_torch.ram import in_ram

PREFIX = "torchvision:"
SIDE = 256
"""Pixels of the blank image that is sent through the model once: no number of it is kept."""

ONE_PASS = "What surrounds each norm was found with one blank input; nothing else of that pass is kept."

ACTIVATIONS = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Hardswish: "hardswish",
    nn.PReLU: "prelu",
    nn.ELU: "elu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Mish: "mish",
}
"""Classes as torch's functions are called."""


def wired(path: Path, arch: str, batches: Iterable[Any] | None = None) -> Recording:
    """The norms of `path` in the model `arch`, without statistics; `batches` replace the blank input, by their first."""
    model = subject(arch.removeprefix(PREFIX), checkpoint=path)
    if batches is not None:
        seen, note = _seen_by(model.model, arch, batches), ONE_PASS.replace("blank input", "batch")
    else:
        run, why = _runs(model)
        seen, note = (
            (_seen(model.model, run), ONE_PASS) if run else (_unseen(model.model, arch), _not_run(why))
        )
    about = replace(
        seen.about,
        model=f"{path.name} as {model.name}",
        weights=model.weights,
        data="none",
        preprocessing="none",
        n_forwards=0,
        n_images=0,
        seconds=0.0,
        notes=(note,),
    )
    return replace(seen, about=about, layers=tuple(without_calls(record) for record in seen.layers))


def _not_run(why: str) -> str:
    return (
        f"The model does not run on a blank input ({why}). eps and kinds are the model's; what surrounds a norm was "
        "inferred from the order of its modules."
    )


def _runs(model: Subject) -> tuple[Callable[[], Any] | None, str]:
    """A call on a blank input that works, or None with the error of the likeliest input."""
    image = Image.new("RGB", (SIDE, SIDE), (127, 127, 127))
    tries: list[Callable[[], Any]] = [lambda: model.model(*model.to_inputs([model.preprocess(image)]))]
    tries += [lambda x=x: model.model(x) for x in blanks(model.model)]  # type: ignore[misc]
    first = ""
    for call in tries:
        try:
            with torch.no_grad():
                call()
        except BnprobeError:
            raise
        except Exception as error:  # the user's model may raise anything
            first = first or one_line(error)
        else:
            return call, ""
    return None, first


def _seen(model: nn.Module, run: Callable[[], Any]) -> Recording:
    with attach(model, histograms=False) as probe, torch.no_grad():
        run()
    return probe.recording


def _seen_by(model: nn.Module, arch: str, batches: Iterable[Any]) -> Recording:
    try:
        return record_over(model, islice(iter(batches), 1), histograms=False)
    except BnprobeError:
        raise
    except Exception as error:  # the user's model may raise anything
        raise BadCheckpoint(
            f"{arch} does not run on the first batch ({one_line(error)}). Leave batches out."
        ) from error


def _unseen(model: nn.Module, arch: str) -> Recording:
    """The norms of a model that was not run, as those of a file whose kinds and eps are known."""
    probe = attach(model, histograms=False)
    probe.detach()
    tree = ModuleTree.of(model)
    plans = {path: plans[0] for path, module in tree.modules.items() if (plans := describe(module))}
    state = state_of(dict(tree.parameters() | tree.buffers()), in_ram)
    norms = tuple(norm for norm in grouped(state).norms if norm.path in plans)
    if not norms:
        raise BadCheckpoint(
            f"{arch}: none of its norms has vectors, and it does not run. Check without --arch."
        )
    known, follows = _Known(plans), dict(_followed(tree))
    layers = tuple(
        _as_in_model(record, plans[record.layer], tree.modules[record.layer], follows.get(record.layer))
        for record in with_bounds(records(state, norms, known), state, norms, known)
    )
    return replace(probe.recording, layers=layers, never_called=())


def _as_in_model(record: LayerRecord, plan: NormLayer, module: nn.Module, follows: str | None) -> LayerRecord:
    neighbours = record.neighbours or (Neighbours("unknown", guessed=True) if follows else None)
    return replace(
        record,
        class_name=type(module).__name__,
        pools=plan.pool.recorded_as,
        momentum=plan.momentum,
        neighbours=neighbours and (replace(neighbours, follows=follows) if follows else neighbours),
    )


@dataclass(frozen=True)
class _Known:
    """eps and kinds of norms as their modules say."""

    plans: Mapping[str, NormLayer]
    source: str = "the model"

    def eps(self, norm: Norm) -> float | None:
        """The module's own."""
        return self.plans[norm.path].eps

    def kind(self, norm: Norm) -> str:
        """The module's own."""
        return self.plans[norm.path].kind

    def heads(self, path: str) -> None:
        """Not read from modules."""


def _followed(tree: ModuleTree) -> Iterator[tuple[str, str]]:
    """Activations right after a norm in a sequence, whose modules run in their order."""
    for path, parent in tree.modules.items():
        if type(parent).forward is nn.Sequential.forward:
            for (name, _), (_, after) in pairwise(tree.children(parent)):
                if type(after) in ACTIVATIONS:
                    yield joined(path, name), ACTIVATIONS[type(after)]
