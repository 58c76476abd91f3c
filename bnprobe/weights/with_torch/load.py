"""What torch alone can read: files from before its version 1.6, and tensors that are no plain views of numbers."""

from __future__ import annotations

import warnings
from typing import Any, BinaryIO

import torch
from torch import nn

from bnprobe.errors import BadCheckpoint
from bnprobe.files import Place
from bnprobe.weights.messages import SAVE_AGAIN


def load_with_torch(file: BinaryIO, path: Place) -> Any:
    """Its content, by torch's own reader of tensors and plain data; raises whatever that raises, and BadCheckpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's warnings about old or foreign formats
        saved = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(saved, nn.Module):  # where the user's program allowed it
        raise BadCheckpoint(f"{path} holds a whole module; {SAVE_AGAIN}.")
    return saved
