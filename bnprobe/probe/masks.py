"""Which positions of a batch count: a mask in any accepted form, and where the input of a norm has its positions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bnprobe.errors import BadMask, BnprobeError, class_name
from bnprobe.norms import NormLayer
from bnprobe.probe.packing import NAMED, Packing
from bnprobe.probe.tensors import is_block
from bnprobe.reductions import Valid


class EmptyMask(BadMask):
    """A mask that keeps nothing."""


Positions = Tensor | np.ndarray[Any, Any] | Sequence[Any]
"""True or 1 where a position counts: (N,), (N, T), (N, H, W); see `Mask` for what is refused at run time."""

_FORM = "True or 1 for positions that count and False or 0 for padding, of shape (N,), (N, T) or (N, H, W)"

MARKS_PADDING = "padding_mask"
"""Ending of the names under which torch, fairseq and others pass masks that are true for padding."""

USUAL = "attention_mask"
"""The argument whose mask is used though nobody asked, where it is one value per token."""

INVERTED = "~"
"""Before the name of an argument whose mask is true for padding."""


class Mask:
    """The positions of a batch that count, from a mask of shape (N, positions ...).

    Raises BadMask for anything but booleans, or numbers that are 0 and 1, of at least one dimension, one of them true.
    """

    def __init__(self, given: Any, *, marks_padding: bool = False) -> None:
        self._of(_booleans(given, marks_padding))
        self.history = self._counts

    def _of(self, counts: npt.NDArray[np.bool_]) -> None:
        self._counts = counts
        self.n_samples = len(counts)
        self.n_valid = int(np.count_nonzero(counts))
        self.n_left_out = counts.size - self.n_valid
        self._placed: dict[tuple[int, ...], Valid | None] = {}

    def newest(self, t: int) -> Mask:
        """The last T positions, of a call that goes on with a cache: the others were recorded in the calls before.

        `history` keeps them, since the positions of the new ones are counted from there.
        """
        counts = self._counts[:, -t:]
        if counts.ndim != 2 or not counts.any():
            return self
        made = copy(self)
        made._of(counts)
        return made

    def with_more(self, t: int) -> Mask:
        """That of T further tokens, which all count."""
        whole = Mask(np.pad(self.history, ((0, 0), (0, t)), constant_values=True))
        return whole.newest(t)

    @property
    def shape(self) -> tuple[int, ...]:
        """As it was given."""
        return self._counts.shape

    def __str__(self) -> str:
        return f"a mask of shape {self.shape}"

    @property
    def is_triangle(self) -> bool:
        """Whether it says that each position sees those before it, and nothing of padding."""
        return self.shape[0] > 1 and np.array_equal(self._counts, np.tri(*self.shape[:2], dtype=bool))

    def samples_of(self, first: Tensor, n_samples: int) -> int:
        """The samples of a batch, of which its first tensor has so many. Raises BadMask unless the mask has them."""
        if self.n_samples != n_samples:
            raise BadMask(
                f"got a mask of shape {self.shape} for a batch of {n_samples} samples. Pass one row per sample; of inputs "
                "whose first dimension is not the sample, say sample_dim= to attach."
            )
        return n_samples

    def on(self, plan: NormLayer, x: Tensor) -> tuple[bool, Valid | None]:
        """Whether an input of a norm has the positions of the mask, and which of its rows count; None for all.

        It has them where its own sizes, without channels, hold those of the mask in their order in exactly one way: (N, T)
        is found in (N, T, heads) and (N, heads, T), and not in (N, 1 + T) or in windows of images. Tokens in a row,
        (N * T), are taken sequence by sequence, unless the sample is not the first dimension.
        """
        places = plan.places(x)
        if places not in self._placed:
            in_a_row = len(self.shape) == 2 and places == (self._counts.size,) and not plan.sample_dim
            found = self._counts.reshape(-1, 1).copy() if in_a_row else self._found(places)
            self._placed[places] = None if found is None else Valid(found)
        valid = self._placed[places]
        return valid is not None, valid if valid is not None and valid.n_left_out else None

    def _found(self, places: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
        """The mask of rows, shape (N, P), of an input with these places; None where it is not clear."""
        n, *sizes = places
        wanted = [size for size in self.shape[1:] if size != 1]
        real = [dim for dim, size in enumerate(sizes) if size != 1]
        ways = [dims for dims in combinations(real, len(wanted)) if [sizes[dim] for dim in dims] == wanted]
        if n != self.n_samples or len(ways) != 1:
            return None
        spread = [size if dim in ways[0] else 1 for dim, size in enumerate(sizes)]
        # a copy, which torch may look at
        return np.array(np.broadcast_to(self._counts.reshape(n, *spread), (n, *sizes)).reshape(n, -1))


def _booleans(given: Any, marks_padding: bool) -> npt.NDArray[np.bool_]:
    """A copy of the mask. Through lists and arrays of our own: a tensor that numpy has seen cannot be resized again."""
    if isinstance(given, Tensor):
        tensor = given.detach()
        shape = "of unequal rows" if tensor.is_nested else f"of shape {tuple(tensor.shape)}"
        said = f"a {str(tensor.dtype).removeprefix('torch.')} tensor {shape}"
        real = is_block(tensor) and not tensor.is_complex()
        values = tensor.to("cpu", torch.float64, copy=True).numpy() if real else None
    else:
        try:
            values = np.asarray(given)
        except ValueError:  # rows of unequal length
            values = None
        said = (
            f"an array of {values.dtype}, shape {values.shape}"
            if values is not None
            else "rows of unequal length"
        )
        values = values if values is not None and values.dtype.kind in "biuf" else None
    if values is None or not values.ndim or not values.size:
        raise BadMask(f"a mask holds {_FORM}, got {said}.")
    counts: npt.NDArray[np.bool_] = values == 1
    if not np.all(counts | (values == 0)):
        raise BadMask(
            f"a mask holds {_FORM}, got {said} with other values. Of one that is added to attention scores pass mask == 0."
        )
    counts = np.logical_not(counts) if marks_padding else counts
    if not counts.any():
        # zeros that are added to attention scores keep everything
        added = given.is_floating_point() if isinstance(given, Tensor) else values.dtype.kind == "f"
        raise (BadMask if added else EmptyMask)(
            f"the mask, {said}, keeps no position, so nothing would be recorded. Leave such batches out, and mark with "
            f"{'False' if marks_padding else 'True'} what counts; of one that is added to attention scores pass mask == 0."
        )
    return counts


def keys_seen(given: Any) -> Any:
    """Of a mask of attention, (N, queries, keys) or (N, heads, queries, keys), which keys any query sees: the others are
    padding, whatever is causal; None where all are seen. Of one that is added to scores, which are not far below 0. Other
    masks as they are.
    """
    if not isinstance(given, Tensor) or not is_block(given) or not given.numel():
        return given
    added = given.is_floating_point() and bool(given.amin() < FAR_BELOW) and bool(given.amax() <= 0)
    if not added and given.dim() not in (3, 4):
        return given
    seen = given > FAR_BELOW if added else given > 0
    keys = seen.flatten(1, -2).any(1) if given.dim() > 2 else seen
    return None if bool(keys.all()) else keys


FAR_BELOW = -1e3
"""Added to a score it leaves a key unseen: e^-1000 is 0 in every precision."""

Kept = Mask | Packing
"""What counts of a batch: the positions of a padded one, or the sequences of a packed one."""


class MaskArgument:
    """The argument of the model's forward that holds a mask, by the name given to `attach`; `asked` if a user named it,
    `of_encoder` if the model has a decoder, too.

    Raises BnprobeError where the model has no such argument, or where by its name it marks padding.
    """

    def __init__(self, given: str, model: nn.Module, *, asked: bool = True) -> None:
        self.asked = asked
        self.name, self._inverted = given.removeprefix(INVERTED), given.startswith(INVERTED)
        if self.name.endswith(MARKS_PADDING) and not self._inverted:
            raise BnprobeError(
                f"mask={given!r}: masks of this name are true for padding. If so here, pass mask={INVERTED + given!r}."
            )
        parameters = inspect.signature(model.forward).parameters
        named = [p.name for p in parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        if self.name not in named and len(named) == len(parameters):
            raise BnprobeError(
                f"mask={given!r}: {class_name(model)}.forward has no such argument; it has {', '.join(named)}. Pass the "
                "name of the one that holds the mask, or run the model inside probe.mask(m)."
            )
        self.of_encoder = "decoder_input_ids" in named
        self._place = named.index(self.name) if self.name in named else None

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Kept | None:
        """The mask of a call, or its sequences; None where it has none."""
        positional = self._place is not None and self._place < len(args)
        given = args[self._place] if positional else kwargs.get(self.name)  # type: ignore[index]
        given = given if self.asked else keys_seen(given)
        if given is None:
            return None
        if NAMED.search(self.name):
            return Packing(given)
        return Mask(given, marks_padding=self._inverted)


def usual_argument(model: nn.Module) -> MaskArgument | None:
    """`attention_mask`, as models of tokens call the mask of padding, where the model may be given it."""
    try:
        return MaskArgument(USUAL, model, asked=False)
    except (BnprobeError, TypeError, ValueError):  # no such argument, or a forward without a signature
        return None
