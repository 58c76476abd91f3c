"""The tensors in a checkpoint, read without running anything it holds: the state dict is looked for in its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnprobe.errors import BadCheckpoint
from bnprobe.files import Place
from bnprobe.weights.dcp import is_dcp, read_dcp
from bnprobe.weights.file_kinds import demand_checkpoint, is_gguf, is_safetensors
from bnprobe.weights.messages import SAVE_AGAIN
from bnprobe.weights.read_file import TensorOf, plain, read_packed, read_pickle, read_safetensors
from bnprobe.weights.remote import open_together
from bnprobe.weights.shards import files_of
from bnprobe.weights.tensor import Tensor

State = dict[str, Tensor]

_TRAINED = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights")
_AVERAGED = ("ema_state_dict", "state_dict_ema", "model_ema", "ema", "params_ema")
"""Under which names trainers keep the weights, and their running average; the first one that is there."""

_BESIDE = ("optim", "sched", "scaler")
"""Names of what trainers keep next to the weights."""

_DEEPEST = 6

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names that torch.compile, FSDP and activation checkpointing put in between."""


def load(path: Place, several: bool) -> State:
    """The tensors of a checkpoint by their names in the model: of a file, an index (`*.index.json`), a folder of shards,
    or one of torch.distributed.checkpoint.

    A state dict kept under `state_dict`, `model`, `ema`, ... is found, and the prefixes that wrappers add (`module.`,
    `_orig_mod.`) are taken off. Of `several` state dicts in one file (a generator and a critic, weights and their running
    average) all are taken, under their names. Raises BadCheckpoint, in one line, for whatever is wrong with the file.
    """
    if is_dcp(path):
        return _without_wrappers(_only(read_dcp(path), plain, path, several))
    whole: State = {}
    files = files_of(path)
    open_together(files)
    for file in files:
        demand_checkpoint(file)
        saved, tensor_of = _read(file)
        state = _only(saved, tensor_of, file, several)
        if twice := next((name for name in state if name in whole), None):
            raise BadCheckpoint(
                f"{path} holds {twice} in more than one file, so these are several checkpoints. Give one of the files."
            )
        whole |= state
    return _without_wrappers(whole)


def _only(saved: Any, tensor_of: TensorOf, path: Place, several: bool) -> State:
    """What is wanted of a file."""
    return (state_of(saved, tensor_of) if several else {}) or _state_dict(saved, tensor_of, path)


def _read(file: Place) -> tuple[Any, TensorOf]:
    if is_gguf(file):
        return read_packed(file), plain
    return (read_safetensors(file), plain) if is_safetensors(file) else read_pickle(file)


def state_of(saved: Any, tensor_of: TensorOf) -> State:
    """The tensors of a mapping that may hold its state dict under `state_dict`, `model`, ...; may be empty."""
    return _joined(_state_dicts(saved, tensor_of))


def _state_dict(saved: Any, tensor_of: TensorOf, path: Place) -> State:
    """The one state dict inside what a file holds."""
    found = _state_dicts(saved, tensor_of)
    # where a file keeps both, the trained weights are the model
    found = {at: state for at, state in found.items() if not _is_averaged(at)} or found
    if len(found) == 1:
        return next(iter(found.values()))
    held = ", ".join(map(_shown, list(saved)[:6])) if isinstance(saved, Mapping) else type(saved).__name__
    number = "several state dicts" if found else "no state dict"
    raise BadCheckpoint(f"{path} holds {number} (it has: {held or 'nothing'}); {SAVE_AGAIN}.")


def _shown(key: object) -> str:
    """A key of a file, which may be a number that takes hours to spell out."""
    return key if isinstance(key, str) else f"a key of type {type(key).__name__}"


def _state_dicts(
    saved: Any, tensor_of: TensorOf, at: str = "", depth: int = 0, seen: set[int] | None = None
) -> dict[str, State]:
    """Every candidate by its place: under known keys, else nested dicts, else the tensors here.

    A mapping of mappings that was met before is not entered again: a file may hold one inside itself.
    """
    seen = set() if seen is None else seen
    if not isinstance(saved, Mapping) or id(saved) in seen or depth > _DEEPEST:
        return {}
    if any(isinstance(value, Mapping) for value in saved.values()):
        seen.add(id(saved))
    known: dict[str, State] = {}
    for keys in (_TRAINED, _AVERAGED):
        found = ((key, _state_dicts(saved.get(key), tensor_of, "", depth + 1, seen)) for key in keys)
        key, states = next(((key, states) for key, states in found if states), ("", {}))
        beside = f"{key}." if known else ""
        known |= {f"{at}{beside}{inner}": state for inner, state in states.items()}
    if known:
        return known
    named = {key: value for key, value in saved.items() if isinstance(key, str)}
    here = {key: tensor for key, value in named.items() if (tensor := tensor_of(value)) is not None}
    nested: dict[str, State] = {}
    for key, value in named.items():
        if not key.lower().startswith(_BESIDE):
            nested |= _state_dicts(value, tensor_of, f"{at}{key}.", depth + 1, seen)
    # {"mine": {...}, "best_accuracy": tensor(71.2)}: a stray number does not make a state dict
    return nested or ({at: here} if here else {})


def _is_averaged(at: str) -> bool:
    return at.removesuffix(".").rpartition(".")[2] in _AVERAGED


def _joined(states: dict[str, State]) -> State:
    """One state dict; of several, each under its own name."""
    bare = {at: _without_wrappers(state) for at, state in states.items()}
    if len(bare) == 1:
        return next(iter(bare.values()))
    return {f"{at}{name}": value for at, state in bare.items() for name, value in state.items()}


def without_wrappers(name: str) -> str:
    """A name as the bare model has it."""
    for wrapper in WRAPPERS:
        name = name.replace(f"{wrapper}.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _without_wrappers(state: State) -> State:
    """Names as the bare model has them: without torch.compile, DataParallel and AveragedModel around it.

    Half of a character, which no table of Arrow's and no file can hold, is spelled out.
    """
    state = {key.encode("utf-8", "backslashreplace").decode(): value for key, value in state.items()}
    for wrapper in WRAPPERS:
        state = {key.replace(f"{wrapper}.", ""): value for key, value in state.items()}
    state.pop("n_averaged", None)
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state
