"""The tensors in a checkpoint file, read without running anything it holds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bnprobe.errors import BadCheckpoint
from bnprobe.zoo.refusals import SAVE_AGAIN, damaged, refusal

State = dict[str, Tensor]

# In this order: the trained weights before their running average, where a file keeps both.
_KEPT_UNDER = (
    *("state_dict", "model_state_dict", "model", "net", "network", "params", "weights"),
    *("ema_state_dict", "state_dict_ema", "model_ema", "ema", "params_ema"),
)


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
        raise damaged(path, error) from None


def _read_pickle(path: Path) -> Any:
    """Whatever the file holds, if it holds only tensors and plain data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on old or foreign formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage can raise nearly anything: EOFError, KeyError, RuntimeError, OSError
        raise refusal(path, error) from None


def _state_dict(saved: Any, path: Path) -> State:
    """The one state dict inside what a file holds."""
    found = _state_dicts(saved)
    if len(found) == 1:
        return found[0]
    if isinstance(saved, nn.Module):
        raise BadCheckpoint(f"{path} holds a whole module; {SAVE_AGAIN}.")
    held = ", ".join(map(str, list(saved)[:6])) if isinstance(saved, Mapping) else type(saved).__name__
    number = "several state dicts" if found else "no state dict"
    raise BadCheckpoint(f"{path} holds {number} (it has: {held or 'nothing'}); {SAVE_AGAIN}.")


def _state_dicts(saved: Any) -> list[State]:
    """Every candidate: under the first known key that has one, else nested dicts, else the tensors here."""
    if not isinstance(saved, Mapping):
        return []
    for key in _KEPT_UNDER:
        if found := _state_dicts(saved.get(key)):
            return found
    named = {key: value for key, value in saved.items() if isinstance(key, str)}
    here = {key: value.detach() for key, value in named.items() if isinstance(value, Tensor)}
    nested = [state for value in named.values() for state in _state_dicts(value)]
    # {"mine": {...}, "best_accuracy": tensor(71.2)}: a stray number does not make a state dict
    return nested or ([here] if here else [])


def _without_wrappers(state: State) -> State:
    """Names as the bare model has them: without torch.compile, DataParallel and AveragedModel around it."""
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    state.pop("n_averaged", None)
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state
