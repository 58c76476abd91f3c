"""What a check takes of remote files: the vectors of norms, and the weights before norms as long as those are few."""

from __future__ import annotations

from collections.abc import Iterator

from bnprobe.checkpoints.groups import Norm
from bnprobe.checkpoints.producers import producers
from bnprobe.weights import State, Tensor, fetch, remote_files

MOST = 2**27
"""Bytes of weights before norms that are fetched, all of them or none: 128 MB, and so every ResNet's."""


def fetch_needed(state: State, norms: tuple[Norm, ...]) -> None:
    """Have in RAM what the records of the norms need, in few requests; nothing is done for files on a disk."""
    if remote_files(state.values()):
        counters = (norm.counter for norm in norms if norm.counter is not None)
        fetch([*(tensor for norm in norms for tensor in norm.vectors.values()), *counters])
        before = _before(state, norms)
        if _size(before) <= MOST:
            fetch(before)


def of_fetching(state: State, norms: tuple[Norm, ...]) -> Iterator[str]:
    """How much of remote files was fetched, and what was left out, in words."""
    files = remote_files(state.values())
    if not files:
        return
    n, whole = sum(file.n_fetched for file in files), sum(file.size for file in files)
    yield f"{n / 1e6:,.1f} MB of {whole / 1e6:,.1f} MB were fetched."
    before = _before(state, norms)
    if any(tensor.far for tensor in before):
        yield (
            f"The weights before norms ({_size(before) / 1e6:,.0f} MB) were not fetched, so nothing is said of them: "
            "download the file to have them judged as well."
        )


def _before(state: State, norms: tuple[Norm, ...]) -> list[Tensor]:
    """The weights and biases that feed norms."""
    names = (f"{path}.{leaf}" for path in producers(state, norms).values() for leaf in ("weight", "bias"))
    return [state[name] for name in names if name in state]


def _size(tensors: list[Tensor]) -> int:
    return sum(tensor.numel * tensor.itemsize for tensor in tensors)
