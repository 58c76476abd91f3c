"""Weights into a model, every tensor accounted for, and the file they came from by its hash."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnprobe.errors import BadCheckpoint
from bnprobe.files import open_input
from bnprobe.models.checkpoint_file import State
from bnprobe.norms.module_tree import method
from bnprobe.weights import without_wrappers
from bnprobe.weights.messages import one_line
from bnprobe.weights.with_torch.kinds import foreign

_OTHER_MODEL = "Name the model that was saved; for your own, package.module:function."


def fit(model: nn.Module, state: State, file: str, name: str) -> None:
    """Load `state` into `model`, every tensor of both accounted for, or raise BadCheckpoint with the list."""
    own = model.state_dict()
    state = _without_outer_name(_as_named_here(state, own.keys()), own.keys())
    strange = {key: words for key in own if key in state and (words := foreign(state[key]))}
    shared = [key for key in own if key in state and key not in strange]
    wrong = {key: words for key in shared if (words := _misfit(state[key], own[key]))}
    right = OrderedDict(
        (key, value) for key, value in state.items() if key not in wrong and key not in strange
    )
    # files keep no format versions once unwrapped, and MNASNet refuses a state without: take today's
    right._metadata = own._metadata  # type: ignore[attr-defined]
    try:
        # not a comparison of names: torch's own loading knows the names that modules had in older versions
        left = method(model, "load_state_dict")(right, strict=False)
    except RuntimeError as error:
        raise BadCheckpoint(f"{file} does not load into {name} ({one_line(error)}). {_OTHER_MODEL}") from None
    faults = (
        _listed(
            _needed(key for key in left.missing_keys if key not in wrong and key not in strange), "missing"
        ),
        _listed(_needed(left.unexpected_keys), "unexpected"),
        _listed([f"{key}: {words}" for key, words in wrong.items()], "of another shape"),
        _listed([f"{key} is {words}" for key, words in strange.items()], "without plain numbers"),
    )
    if any(faults):
        raise BadCheckpoint(f"{file} does not fit {name}: {', '.join(filter(None, faults))}. {_OTHER_MODEL}")


def provenance(path: Path) -> str:
    """File name and the start of its sha256; says so where it differs from the hash in torchvision's file name."""
    digest = sha256(path)
    named = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    differs = named is not None and not digest.startswith(named[1])
    return f"{path.name}, sha256 {digest[:8]}…" + (
        " (does not match the hash in its name)" if differs else ""
    )


def sha256(path: Path) -> str:
    """The hash of a file's bytes, 64 hexadecimal digits."""
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_named_here(state: State, wanted: Set[str]) -> State:
    """The names of the model, where these differ by the names of wrappers alone (`module.`, `_orig_mod.`)."""
    if wanted <= state.keys():
        return state
    here = {bare: name for name in wanted if (bare := without_wrappers(name)) != name}
    return {here.get(name, name) if name not in wanted else name: value for name, value in state.items()}


def _without_outer_name(state: State, wanted: Set[str]) -> State:
    """Peel one outer name (`model.`, as Lightning saves) where the model's own names are under it."""
    outer = {key.partition(".")[0] for key in state}
    peeled = {key.partition(".")[2]: value for key, value in state.items()}
    return peeled if len(outer) == 1 and not wanted & state.keys() and wanted & peeled.keys() else state


def _misfit(saved: Tensor, own: Any) -> str:
    """How two shapes differ, in words; empty where they agree or the model has not decided yet."""
    if isinstance(own, Tensor) and not is_lazy(own) and own.numel() and not saved.numel():
        return "empty in the file, as shards are that were not gathered before saving"
    if not isinstance(own, Tensor) or is_lazy(own) or saved.shape == own.shape:
        return ""
    return f"{tuple(saved.shape)} in the file, {tuple(own.shape)} in the model"


def _needed(keys: Iterable[str]) -> list[str]:
    """Without the counters that nothing is normalized by, and that files from before torch 0.4.1 lack."""
    return [key for key in keys if not key.endswith("num_batches_tracked")]


def _listed(keys: list[str], what: str, most: int = 3) -> str:
    """'5 missing (a, b, c, ...)', or nothing for no keys."""
    shown = ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
    return f"{len(keys)} {what} ({shown})" if keys else ""
