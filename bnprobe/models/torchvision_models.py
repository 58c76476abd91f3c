"""torchvision's models by name: with named weights, with those of a file, or untrained."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum

from bnprobe.errors import UnknownModel
from bnprobe.models.checkpoint_file import State, load_checkpoint
from bnprobe.models.download import file_name, load_entry
from bnprobe.models.inputs import recipe
from bnprobe.models.load_weights import fit, provenance
from bnprobe.models.preprocessing import Given
from bnprobe.models.subject import SEED, Subject, seeded
from bnprobe.weights.messages import did_you_mean

Builder = Callable[..., nn.Module]
_WITH_AUX_LOGITS = ("googlenet", "inception_v3")


def names(pattern: str | None = None) -> list[str]:
    """Every model torchvision builds, sorted; `pattern` keeps those that contain it or match it as a glob."""
    known: list[str] = models.list_models()
    wanted = (pattern or "").lower()
    if not set(wanted) & set("*?["):
        wanted = f"*{wanted}*"
    return fnmatch.filter(known, wanted)


def torchvision_subject(name: str, weights: str | None, path: Path | None, given: Given) -> Subject:
    """The model `name` with an entry's weights, a file's, both (the file by the entry's recipe) or neither."""
    builder = _builder(name)
    entries = _entries(builder)
    entry = _named_entry(name, entries, weights) if weights else _entry_of_file(entries, path)
    task = builder.__module__.split(".")[2]
    steps = recipe(name, task, entry or entries.DEFAULT, given)
    with seeded():
        model, words = _built(builder, entry, path)
    classes = tuple(entry.meta.get("categories", ())) if entry else ()
    return Subject(model.eval(), f"torchvision {name.lower()}", words, *steps, classes=classes)


def _builder(name: str) -> Builder:
    known = names()
    if name.lower() in known:
        builder: Builder = models.get_model_builder(name)
        return builder
    if Path(name).is_file():
        raise UnknownModel(f"{name} is a file. `bnprobe check {name}` reports what its weights reveal.")
    raise UnknownModel(
        f'no model is called "{name}".{did_you_mean(name.lower(), known)} `bnprobe list` shows all; a model of your own is '
        "package.module:function."
    )


def _entries(builder: Builder) -> Any:
    """The enum of the weights a builder takes. Quantizable builders name two: the float one comes last."""
    annotation = inspect.signature(builder).parameters["weights"].annotation
    return [kind for kind in get_args(annotation) if issubclass(kind, WeightsEnum)][-1]


def _named_entry(name: str, entries: Any, weights: str) -> Any:
    wanted = weights.rpartition(".")[2].upper()
    if wanted in entries.__members__:
        return entries[wanted]
    known = ", ".join(entries.__members__)
    raise UnknownModel(
        f'{name} has no weights "{weights}". It has: {known}. Without --weights they are random.'
    )


def _entry_of_file(entries: Any, path: Path | None) -> Any:
    """The entry whose own file name `path` has, or None."""
    return next((entry for entry in entries if path and file_name(entry) == path.name), None)


def _built(builder: Builder, entry: Any, path: Path | None) -> tuple[nn.Module, str]:
    """The model, and where its weights are from in words."""
    if path is not None:
        return _from_checkpoint(builder, entry, path)
    if entry is not None:
        model, file = load_entry(builder, entry)
        return model, f"{entry.name} from {provenance(file)}"
    return _plain(builder, None), f"random initial weights (seed {SEED})"


def _from_checkpoint(builder: Builder, entry: Any, path: Path) -> tuple[nn.Module, str]:
    """Load a file: by the recipe of `entry` where there is one, else into the plain architecture."""
    state = load_checkpoint(path)
    if entry is not None:
        try:
            # The recipe sets more than tensors: transform_input, frozen norms, their eps, image size.
            with mock.patch.object(type(entry), "get_state_dict", return_value=state):
                return builder(weights=entry, progress=False), f"{entry.name} from {provenance(path)}"
        except RuntimeError:
            pass  # another network's tensors: say below which ones
    model = _plain(builder, state)
    fit(model, state, path.name, f"torchvision {builder.__name__}")
    return model, f"checkpoint {provenance(path)}"


def _plain(builder: Builder, state: State | None) -> nn.Module:
    """The architecture alone: nothing downloaded, no warnings, and the parts that `state` has."""
    name, parameters = builder.__name__, inspect.signature(builder).parameters
    options: dict[str, Any] = {}
    if "weights_backbone" in parameters:
        options["weights_backbone"] = None
    if name in _WITH_AUX_LOGITS:
        options["init_weights"] = True
    if name.startswith("vit_"):  # vit_h_14: its position table must fit its transforms
        options["image_size"] = _entries(builder).DEFAULT.meta["min_size"][0]
    if state is not None:
        options |= _auxiliary_heads(builder, state)
    return builder(weights=None, progress=False, **options)


def _auxiliary_heads(builder: Builder, state: State) -> dict[str, bool]:
    """Build the auxiliary heads exactly when the checkpoint has them: aux_classifier, aux1, AuxLogits."""
    has = any(key.lower().startswith("aux") for key in state)
    if "aux_loss" in inspect.signature(builder).parameters:
        return {"aux_loss": has}
    return {"aux_logits": has} if builder.__name__ in _WITH_AUX_LOGITS else {}
