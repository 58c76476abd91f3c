"""Where the tokens of a pass are: position in their sequence, number of the sequence, and id.

Positions are those that the model is given (`position_ids`); without, each sequence counts its valid tokens, so that pads on
the left shift nothing, and a call with a cache goes on where the last one ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from bnprobe.probe.masks import Kept, Mask
from bnprobe.probe.packing import Packing
from bnprobe.probe.tensors import first_tensor, is_transformed
from bnprobe.stats.moments import Array
from bnprobe.stats.tokens import N_BUCKETS

LEGACY_CACHE = "past_key_values"
"""The argument under which older models take keys and values of the tokens before, as tuples of tensors."""


class Placed(NamedTuple):
    """The tokens of an input with N rows of P positions: the `bucket` (N * P,) of each position (N_BUCKETS where it is not
    known), and `names` (N * P, 3): sequence of the pass, position and id, -1 where not known.

    `since` is how many sequences have begun since the first one of the pass did, that one included. `in_a_row` says that
    rows are no sequences: tokens lie one behind another.
    """

    bucket: Tensor
    names: Tensor
    n_sequences: int
    continues: bool
    since: int
    in_a_row: bool


class Places:
    """The tokens of a pass; `positions` and `ids` have shape (N, T), None where they are not known.

    `continues` says whether the sequences began in an earlier pass, and `since` how many have begun since then, their own
    included, where that is known. `rows` rows each are one sequence, as the beams of a prompt are. `images` are the
    beginnings of the paths of layers that see images, and not these tokens. `packing` says
    where sequences begin that lie one behind another.
    """

    def __init__(
        self,
        positions: Array | None = None,
        ids: Array | None = None,
        continues: bool = False,
        packing: Packing | None = None,
    ) -> None:
        self.positions, self.ids, self.continues, self.packing = positions, ids, continues, packing
        self.since: int | None = None
        self.rows = 1
        self.images: tuple[str, ...] = ()
        self._placed: dict[tuple[tuple[int, ...], torch.device], Placed] = {}

    def of(self, layer: str) -> Places:
        """Those of the inputs of a layer."""
        return Places() if layer.startswith(self.images) else self

    def on(self, places: tuple[int, ...], device: torch.device) -> Placed:
        """The tokens of an input whose dimensions without channels are `places`, N first."""
        key = places, device
        if key not in self._placed:
            self._placed[key] = self._on(places, device)
        return self._placed[key]

    def _on(self, places: tuple[int, ...], device: torch.device) -> Placed:
        n, *sizes = places
        positions, ids = self._spread(self.positions, places), self._spread(self.ids, places)
        if positions is None and len(sizes) == 1:
            positions = np.broadcast_to(np.arange(sizes[0]), (n, sizes[0]))
        unknown = np.full((n, int(np.prod(sizes, dtype=np.int64))), -1)
        positions, ids = (unknown if known is None else known for known in (positions, ids))
        # 0, 1, 2-3, 4-7, ...: the number of binary digits
        bucket = np.minimum(np.frexp(positions.astype(np.float64))[1], N_BUCKETS - 1)
        bucket = np.where(positions < 0, N_BUCKETS, bucket).astype(np.int64)
        rows: Array = np.broadcast_to(np.arange(n, dtype=np.float64)[:, None], unknown.shape)
        n_sequences = n
        in_a_row = not sizes
        if self.packing is not None:
            sequence = self._spread(self.packing.sequence, places)
            in_a_row, n_sequences = sequence is not None, self.packing.n_samples
            rows = rows if sequence is None else sequence
        elif not sizes and self.positions is not None and self.positions.size == n:
            n_sequences = len(self.positions)
            rows = rows // (n // n_sequences)
        if n_sequences % self.rows == 0:
            n_sequences, rows = n_sequences // self.rows, rows // self.rows
        names = np.stack([rows, positions, ids], axis=-1).reshape(-1, 3).astype(np.float64)
        there = (torch.from_numpy(bucket.reshape(-1)).to(device), torch.from_numpy(names).to(device))
        since = n_sequences if self.since is None else self.since
        return Placed(*there, n_sequences, self.continues, since, in_a_row)

    def _spread(self, values: Array | None, places: tuple[int, ...]) -> Array | None:
        """Values (N, T) over (N, T, heads), (N, heads, T), (N * T,) or (N * T, heads); None where it is not clear which
        dimension is T."""
        n, *sizes = places
        if values is not None and values.size == n and (not sizes or len(values) != n):
            # all tokens in a row, sequence by sequence
            return np.broadcast_to(values.reshape(n, 1), (n, int(np.prod(sizes, dtype=np.int64))))
        if values is None or len(values) != n:
            return None
        found = [dim for dim, size in enumerate(sizes) if size == values.shape[1]]
        if len(found) != 1:
            return None
        shape = [size if dim == found[0] else 1 for dim, size in enumerate(sizes)]
        return np.broadcast_to(values.reshape(n, *shape), (n, *sizes)).reshape(n, -1)


def places_of(
    args: Sequence[Any], kwargs: Mapping[str, Any], mask: Kept | None, sample_dim: int, past: Earlier
) -> Places:
    """The tokens of a pass with these arguments, and what went before."""
    if isinstance(mask, Packing) and not is_transformed():
        return _of_packed(args, kwargs, mask)
    tensor = tokens_in(args, kwargs)
    if tensor is None or tensor.is_meta or is_transformed():
        return Places()
    is_ids = tensor.dim() == 2
    tensor = tensor.detach().movedim(sample_dim, 0) if 0 < sample_dim < 2 else tensor.detach()
    n, t = tensor.shape[:2]
    positions = _given(kwargs.get("position_ids"), n, t)
    if positions is None and isinstance(mask, Mask) and mask.history.ndim == 2 and mask.history.shape[1] >= t:
        positions = np.maximum(np.cumsum(mask.history, axis=1) - 1, 0)[:, -t:]
    if positions is None and past.n is not None:
        positions = np.broadcast_to(past.n + np.arange(t), (n, t))
    if positions is None:
        positions = np.full((n, t), -1)
    ids = _whole_numbers(tensor) if is_ids else None
    return Places(positions, ids, past.continues)


def _of_packed(args: Sequence[Any], kwargs: Mapping[str, Any], packing: Packing) -> Places:
    """The tokens of sequences that lie one behind another."""
    given = kwargs.get("input_ids", first_tensor(args, kwargs))
    is_ids = isinstance(given, Tensor) and not given.is_floating_point() and given.numel() == packing.n_valid
    ids = _whole_numbers(given).reshape(1, -1) if is_ids and not given.is_meta else None
    return Places(packing.position, ids, packing=packing)


def tokens_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The ids of a pass, shape (N, T), or the vectors in their place; None where it has neither."""
    given = kwargs.get("input_ids", kwargs.get("inputs_embeds"))
    tensor = given if isinstance(given, Tensor) else first_tensor(args, kwargs)
    if tensor is None or tensor.is_nested or tensor.dim() not in (2, 3):
        return None
    return tensor if tensor.dim() == 3 or not tensor.is_floating_point() else None


class Earlier(NamedTuple):
    """How many tokens of each sequence went through the model before a call, None where that is not known; the cache of
    states that does not tell how many; and the cache, whatever it is, where it is an object that stays the same."""

    n: int | None = 0
    states: Any = None
    cache: Any = None

    @property
    def continues(self) -> bool:
        """Whether the sequences began in an earlier call."""
        return self.n != 0


def earlier(kwargs: Mapping[str, Any]) -> Earlier:
    """What went through the model before the call with these arguments.

    A cache is known by its methods, whatever the argument is called: names differ between releases of transformers.
    """
    for value in kwargs.values():
        length = getattr(value, "get_seq_length", None)
        if callable(length):
            with suppress(Exception):  # caches of state space models have no length, and say so by an error
                return Earlier(int(length()), cache=value)
        if (has_states := _has_states(value)) is not None:
            return Earlier(None if has_states else 0, value, value)
    given = kwargs.get(LEGACY_CACHE)
    while isinstance(given, tuple | list) and given:
        given = given[0]
    return Earlier(given.shape[-2] if isinstance(given, Tensor) and given.dim() == 4 else 0)


def _has_states(value: Any) -> bool | None:
    """Whether a cache holds what a state space model made of earlier tokens; None where it is no such cache."""
    said = getattr(value, "has_previous_state", None)
    with suppress(Exception):  # one without any state yet may say so by an error
        said = said() if callable(said) else said
    return said if isinstance(said, bool) else None


class CountedCaches:
    """How many tokens went into caches of states, which do not tell it: counted as they pass."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def earlier(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Earlier:
        """What went through the model before the call with these arguments, which begins now."""
        found = earlier(kwargs)
        if found.states is None:
            return found
        tokens = tokens_in(args, kwargs)
        with suppress(TypeError):  # a cache that cannot be referred to
            n = self._seen.get(found.states) if found.continues else 0
            if n is not None and tokens is not None:
                self._seen[found.states] = n + tokens.shape[1]
            return Earlier(n, found.states, found.cache)
        return found


def _given(value: Any, n: int, t: int) -> Array | None:
    """Positions as the model was given them, (N, T); None where they have another shape."""
    if not isinstance(value, Tensor) or value.dim() not in (1, 2) or value.shape[-1] != t:
        return None
    if value.dim() == 2 and len(value) not in (1, n):
        return None
    return np.broadcast_to(np.maximum(_whole_numbers(value), 0), (n, t))


def _whole_numbers(tensor: Tensor) -> Array:
    """A copy on the host."""
    numbers: Array = tensor.detach().to("cpu", torch.int64, copy=True).numpy()
    return numbers
