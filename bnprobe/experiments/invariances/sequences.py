"""A batch read as rows of tokens: which of its tensors are the tokens and their mask, and the batch with other ones.

N sequences, T positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.errors import BadMask, BnprobeError, NothingRecorded
from bnprobe.norms import ModuleTree
from bnprobe.norms.classes import names_of_bases
from bnprobe.probe.batches import parts
from bnprobe.probe.masking import USUAL
from bnprobe.probe.masks import INVERTED, MARKS_PADDING, Mask

Key = str | int | None
"""Where a tensor is: its name, its place among positional arguments, or None for an input that is one tensor."""

POSITIONS = "position_ids"

IGNORED = -100
"""The label that losses leave out."""

ENCODERS = ("maskedlm", "mlm", "bert")
"""In the names of models that see both sides of a token."""

_NOT_TOKENS = (POSITIONS, "token_type_ids", "labels", "decoder_attention_mask")


class NotSequences(BnprobeError):
    """A batch without rows of tokens; its message is said of each probe that needs them."""


@dataclass(frozen=True)
class Sequences:
    """A batch of token sequences, each without padding, and how it is put together again.

    `inputs` are the tensors of the model's input by their keys, `tokens` and `mask` the keys of two of them; `mask` is also
    set where the batch has none and the model takes one.
    """

    batch: Any
    inputs: Mapping[Key, Any]
    names: tuple[str, ...]
    """Of the arguments of the model's forward."""
    tokens: Key
    mask: Key
    marks_padding: bool
    causal: bool | None
    """Whether the model predicts next tokens, by what its classes, its modules or the targets say; None if nothing does."""

    @property
    def ids(self) -> Tensor:
        """The tokens, shape (N, T)."""
        tokens: Tensor = self.inputs[self.tokens]
        return tokens

    @cached_property
    def per_token(self) -> tuple[Key, ...]:
        """Keys of the tensors that have a value per token, or one per position for all sequences."""
        n, t = self.ids.shape
        return tuple(
            key
            for key, value in self.inputs.items()
            if isinstance(value, Tensor) and tuple(value.shape) in ((n, t), (1, t))
        )

    @property
    def takes_positions(self) -> bool:
        """Whether the model can be told the positions of tokens."""
        return POSITIONS in self.names or POSITIONS in self.inputs

    @property
    def one_stream(self) -> bool:
        """Whether there is nothing beside tokens, such as images: those may belong to tokens that must not be cut off."""
        return all(
            key in self.per_token or key == self.mask or not isinstance(value, Tensor)
            for key, value in self.inputs.items()
        )

    def rebuilt(self, inputs: Mapping[Key, Any]) -> Any:
        """The batch with other inputs; its targets stay."""
        x = parts(self.batch)[0]
        new: Any
        if isinstance(x, Mapping) or set(inputs) != set(inputs_of(self.batch)):
            new = {self._name(key): value for key, value in inputs.items()}
        else:
            new = tuple(inputs.values()) if isinstance(x, tuple) else inputs[None]
        if isinstance(self.batch, tuple | list) and len(self.batch) in (1, 2):
            return (new, *self.batch[1:])
        return new

    def _name(self, key: Key) -> str:
        """What the model calls an input."""
        return key if isinstance(key, str) else self.names[key or 0]

    def meant(self, causal: bool) -> Sequences:
        """With what the user says of the model."""
        return replace(self, causal=causal)

    def cut(self, t: int) -> Sequences:
        """The first T positions of each sequence."""
        return replace(
            self,
            inputs={
                key: value[:, :t] if key in self.per_token else value for key, value in self.inputs.items()
            },
        )

    def with_last_changed(self, avoid: frozenset[int] = frozenset()) -> Sequences:
        """With another token in the last place of each sequence, one that the batch holds elsewhere."""
        ids = self.ids.clone()
        ids[:, -1] = _others(ids, avoid)
        return replace(self, inputs={**self.inputs, self.tokens: ids})

    def padded(self, n_left: int, n_right: int, pad: int) -> dict[Key, Any]:
        """The inputs with padding around each sequence, a mask and the positions that tokens had without it."""
        made = {
            key: _wider(
                value, n_left, n_right, pad if key == self.tokens else IGNORED if key == "labels" else 0
            )
            if key in self.per_token
            else value
            for key, value in self.inputs.items()
        }
        n, t = self.ids.shape
        if self.mask is not None:
            made[self.mask] = self._mask(_wider(torch.ones(n, t), n_left, n_right, 0))
        return made

    def with_positions(self) -> Sequences:
        """The same with the positions of its tokens, where the model can be told them and nothing else depends on them."""
        if not self.takes_positions or POSITIONS in self.inputs or not self.one_stream:
            return self
        n, t = self.ids.shape
        places = torch.arange(t, device=self.ids.device).expand(n, t)
        return replace(self, inputs={**self.inputs, POSITIONS: places})

    def _mask(self, counts: Tensor) -> Tensor:
        given = self.inputs.get(self.mask)
        kind = given.dtype if isinstance(given, Tensor) else torch.bool if self.marks_padding else torch.long
        return (1 - counts if self.marks_padding else counts).to(self.ids.device, kind)


def sequences(model: nn.Module, batch: Any, mask: str | None) -> Sequences:
    """A batch as sequences without padding: those that are longest in it, each with its own tokens only.

    Raises NotSequences where inputs are something else, NothingRecorded where there are no tokens, and BadMask for a mask
    that does not fit them.
    """
    inputs = inputs_of(batch)
    tokens = _tokens(inputs)
    ids = inputs[tokens]
    if not ids.numel():
        raise NothingRecorded(
            f"the tokens have shape {tuple(ids.shape)}, so there are none. Pass sequences of at least two tokens."
        )
    names = parameters_of_forward(model)
    key, marks_padding = _mask_key(inputs, names, mask)
    found = Sequences(
        batch,
        inputs,
        names,
        tokens,
        key,
        marks_padding,
        _predicts_next(model, ids, parts(batch)[1], inputs),
    )
    given = inputs.get(key) if key is not None else None
    return found if given is None else _without_padding(found, given)


def inputs_of(batch: Any) -> dict[Key, Any]:
    """What a model is given, by key."""
    x = parts(batch)[0]
    if isinstance(x, Mapping):
        return dict(x)
    return dict(enumerate(x)) if isinstance(x, tuple) else {None: x}


def parameters_of_forward(model: nn.Module) -> tuple[str, ...]:
    """The names of the arguments of the model's forward."""
    try:
        return tuple(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        return ()


def decoder_stream(found: Sequences) -> Sequences:
    """The same batch by its decoder's tokens, where it has an encoder's, too: what predicts next tokens is the decoder."""
    own = found.inputs.get("decoder_input_ids")
    if own is None:
        return found
    mask = "decoder_attention_mask" if "decoder_attention_mask" in found.inputs else None
    return replace(found, tokens="decoder_input_ids", mask=mask, causal=True)


def _tokens(inputs: Mapping[Key, Any]) -> Key:
    """Where the tokens are: whole numbers of shape (N, T)."""
    named = ["input_ids"] if "input_ids" in inputs else list(inputs)
    for key in named:
        value = inputs[key]
        text = str(key)
        if text in (*_NOT_TOKENS, *USUAL) or text.endswith(MARKS_PADDING) or not isinstance(value, Tensor):
            continue
        if value.dim() == 2 and not (
            value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
        ):
            return key
    raise NotSequences("the inputs hold no tokens: whole numbers of shape (N, T)")


def _mask_key(inputs: Mapping[Key, Any], names: tuple[str, ...], given: str | None) -> tuple[Key, bool]:
    """The key of the mask, and whether it is true for padding; None where the model takes none."""
    if given is not None:
        name = given.removeprefix(INVERTED)
        if name not in inputs and name not in names:
            raise BnprobeError(
                f"mask={given!r}: neither the batches nor the model's forward have such an argument; forward has "
                f"{', '.join(names)}. Pass the name of the one that holds the mask, "
                f"{INVERTED!r} before it if it marks padding."
            )
        return _place(name, names, inputs), given.startswith(INVERTED) or name.endswith(MARKS_PADDING)
    for name in (*(key for key in inputs if isinstance(key, str)), *names):
        if name in USUAL or (name.endswith(MARKS_PADDING) and "memory" not in name):
            return _place(name, names, inputs), name.endswith(MARKS_PADDING)
    return None, False


def _place(name: str, names: tuple[str, ...], inputs: Mapping[Key, Any]) -> Key:
    """The key under which a batch has an argument, which may be its place; else its name."""
    place = names.index(name) if name in names else None
    return place if place in inputs and place is not None else name


def _without_padding(found: Sequences, given: Any) -> Sequences:
    """The longest sequences, without their padding. Raises BadMask for a mask of another shape, or without any token."""
    mask = Mask(given, marks_padding=found.marks_padding)
    if mask.shape != tuple(found.ids.shape):
        raise BadMask(
            f"the mask {found.mask!r} has shape {mask.shape}, the tokens {tuple(found.ids.shape)}. Pass one value per "
            "token, 1 for tokens and 0 for padding."
        )
    counts = (given == 0) if found.marks_padding else (given != 0)
    lengths = counts.sum(1)
    rows = lengths == lengths.max()
    n, t = int(rows.sum()), int(lengths.max())
    inputs = {
        key: value.expand_as(counts)[rows][counts[rows]].reshape(n, t)
        if key in found.per_token
        else value[rows]
        if isinstance(value, Tensor) and value.dim() and len(value) == len(rows)
        else value
        for key, value in found.inputs.items()
    }
    return replace(found, inputs=inputs)


def _others(ids: Tensor, avoid: frozenset[int]) -> Tensor:
    """For the last token of each row another one of the batch, shape (N,); where there is none, a neighboring number."""
    last = ids[:, -1]
    known = [token for token in sorted(set(ids.flatten().tolist())) if token not in avoid]
    if len(known) < 2:
        return (last - 1).abs()
    return torch.where(last == known[0], known[1], known[0])


def _wider(value: Tensor, n_left: int, n_right: int, fill: float) -> Tensor:
    left, right = (value.new_full((len(value), n), fill) for n in (n_left, n_right))
    return torch.cat([left, value, right], 1)


def _predicts_next(model: nn.Module, ids: Tensor, target: Any, inputs: Mapping[Key, Any]) -> bool | None:
    """Whether a model predicts next tokens, as far as that is known; see `Sequences.causal`."""
    for one in (target, inputs.get("labels")):
        if isinstance(one, Tensor) and one.shape == ids.shape:
            kept = one != IGNORED
            same = bool((one == ids)[kept].all())
            next_one = bool((one[:, :-1] == ids[:, 1:])[kept[:, :-1]].all())
            if ids.shape[1] > 1 and kept[:, :-1].any() and (next_one or (same and one is not target)):
                return True
            if not (kept.all() or same):
                return False  # tokens that were replaced, and are to be guessed where they stand
    names = names_of_bases(model)
    if any("CausalLM" in name or "LMHead" in name for name in names):
        return True
    said = set(_said_of_attention(model))
    if said:
        return True in said
    both_sides = any(word in name.lower() for name in names for word in ENCODERS)
    return False if both_sides or _never_generates(model) else None


def _never_generates(model: nn.Module) -> bool:
    """Whether a model of transformers says that it is not made to generate."""
    asked = getattr(model, "can_generate", None)
    return callable(asked) and asked() is False


def _said_of_attention(model: nn.Module) -> Iterator[bool]:
    """What modules say of themselves, as those of transformers do."""
    for module in ModuleTree.of(model).modules.values():
        is_causal = getattr(module, "is_causal", None)
        if isinstance(is_causal, bool):
            yield is_causal
