"""The recordings of all ranks of a process group of torch as one, on every rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from bnprobe.errors import BnprobeError
from bnprobe.recording import Recording
from bnprobe.scaling.exchange import gather_over


def gather(recording: Recording, *, group: ProcessGroup | None = None) -> Recording:
    """Merge the recordings of all ranks of a process group; every rank gets the whole.

    All ranks must call it, each with what it recorded: `probe.recording`, after its loop. Recordings travel as bytes, not
    as pickles. In a group of one rank the recording comes back as it is.

    Args:
        recording: What this rank recorded.
        group: The ranks whose samples add up; None for all. With tensor parallelism every rank of a model sees the same
            samples: pass the data-parallel group then.

    Returns:
        The whole, the same on every rank; `recording.sources` are the ranks.

    Raises:
        CannotMerge: Two ranks saw the same samples, their weights, layers or settings differ, or a rank ended before it
            called gather; raised on every rank that is left.
        BnprobeError: There is no process group, or this rank is not in it.

    Example:
        >>> import tempfile, torch, bnprobe
        >>> folder = tempfile.mkdtemp()
        >>> torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=0, world_size=1)
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).eval()
        >>> whole = bnprobe.gather(bnprobe.record(model, [torch.randn(5, 6)]))
        >>> whole.about.n_images
        5
        >>> torch.distributed.destroy_process_group()
    """
    if not isinstance(recording, Recording):
        raise BnprobeError(f"gather needs a Recording, got {type(recording).__name__}. Pass probe.recording.")
    link = TorchLink(group)
    return recording if link.n_ranks == 1 else gather_over(link, recording)


class TorchLink:
    """The ranks of a process group, counted within it; bytes travel as tensors where its backend takes them."""

    def __init__(self, group: ProcessGroup | None = None) -> None:
        self._group = group if group is not None else default_group()
        self.rank = distributed.get_rank(self._group)
        if self.rank < 0:
            raise BnprobeError("this rank is not in the group. Let only its ranks call gather.")
        self.n_ranks = distributed.get_world_size(self._group)
        self._device = "cuda" if distributed.get_backend(self._group) == "nccl" else "cpu"

    def send(self, content: bytes, to: int) -> None:
        """Hand bytes to another rank. Raises ConnectionError where it is gone."""
        numbers = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with _connected():
            for part in (torch.tensor([len(numbers)]), numbers):
                distributed.send(part.to(self._device), self._global(to), self._group)

    def receive(self, source: int) -> bytes:
        """Wait for the bytes of another rank. Raises ConnectionError where it is gone."""
        with _connected():
            size = self._filled(torch.zeros(1, dtype=torch.int64), source)
            numbers = self._filled(torch.empty(int(size), dtype=torch.uint8), source)
        return numbers.numpy().tobytes()

    def _filled(self, room: Tensor, source: int) -> Tensor:
        room = room.to(self._device)
        distributed.recv(room, self._global(source), self._group)
        return room.cpu()

    def _global(self, rank: int) -> int:
        return distributed.get_global_rank(self._group, rank)


def default_group() -> ProcessGroup:
    """All ranks. Raises BnprobeError where there is no process group."""
    whole = distributed.group.WORLD if distributed.is_available() else None
    if whole is None:
        raise BnprobeError(
            "gather needs a process group, and there is none. Call torch.distributed.init_process_group first, or, in a "
            "single process, use probe.recording as it is."
        )
    return whole


@contextmanager
def _connected() -> Iterator[None]:
    """What a backend raises where a rank is gone is a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(" ".join(str(error).split())[:160]) from None
