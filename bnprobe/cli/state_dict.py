"""A state dict as the output of a command: at a path where nothing is, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from bnprobe.cli.paths import demand_writable, would_replace

if TYPE_CHECKING:
    from torch import nn


def new_file(name: str, command: str, checkpoint: str | None, *others: Path | None) -> Path:
    """Where to write, refused before minutes of work; `others` are written beside it, over what is there.

    Raises CannotWrite for a path that exists, cannot be written, or is the checkpoint.
    """
    path = Path(name)
    if path.exists():
        raise would_replace(path, command)
    demand_writable([path, *others], [checkpoint])
    return path


def save_state_dict(model: nn.Module, path: Path) -> Path:
    """The state dict with the names it has in the model; by the suffix as safetensors or as torch writes it."""
    import torch

    from bnprobe.files import write_output

    state = model.state_dict()
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        return write_output(path, save({name: tensor.contiguous().clone() for name, tensor in state.items()}))
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return write_output(path, buffer.getvalue())
