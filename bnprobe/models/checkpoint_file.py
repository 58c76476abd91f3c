"""The tensors in a checkpoint file, for a model of torch's."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from bnprobe.weights import load
from bnprobe.weights.with_torch.ram import as_torch

State = dict[str, Tensor]


def load_checkpoint(path: Path | str) -> State:
    """The tensors of a `.pt`, `.pth`, `.th` or `.safetensors` file, on the CPU, by their names in the model.

    `path` may also be an index (`*.index.json`) or a folder of shards; see `bnprobe.weights.load`. A tensor is read when
    it is used, where the format allows it: safetensors and what torch writes today. Pickles are read as data: one that
    needs more is refused unread. Raises BadCheckpoint, in one line, for whatever else is wrong with the file.
    """
    return {name: as_torch(tensor) for name, tensor in load(Path(path), several=False).items()}
