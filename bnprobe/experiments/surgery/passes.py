"""Batches through a copied model with hooks of ours, which are gone afterwards as all random states are as before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from bnprobe.experiments.put_back import RandomStates
from bnprobe.experiments.run import Call, run


def run_all(model: nn.Module, batches: Iterable[Any], call: Call | None, hooks: Iterable[Any]) -> None:
    """Run every batch once; `hooks` are the handles, registered as they are asked for."""
    state, handles = RandomStates(), list(hooks)
    try:
        with torch.no_grad():
            for batch in batches:
                run(model, batch, call)
    finally:
        state.restore()
        for handle in handles:
            handle.remove()
