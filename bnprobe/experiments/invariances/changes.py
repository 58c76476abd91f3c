"""The pairs of batches that each probe runs: their outputs must be equal where `outputs` looks.

N samples, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bnprobe.errors import BnprobeError
from bnprobe.experiments.invariances.alignment import Align, earlier, first_samples, unfolded, without_padding
from bnprobe.experiments.invariances.sequences import (
    POSITIONS,
    Sequences,
    decoder_stream,
    inputs_of,
)
from bnprobe.probe.batches import parts

CAUSALITY, PADDING, BATCH = "causality", "padding", "batch"
PROBES = (CAUSALITY, PADDING, BATCH)

PADS = 4
"""Of so many positions one is padding."""

Outputs = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class NotTried(BnprobeError):
    """Why a probe says nothing of a batch, as the end of a sentence."""


@dataclass(frozen=True)
class Pair:
    """Two batches, and which parts of their outputs, and of all tensors inside the model, must be equal."""

    first: Any
    second: Any
    outputs: Outputs
    inside: Align
    n_samples: int
    same_shape: bool = False
    words: str = ""
    """Where the second batch has its padding."""
    largest_token: int = -1
    instead: bool = False
    """Whether it is only run where the model fails on the pair before."""
    shifts: bool = False
    """Whether tokens stand at other positions in the second batch, and the model is not told which they had."""


def causality(found: Sequences, model: nn.Module) -> Iterator[Pair]:
    """The last token changed."""
    stream = decoder_stream(found)
    n, t = stream.ids.shape
    if t < 2:
        raise NotTried("sequences have one token, so there is no earlier one")
    changed = stream.with_last_changed(frozenset(_special(model)))

    def outputs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        one, other = (_by_token(output, n, t) for output in (a, b))
        if one is None or other is None:
            raise NotTried(f"the output, of shape {tuple(a.shape)}, has no row per token")
        return one[:, : t - 1], other[:, : t - 1]

    yield Pair(
        stream.rebuilt(stream.inputs),
        changed.rebuilt(changed.inputs),
        outputs,
        earlier(n, t),
        n,
        same_shape=True,
        largest_token=int(stream.ids.max()),
    )


def padding(found: Sequences, model: nn.Module) -> Iterator[Pair]:
    """Padding after the tokens, and before them where the model takes a mask."""
    if found.mask is None and found.causal is False:
        raise NotTried("the model takes no mask, and without one every token sees padding")
    t = found.ids.shape[1]
    n_pads = max(1, t // PADS)
    if found.one_stream:  # no position beyond those that the model was given
        t -= n_pads
        if t < 1:
            raise NotTried("sequences have one token, so none can be left out for padding")
        found = found.cut(t)
    pad = _pad(model)
    yield _padded(found, 0, n_pads, pad)
    if found.mask is not None:
        placed = found.with_positions()
        yield _padded(placed, n_pads, 0, pad, shifts=POSITIONS not in placed.inputs)


def _padded(found: Sequences, n_left: int, n_right: int, pad: int, shifts: bool = False) -> Pair:
    n, t = found.ids.shape
    wide = t + n_left + n_right

    def outputs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        one, other = _by_token(a, n, t), _by_token(b, n, wide)
        if one is not None and other is not None:
            return one, other[:, n_left : n_left + t]
        if a.shape == b.shape and a.dim() and len(a) == n:
            return a, b
        raise NotTried(f"the output, of shape {tuple(a.shape)}, has no row per token or sequence")

    return Pair(
        found.rebuilt(found.inputs),
        found.rebuilt(found.padded(n_left, n_right, pad)),
        outputs,
        without_padding(n, t, wide, n_left),
        n,
        words="before the tokens" if n_left else "after the tokens",
        shifts=shifts,
    )


def batch(given: Any) -> Iterator[Pair]:
    """The first sample alone, and beside the others; where a model refuses one sample, two of them."""
    inputs = inputs_of(given)
    first = next((leaf for value in inputs.values() for leaf in _leaves(value)), None)
    n = 0 if first is None else len(first)
    if n < 2:
        raise NotTried("batches hold one sample, which has no others beside it")
    odd = [key for key, value in inputs.items() if any(len(leaf) not in (1, n) for leaf in _leaves(value))]
    if odd:
        names = ", ".join("the input" if key is None else str(key) for key in odd)
        raise NotTried(f"{names} has no row per sample, so samples cannot be taken apart")

    for few in (1, 2) if n > 2 else (1,):

        def outputs(a: Tensor, b: Tensor, few: int = few) -> tuple[Tensor, Tensor]:
            if not a.dim() or len(a) != few or len(b) != n:
                raise NotTried(
                    f"the output, of shape {tuple(b.shape)} for {n:,} samples, has no row per sample"
                )
            if a.shape[1:] != b.shape[1:]:
                raise NotTried(
                    f"the output has shape {tuple(b.shape)} for {n:,} samples and {tuple(a.shape)} for {few:,}, as where "
                    "each sample is compared with the others"
                )
            return a, b[:few]

        yield Pair(_rows(given, inputs, n, few), given, outputs, first_samples(few, n), few, instead=few > 1)


def _rows(given: Any, inputs: Mapping[Any, Any], n: int, few: int) -> Any:
    """The first samples of a batch, with their targets."""
    x = parts(given)[0]
    taken = {key: _first(value, n, few) for key, value in inputs.items()}
    new: Any = (
        taken if isinstance(x, Mapping) else tuple(taken.values()) if isinstance(x, tuple) else taken[None]
    )
    if isinstance(given, tuple | list) and len(given) in (1, 2):
        return (new, *(_first(target, n, few) for target in given[1:]))
    return new


def _first(value: Any, n: int, few: int) -> Any:
    """The first rows of all that has a row per sample, in whatever it lies."""
    if isinstance(value, Mapping):
        return {key: _first(item, n, few) for key, item in value.items()}
    if isinstance(value, tuple):
        items = (_first(item, n, few) for item in value)
        return type(value)._make(items) if hasattr(value, "_make") else tuple(items)
    return value[:few] if _has_rows(value) and len(value) == n else value


def _leaves(value: Any) -> Iterator[Any]:
    """What may have a row per sample, in dicts and tuples as well."""
    if isinstance(value, Mapping | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item)
    elif _has_rows(value):
        yield value


def _has_rows(value: Any) -> bool:
    return (isinstance(value, Tensor) and value.dim() > 0) or isinstance(value, list)


def _by_token(output: Tensor, n: int, t: int) -> Tensor | None:
    """The output with samples and positions first, shape (N, T, ...); None where it has no row per token."""
    if output.dim() >= 2 and tuple(output.shape[:2]) == (n, t):
        return output
    if output.dim() == 3 and (len(output), output.shape[2]) == (n, t):
        return output.transpose(1, 2)
    return unfolded(output, 0, n, t) if output.dim() == 2 and len(output) == n * t else None


def _pad(model: nn.Module) -> int:
    """The token that a model is padded with, by its configuration; else 0."""
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    return pad if isinstance(pad, int) and pad >= 0 else 0


def _special(model: nn.Module) -> Iterator[int]:
    """Tokens that stand for something, such as images, by the names of a configuration."""
    config = getattr(model, "config", None)
    for name, value in vars(config).items() if config is not None and hasattr(config, "__dict__") else ():
        if name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            yield value
