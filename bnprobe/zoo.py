"""What to probe: torchvision's models by name, a user's own by import path, and the shipped demo.

A `Subject` is a model together with everything its numbers depend on: where the weights come from, how an
image becomes an input, and what stands in where the model does not take single images. Each part says
itself in words, so that a report can repeat it.

Files are read as tensors only. Nothing here unpickles code, and building a model leaves the caller's random
state as it was.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import importlib
import inspect
import json
import os
import pickle
import re
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, get_args
from unittest import mock
from urllib.parse import urlparse

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from bnprobe.errors import BadCheckpoint, BnprobeError, UnknownModel

SEED = 0
DOWNLOAD_TIMEOUT = 20.0  # seconds of silence before a download is given up
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DEMO_WEIGHTS = Path(__file__).parent / "demo_data" / "digits_mobilenet_v2.safetensors"

Preprocess = Callable[[Image.Image], Tensor]
ToInputs = Callable[[list[Tensor]], tuple[Any, ...]]
State = dict[str, Tensor]


def _stack(images: list[Tensor]) -> tuple[Any, ...]:
    return (torch.stack(images),)


@dataclass(frozen=True)
class Subject:
    """A model in eval mode, where its weights are from, and how images become its inputs.

    `preprocess` maps one RGB image to one tensor, `to_inputs` a list of these to the positional arguments
    of `model.forward`. `inputs_words` names a substitution made there (a still image repeated into a clip)
    and is empty where images are only stacked.
    """

    model: nn.Module = field(repr=False)
    name: str
    weights: str
    preprocess: Preprocess
    preprocess_words: str
    to_inputs: ToInputs = _stack
    inputs_words: str = ""


@dataclass(frozen=True)
class CropAndScale:
    """Shorter side to `resize` pixels, center crop of `size`, scale to [0, 1], then (x - mean) / std.

    An image whose shorter side is `resize` already is not resampled. One mean and one std make a single grey
    channel; three make RGB. The same steps as torchvision's classification presets, on public functions.
    """

    size: int
    resize: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def __post_init__(self) -> None:
        if self.size < 1:
            raise BnprobeError(f"size is {self.size}: give the side of the input in pixels, at least 1.")
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise BnprobeError(
                f"mean {_numbers(self.mean)} and std {_numbers(self.std)} do not go together: give three of "
                "each (red, green, blue) or one of each (grey), every std above zero."
            )

    def __call__(self, image: Image.Image) -> Tensor:
        """The prepared image, (3, size, size) or (1, size, size), float32."""
        image = image.convert("L" if len(self.mean) == 1 else "RGB")
        image = F.resize(image, [self.resize], interpolation=self.interpolation, antialias=True)
        values = F.convert_image_dtype(F.pil_to_tensor(F.center_crop(image, [self.size])), torch.float)
        normalized: Tensor = F.normalize(values, mean=list(self.mean), std=list(self.std))
        return normalized


DEMO_PREPROCESS = CropAndScale(size=32, resize=32, mean=(0.3, 0.3, 0.3), std=(0.35, 0.35, 0.35))


# ---------------------------------------------------------------- the public calls


def names(pattern: str | None = None) -> list[str]:
    """Every model torchvision builds, sorted; `pattern` keeps those that contain it or match it as a glob."""
    known: list[str] = models.list_models()
    wanted = (pattern or "").lower()
    if not set(wanted) & set("*?["):
        wanted = f"*{wanted}*"
    return fnmatch.filter(known, wanted)


def subject(
    name: str,
    *,
    weights: str | None = None,
    checkpoint: Path | str | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Subject:
    """Build what `name` names: a torchvision model, or `package.module:function` of your own.

    `weights` names an entry of torchvision ("DEFAULT", "IMAGENET1K_V1"); `checkpoint` is a file of tensors;
    with both, the file is loaded by that entry's recipe; with neither, weights are random with a fixed seed.
    `size`, `mean` and `std` replace the preprocessing's own, for classification models and your own.
    Raises UnknownModel for a name, BadCheckpoint for a file, both in one line with what to do.
    """
    changes = {
        key: value for key, value in (("size", size), ("mean", mean), ("std", std)) if value is not None
    }
    path = None if checkpoint is None else Path(checkpoint)
    if ":" not in name:
        return _torchvision_subject(name, weights, path, changes)
    if weights is not None:
        raise UnknownModel(
            f"weights {weights} is a name of torchvision's, and {name} is your own. Use --checkpoint FILE."
        )
    return _own_subject(name, path, changes)


def demo() -> Subject:
    """The shipped default: a narrow mobilenet_v2 that reads 8 x 8 handwritten digits."""
    with _seeded():
        model = demo_network()
    _fit(model, load_checkpoint(DEMO_WEIGHTS), DEMO_WEIGHTS.name, "the demo network")
    facts = demo_facts()
    return Subject(
        model=model.eval(),
        name="demo: mobilenet_v2, width 0.25, on handwritten digits",
        weights=(
            f"shipped with bnprobe, sha256 {_sha256(DEMO_WEIGHTS)[:8]}…: trained by scripts/train_demo.py on "
            f"{facts['n_train']:,} of the {facts['n_train'] + facts['n_held_out']:,} {facts['data']}; reads "
            f"{facts['held_out_accuracy']:.1%} of the {facts['n_held_out']} held-out ones correctly "
            f"({facts['train_accuracy']:.1%} of the training ones)"
        ),
        preprocess=DEMO_PREPROCESS,
        preprocess_words=_crop_words(DEMO_PREPROCESS),
    )


def demo_facts() -> dict[str, Any]:
    """What training wrote beside the shipped weights: data, n_train, n_held_out, accuracies (0..1)."""
    with safe_open(DEMO_WEIGHTS, "pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["facts"])
    return facts


def demo_network() -> nn.Module:
    """The architecture of the demo, untrained; at 32 x 32 its last stage still has 2 x 2 positions."""
    # t expansion, c channels, n blocks, s stride: torchvision's own table, with stage 2 at stride 1
    stages = [
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    network: nn.Module = models.mobilenet_v2(
        num_classes=10, width_mult=0.25, inverted_residual_setting=stages
    )
    return network


def load_checkpoint(path: Path | str) -> State:
    """The tensors of a `.pt`, `.pth`, `.th` or `.safetensors` file, on the CPU, by their names in the model.

    A state dict kept under `state_dict`, `model`, `ema`, ... is found, and the prefixes that wrappers add
    (`module.`, `_orig_mod.`) are taken off. Pickles are read with weights_only=True: one that needs more is
    refused unread. Raises BadCheckpoint, in one line, for whatever else is wrong with the file.
    """
    path = Path(path)
    _demand_file(path)
    saved = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickle(path)
    return _without_wrappers(_state_dict(saved, path))


# ---------------------------------------------------------------- checkpoints

# In this order: the trained weights before their running average, where a file keeps both.
_KEPT_UNDER = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
    "params_ema",
)
_SAVE_AGAIN = "where the model can be built, write torch.save(model.state_dict(), FILE) and give that file"


def _demand_file(path: Path) -> None:
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise BadCheckpoint(f"there is no checkpoint {path}. Check the path.") from None
    except IsADirectoryError:
        raise BadCheckpoint(f"{path} is a folder. Give the checkpoint file inside it.") from None
    except OSError as error:
        raise BadCheckpoint(
            f"cannot read {path} ({error.strerror}). Check the path and its rights."
        ) from None


def _read_safetensors(path: Path) -> State:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _read_pickle(path: Path) -> Any:
    """Whatever the file holds, if it holds only tensors and plain data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on old or foreign formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage can raise nearly anything: EOFError, KeyError, RuntimeError, OSError
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> BadCheckpoint:
    """Say why torch did not read `path`: it asks for code, or it is damaged."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and code:
        return BadCheckpoint(
            f"{path} holds more than tensors: it asks to run {code[1]}, so it was not loaded. "
            f"If you trust it, {_SAVE_AGAIN}."
        )
    if "TorchScript" in str(error):
        return BadCheckpoint(f"{path} is a TorchScript program, not a state dict; {_SAVE_AGAIN}.")
    return _damaged(path, error)


def _damaged(path: Path, error: Exception) -> BadCheckpoint:
    return BadCheckpoint(
        f"{path} is not a whole checkpoint ({_one_line(error)}): cut short, or of another format. "
        "Copy or download it again."
    )


def _state_dict(saved: Any, path: Path) -> State:
    """The one state dict inside what a file holds."""
    found = _state_dicts(saved)
    if len(found) == 1:
        return found[0]
    if isinstance(saved, nn.Module):
        raise BadCheckpoint(f"{path} holds a whole module; {_SAVE_AGAIN}.")
    held = ", ".join(map(str, list(saved)[:6])) if isinstance(saved, Mapping) else type(saved).__name__
    number = "several state dicts" if found else "no state dict"
    raise BadCheckpoint(f"{path} holds {number} (it has: {held or 'nothing'}); {_SAVE_AGAIN}.")


def _state_dicts(saved: Any) -> list[State]:
    """Every candidate: under the first known key that has one, else nested dicts, else the tensors here."""
    if not isinstance(saved, Mapping):
        return []
    for key in _KEPT_UNDER:
        if found := _state_dicts(saved.get(key)):
            return found
    nested = [state for key, value in saved.items() if isinstance(key, str) for state in _state_dicts(value)]
    here = {key: value.detach() for key, value in saved.items() if _is_entry(key, value)}
    # {"mine": {...}, "best_accuracy": tensor(71.2)}: a stray number does not make a state dict
    return nested or [here] * bool(here)


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _without_wrappers(state: State) -> State:
    """Names as the bare model has them: without torch.compile, DataParallel and AveragedModel around it."""
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    inner = {key: value for key, value in state.items() if key != "n_averaged"}
    while inner and all(key.startswith("module.") for key in inner):
        inner = {key.removeprefix("module."): value for key, value in inner.items()}
    return inner


def _fit(model: nn.Module, state: State, file: str, name: str) -> None:
    """Load `state` into `model`, every tensor of both accounted for, or raise BadCheckpoint with the list."""
    own = model.state_dict()
    state = _without_outer_name(state, own.keys())
    shapes = {key: _misfit(state[key], own[key]) for key in own if key in state}
    wrong = {key: words for key, words in shapes.items() if words}
    try:
        # not a comparison of names: torch's own loading knows the names that modules had in older versions
        left = model.load_state_dict({k: v for k, v in state.items() if k not in wrong}, strict=False)
    except RuntimeError as error:
        raise BadCheckpoint(
            f"{file} does not load into {name} ({_one_line(error)}). {_OTHER_MODEL}"
        ) from None
    missing = [
        key for key in left.missing_keys if key not in wrong and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in left.unexpected_keys if not key.endswith("num_batches_tracked")]
    if missing or unexpected or wrong:
        faults = (
            _listed(missing, "missing"),
            _listed(unexpected, "unexpected"),
            _listed([f"{k}: {words}" for k, words in wrong.items()], "of another shape"),
        )
        raise BadCheckpoint(f"{file} does not fit {name}: {', '.join(filter(None, faults))}. {_OTHER_MODEL}")


_OTHER_MODEL = "Name the model that was saved; for your own, package.module:function."


def _without_outer_name(state: State, wanted: Any) -> State:
    """Peel one outer name (`model.`, as Lightning saves) where the model's own names are under it."""
    outer = {key.partition(".")[0] for key in state}
    peeled = {key.partition(".")[2]: value for key, value in state.items()}
    return peeled if len(outer) == 1 and not wanted & state.keys() and wanted & peeled.keys() else state


def _misfit(saved: Tensor, own: Any) -> str:
    """How two shapes differ, in words; empty where they agree or the model has not decided yet."""
    if not isinstance(own, Tensor) or torch.nn.parameter.is_lazy(own) or saved.shape == own.shape:
        return ""
    return f"{tuple(saved.shape)} in the file, {tuple(own.shape)} in the model"


def _listed(keys: list[str], what: str, most: int = 3) -> str:
    """'5 missing (a, b, c, ...)', or nothing for no keys."""
    shown = ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
    return f"{len(keys)} {what} ({shown})" if keys else ""


# ---------------------------------------------------------------- torchvision


def _torchvision_subject(
    name: str, weights: str | None, path: Path | None, changes: dict[str, Any]
) -> Subject:
    builder = _builder(name)
    entries = _entries(builder)
    entry = _named_entry(name, entries, weights) if weights else _entry_of_file(entries, path)
    recipe = _changed(_recipe(builder, entry or getattr(entries, "DEFAULT", None)), name, changes)
    with _seeded():
        if path is not None:
            model, words = _from_checkpoint(builder, entry, path)
        elif entry is not None:
            model, words = _from_hub(builder, entry)
        else:
            model = builder(weights=None, progress=False, **_options(builder, None))
            words = f"random initial weights (seed {SEED})"
    return Subject(model.eval(), f"torchvision {name.lower()}", words, *recipe)


def _builder(name: str) -> Callable[..., nn.Module]:
    known = names()
    if name.lower() in known:
        builder: Callable[..., nn.Module] = models.get_model_builder(name)
        return builder
    close = difflib.get_close_matches(name.lower(), known, n=3)
    meant = f" Did you mean {', '.join(close)}?" if close else ""
    raise UnknownModel(
        f'"{name}".{meant} `bnprobe list` shows all; a model of your own is package.module:function.'
    )


def _entries(builder: Callable[..., nn.Module]) -> Any:
    """The enum of the weights a builder takes. Quantizable builders name two: the float one comes last."""
    annotation = inspect.signature(builder).parameters["weights"].annotation
    kinds = [kind for kind in get_args(annotation) if inspect.isclass(kind) and issubclass(kind, WeightsEnum)]
    return kinds[-1]


def _named_entry(name: str, entries: Any, weights: str) -> Any:
    wanted = weights.rpartition(".")[2].upper()
    if wanted in entries.__members__:
        return entries[wanted]
    known = ", ".join(entries.__members__) or "none"
    raise UnknownModel(
        f'{name} has no weights "{weights}". It has: {known}. Without --weights they are random.'
    )


def _entry_of_file(entries: Any, path: Path | None) -> Any:
    """The entry whose own file name `path` has, or None."""
    return next((entry for entry in entries if path and _file_name(entry) == path.name), None)


def _file_name(entry: Any) -> str:
    return Path(urlparse(entry.url).path).name


def _options(builder: Callable[..., nn.Module], state: State | None) -> dict[str, Any]:
    """What a builder without named weights needs: nothing downloaded, no remarks, the parts the file has."""
    parameters = inspect.signature(builder).parameters
    entry = getattr(_entries(builder), "DEFAULT", None)
    options: dict[str, Any] = {}
    if "weights_backbone" in parameters:
        options["weights_backbone"] = None
    if builder.__name__ in ("googlenet", "inception_v3"):
        options["init_weights"] = True
    if builder.__name__.startswith("vit_") and entry:
        options["image_size"] = entry.meta["min_size"][
            0
        ]  # vit_h_14: its position table must fit its transforms
    if state is not None:
        options |= _auxiliary(builder, parameters, state)
    return options


def _auxiliary(builder: Callable[..., nn.Module], parameters: Any, state: State) -> dict[str, Any]:
    """Build the auxiliary heads exactly when the checkpoint has them: aux_classifier, aux1, AuxLogits."""
    has = any(key.lower().startswith("aux") for key in state)
    if "aux_loss" in parameters:
        return {"aux_loss": has}
    return {"aux_logits": has} if builder.__name__ in ("googlenet", "inception_v3") else {}


def _from_hub(builder: Callable[..., nn.Module], entry: Any) -> tuple[nn.Module, str]:
    """Load a named entry by torchvision's own code, from the file in torch's cache."""
    file = Path(torch.hub.get_dir(), "checkpoints", _file_name(entry))
    if not file.exists():
        _download(entry, file)
    try:
        with _weights_only():
            model = builder(weights=entry, progress=False)
    except Exception as error:  # as in _read_pickle, and a state dict that does not fit
        if isinstance(error, RuntimeError) and "state_dict" in str(error):
            raise BadCheckpoint(
                f"{file} does not fit ({_one_line(error)}). Delete it to have it fetched."
            ) from None
        raise _refusal(file, error) from None
    return model, f"{entry.name} from {_provenance(file)}"


def _from_checkpoint(builder: Callable[..., nn.Module], entry: Any, path: Path) -> tuple[nn.Module, str]:
    """Load a file: by the recipe of `entry` where there is one, else into the plain architecture."""
    state = load_checkpoint(path)
    if entry is not None:
        try:
            # The recipe sets more than tensors: transform_input, frozen norms, their eps, image size.
            with mock.patch.object(type(entry), "get_state_dict", return_value=state):
                return builder(weights=entry, progress=False), f"{entry.name} from {_provenance(path)}"
        except RuntimeError:
            pass  # another network's tensors: say below which ones
    model = builder(weights=None, progress=False, **_options(builder, state))
    _fit(model, state, path.name, f"torchvision {builder.__name__}")
    return model, f"checkpoint {_provenance(path)}"


def _download(entry: Any, file: Path) -> None:
    """Fetch the file of `entry` into torch's cache, or say what is missing and the ways round it."""
    hash_prefix = re.search(r"-([0-9a-f]{8,})\.", file.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(DOWNLOAD_TIMEOUT):
            torch.hub.download_url_to_file(
                entry.url, str(file), hash_prefix[1] if hash_prefix else None, progress=sys.stderr.isatty()
            )
    except (OSError, RuntimeError, HTTPException) as error:
        raise BadCheckpoint(
            f"{entry.name} needs {file.name}, which is not in {file.parent} (where torchvision looks) and "
            f"could not be fetched from {entry.url} ({_one_line(error)}). Put the file there by hand, or give "
            "it with --checkpoint FILE, or leave out --weights for random weights."
        ) from None


def _provenance(path: Path) -> str:
    """File name and the start of its sha256; says so where torchvision's own name promises another."""
    digest = _sha256(path)
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    differs = promised is not None and not digest.startswith(promised[1])
    return f"{path.name}, sha256 {digest[:8]}…" + (" (not the one its name promises)" if differs else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- images to inputs, by task

_Recipe = tuple[Preprocess, str, ToInputs, str]


def _recipe(builder: Callable[..., nn.Module], entry: Any) -> _Recipe:
    """Preprocessing and inputs for what a builder's module says it is: detection, video, ..."""
    if entry is None:
        return _default_recipe({})
    task = builder.__module__.split(".")[2]
    return _TASKS.get(task, _classification)(entry)


def _classification(entry: Any) -> _Recipe:
    transforms = entry.transforms()
    return transforms, _preset_words(transforms), _stack, ""


def _segmentation(entry: Any) -> _Recipe:
    transforms = entry.transforms()
    side = transforms.resize_size[0]

    def square(image: Image.Image) -> Tensor:
        whole: Tensor = F.center_crop(transforms(image), [side, side])
        return whole

    words = f"{_preset_words(transforms)}; then center crop of {side} x {side}, so that any shapes stack"
    return square, words, _stack, ""


def _detection(entry: Any) -> _Recipe:
    words = "scaled to [0, 1]; the model itself resizes and normalizes"
    return (
        entry.transforms(),
        words,
        lambda images: (images,),
        "a list of whole images, as detection models take",
    )


def _video(entry: Any) -> _Recipe:
    transforms = entry.transforms()
    frames = entry.meta.get("min_temporal_size", 16)

    def frame(image: Image.Image) -> Tensor:
        still: Tensor = transforms(F.pil_to_tensor(image)[None])[:, 0]
        return still

    def clip(images: list[Tensor]) -> tuple[Any, ...]:
        return (torch.stack(images)[:, :, None].repeat(1, 1, frames, 1, 1),)

    words = f"each still image repeated into a clip of {frames} frames: nothing moves, unlike in training"
    return frame, _preset_words(transforms), clip, words


def _optical_flow(entry: Any) -> _Recipe:
    # entry.transforms() takes pairs of any size; RAFT takes sides of at least 128 that 8 divides
    half = (0.5, 0.5, 0.5)
    crop = CropAndScale(size=256, resize=256, mean=half, std=half)

    def pairs(images: list[Tensor]) -> tuple[Any, ...]:
        first = torch.stack(images)
        if len(images) == 1:
            return first, first.roll((8, 8), dims=(-2, -1))
        return first, first.roll(-1, dims=0)

    words = "each image paired with the next of its batch (one alone, with itself moved 8 px): no real motion"
    return crop, _crop_words(crop), pairs, words


_TASKS: dict[str, Callable[[Any], _Recipe]] = {
    "segmentation": _segmentation,
    "detection": _detection,
    "video": _video,
    "optical_flow": _optical_flow,
}


def _changed(recipe: _Recipe, name: str, changes: dict[str, Any]) -> _Recipe:
    """`recipe` with the user's size, mean and std in place of the weights' own."""
    if not changes:
        return recipe
    preset: Any = recipe[0]
    if recipe[2] is not _stack or not hasattr(preset, "crop_size"):
        raise BnprobeError(
            f"{name} takes no {', '.join(changes)} of yours: only classification models and your own do. Leave it out."
        )
    crop = CropAndScale(
        size=changes.get("size", preset.crop_size[0]),
        resize=changes.get("size", preset.resize_size[0]),
        mean=tuple(changes.get("mean", preset.mean)),
        std=tuple(changes.get("std", preset.std)),
        interpolation=preset.interpolation,
    )
    return crop, f"{_crop_words(crop)} ({', '.join(changes)} as given)", _stack, ""


def _default_recipe(changes: dict[str, Any]) -> _Recipe:
    """The guess for a model that says nothing about its inputs, with what the user says about them."""
    size = changes.get("size", 224)
    mean, std = (
        tuple(changes.get(key, value)) for key, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    crop = CropAndScale(size=size, resize=size, mean=mean, std=std)
    guessed = [key for key in ("size", "mean", "std") if key not in changes]
    note = f" ({', '.join(guessed)}: a guess, the usual for ImageNet)" if guessed else ""
    return crop, _crop_words(crop) + note, _stack, ""


def _crop_words(crop: CropAndScale) -> str:
    grey = "one grey channel, " if len(crop.mean) == 1 else ""
    return grey + _steps([crop.resize], [crop.size], crop.mean, crop.std, crop.interpolation)


def _preset_words(preset: Any) -> str:
    crop = getattr(preset, "crop_size", [])
    return _steps(preset.resize_size, crop, preset.mean, preset.std, preset.interpolation)


def _steps(resize: Sequence[int], crop: Sequence[int], mean: Any, std: Any, how: InterpolationMode) -> str:
    """One readable sentence: what happens to an image, in order."""
    side = f"shorter side to {resize[0]} px" if len(resize) == 1 else f"resized to {_by(resize)}"
    cropped = f", center crop of {_by(crop)}" if crop else ""
    return f"{side} ({how.value}){cropped}, scaled to [0, 1], mean {_numbers(mean)}, std {_numbers(std)}"


def _by(sides: Sequence[int]) -> str:
    return f"{sides[0]} x {sides[-1]}"


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


# ---------------------------------------------------------------- a user's own model


def _own_subject(name: str, path: Path | None, changes: dict[str, Any]) -> Subject:
    recipe = _default_recipe(changes)
    with _seeded(), _cwd_importable():
        model = _call(name, _function(name))
    words = f"as {name} made them (seed {SEED})"
    if path is not None:
        _fit(model, load_checkpoint(path), path.name, name)
        words = f"checkpoint {_provenance(path)}"
    return Subject(model.eval(), name, words, *recipe)


def _function(name: str) -> Callable[[], object]:
    """The callable that `package.module:function` names."""
    module_name, _, function_name = name.partition(":")
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code: anything may come
        raise UnknownModel(
            f'{name}: cannot import "{module_name}" from {Path.cwd()} ({_one_line(error)}). '
            "Run in the folder that holds it, or install it."
        ) from error
    function = getattr(module, function_name, None)
    if callable(function):
        made: Callable[[], object] = function
        return made
    callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    close = difflib.get_close_matches(function_name, callables, n=3)
    meant = (
        f"Did you mean {', '.join(close)}?" if close else "Define it, without arguments, to return the model."
    )
    raise UnknownModel(f'{name}: {module_name} has no function "{function_name}". {meant}')


def _call(name: str, function: Callable[[], object]) -> nn.Module:
    """The module that a user's function returns."""
    try:
        made = function()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is this call
        place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        raise UnknownModel(
            f"{name} raised {_one_line(error)}{place}. It is called without arguments: make it work alone."
        ) from error
    if isinstance(made, nn.Module):
        return made
    raise UnknownModel(
        f"{name} returned a {type(made).__name__}. Let it return the torch.nn.Module to probe."
    )


# ---------------------------------------------------------------- the world, put back as it was


@contextmanager
def _seeded() -> Iterator[None]:
    """Random numbers from a fixed seed inside, and the caller's own again afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # not torch.manual_seed: that would seed every GPU as well
        yield


@contextmanager
def _cwd_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make torchvision's own loading, which would unpickle anything, read tensors only."""
    with mock.patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}), warnings.catch_warnings():
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)  # torch refuses to have both
        warnings.simplefilter("ignore")  # that some of torchvision's files are in an old format
        yield


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: BaseException, most: int = 160) -> str:
    """The name of an error and what it says, without line breaks and without torch's page of advice."""
    said = " ".join(
        str(error).split("WeightsUnpickler error:")[-1].split("Check the documentation")[0].split()
    )
    said = said if len(said) <= most else f"{said[:most]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
