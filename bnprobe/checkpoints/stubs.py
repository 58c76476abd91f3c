"""Tensors without numbers that sharded training leaves in a file where shards were not gathered before saving.

Under DeepSpeed's ZeRO-3 and FSDP a process holds its share of the parameters, and an empty tensor, or one of a
single number, in place of each. Buffers, and under ZeRO-3 small parameters, stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bnprobe.checkpoints.groups import ALIASES
from bnprobe.recording.names import EMPTY
from bnprobe.weights import State, Tensor

SCALES = ALIASES["gamma"]
PARAMETERS = (*SCALES, *ALIASES["beta"])
"""Ends of names. A bias of one number is that of a layer with one output, and no stub."""

BUFFERS = tuple(end for name, ends in ALIASES.items() if name.startswith("running") for end in ends)
"""Ends of the names of running statistics, which no process shares out: one number is a norm of one channel."""

FEWEST = 4
"""Tensors of one number each from which they are stubs in a file without a matrix."""


class Stubs(NamedTuple):
    """The empty tensors of a file, out of how many, and what is left: modules without one."""

    names: tuple[str, ...]
    n_tensors: int
    whole: State

    @property
    def entry(self) -> str:
        """The first of them and how many, recognized by its end: for `Recording.not_understood`."""
        return f"{self.names[0]}: {self.counted} {EMPTY}"

    @property
    def counted(self) -> str:
        """How many of how many."""
        return f"{len(self.names)} of {self.n_tensors} tensors"


def stubs(state: State) -> Stubs:
    """The stubs of a state dict; `names` is empty for one whose tensors are whole."""
    numbers = {name: tensor for name, tensor in state.items() if tensor.is_number}
    found = tuple(_stubs(numbers))
    shells = {name.rpartition(".")[0] for name in found}
    whole = {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] not in shells}
    return Stubs(found, len(numbers), whole if found else state)


def _stubs(numbers: State) -> Iterator[str]:
    """Parameters without a number; and with a single one, where a tensor beside them has more, or no matrix is left."""
    alone = [name for name, tensor in numbers.items() if _at_most_one(tensor) and not name.endswith(BUFFERS)]
    if len(alone) >= FEWEST and all(tensor.dim < 2 for tensor in numbers.values()):
        yield from alone
        return
    larger = {name.rpartition(".")[0] for name, tensor in numbers.items() if tensor.numel > 1}
    single = {
        name
        for name, tensor in numbers.items()
        if name.endswith(SCALES) and _at_most_one(tensor) and name.rpartition(".")[0] in larger
    }
    for name, tensor in numbers.items():
        if name.endswith(PARAMETERS) and (not tensor.numel or (name in single and len(single) > 1)):
            yield name


def _at_most_one(tensor: Tensor) -> bool:
    """A matrix of one row and column is a matrix: stubs are flat."""
    return tensor.dim == 1 and tensor.numel <= 1
