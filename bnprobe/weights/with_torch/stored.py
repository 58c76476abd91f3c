"""A tensor of a file for torch: what is computed with it is computed with a tensor that is read for it, and forgotten."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map

from bnprobe.weights.stored import Stored


class StoredTensor(torch.Tensor):
    """Whatever is computed with it is computed with a tensor that is read for it, and forgotten again."""

    stored: Stored

    @staticmethod
    def __new__(cls, stored: Stored, dtype: torch.dtype) -> StoredTensor:
        """The same tensor, of torch's class."""
        made: StoredTensor = torch.Tensor._make_wrapper_subclass(
            cls, stored.shape, strides=stored.stride, dtype=dtype
        )
        made.stored = stored
        return made

    @property
    def _local_tensor(self) -> torch.Tensor:
        """The tensor itself, as distributed ones call what a process holds of them."""
        held = self.stored.content()
        if not len(held):
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(held, dtype=self.dtype).as_strided(self.shape, self.stride())

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute with what was read."""
        args, kwargs = tree_map(_read, (args, kwargs or {}))
        return func(*args, **kwargs)

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def numpy(self, *, force: bool = False) -> Any:
        """As of any tensor; torch has no such operation that could be carried out on what was read."""
        return self._local_tensor.numpy(force=force)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"StoredTensor({tuple(self.shape)}, {self.dtype}, in {self.stored.source.path.name})"


def _read(value: Any) -> Any:
    return value._local_tensor if isinstance(value, StoredTensor) else value
