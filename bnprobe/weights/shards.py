"""The files that a path stands for: one checkpoint, those that an index names, or those of a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bnprobe.errors import BadCheckpoint
from bnprobe.files import Place, is_file, is_folder, open_input, read_input

SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
BESIDE = ("optim", "sched", "scaler", "training_args", "rng_state", "random_states", "trainer_state")
"""Names of the files that trainers write next to the weights."""

LARGEST_INDEX = 64 * 2**20
"""Bytes of an index that are read: a thousand times what the largest models have."""


def files_of(path: Place) -> Sequence[Place]:
    """The checkpoint files behind `path`, each of them there and in its folder; BadCheckpoint else."""
    if isinstance(path, Path) and is_folder(path):
        return _of_folder(path)
    _demand(path)
    return _of_index(path) if path.suffix.lower() == ".json" else [path]


def _demand(path: Place) -> None:
    try:
        open_input(path).close()
    except FileNotFoundError:
        raise BadCheckpoint(f"there is no checkpoint {path}. Check the path.") from None
    except OSError as error:
        raise BadCheckpoint(
            f"cannot read {path} ({error.strerror}). Check the path and its permissions, and give the file of the "
            "checkpoint itself."
        ) from None


def _of_folder(folder: Path) -> Sequence[Place]:
    """By its index, else by endings: safetensors before pickles, where a folder has both."""
    there = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith(BESIDE))
    indices = [file for file in there if file.name.endswith(".index.json")]
    if indices:
        return _of_index(next((file for file in indices if "safetensors" in file.name), indices[0]))
    weights = [file for file in there if file.suffix.lower() in SUFFIXES]
    safe = [file for file in weights if file.suffix.lower() == ".safetensors"]
    if weights:
        return safe or weights
    raise BadCheckpoint(
        f"{folder} is a folder without a checkpoint. Give the checkpoint file inside it ({', '.join(SUFFIXES)})."
    )


def _of_index(index: Place) -> Sequence[Place]:
    """The files of a weight map, as Hugging Face writes it: {"weight_map": {tensor: file name}}."""
    try:
        names = set(json.loads(read_input(index, LARGEST_INDEX).decode("utf-8"))["weight_map"].values())
        outside = sorted(name for name in names if name in ("", ".", "..") or set(name) & set("/\\:\0"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        raise BadCheckpoint(
            f'{index} is not an index of a checkpoint (no "weight_map" of file names). Give the folder or a file of tensors.'
        ) from None
    if outside:
        raise BadCheckpoint(
            f"{index} names {outside[0]!r}, which is not a file of its own folder, so nothing was read. "
            "Put the shards next to their index."
        )
    files = [index.parent / name for name in sorted(names)]
    gone = [file.name for file in files if not is_file(file)]
    if gone or not files:
        raise BadCheckpoint(
            f"{index} names {len(files)} files, and {len(gone)} are missing ({', '.join(gone[:3])}). Fetch them as well."
        )
    return files
