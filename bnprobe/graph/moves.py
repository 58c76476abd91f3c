"""Operations that put tokens in another order, and where they put them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

Sizes = tuple[int, int]
"""Sequences and tokens of each, (N, T)."""


def given(tokens: Sizes) -> Tensor:
    """The number of each token in the order in which the model is given them, (N, T)."""
    return torch.arange(tokens[0] * tokens[1]).reshape(tokens)


def order_after(
    func: Any, name: str, args: Sequence[Any], kwargs: Any, out: Any, tokens: Sizes
) -> Tensor | None:
    """Which token stands at each place after an operation that moves tokens, (N, T), by its number before; else None."""
    move = MOVES.get(name)
    if move is None or kwargs or not isinstance(out, Tensor) or out.shape != args[0].shape:
        return None
    numbers = given(tokens)
    for there, back in LAYOUTS:
        laid = there(numbers)
        if args[0].shape[: laid.dim()] == laid.shape:
            with suppress(Exception):  # other dimensions are moved than those of tokens
                moved = move(func, laid, args)
                return back(moved, tokens) if moved.shape == laid.shape else None
    return None


LAYOUTS: tuple[tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Sizes], Tensor]], ...] = (
    (lambda numbers: numbers, lambda moved, _: moved),
    (lambda numbers: numbers.T, lambda moved, _: moved.T),
    (lambda numbers: numbers.reshape(-1), lambda moved, tokens: moved.reshape(tokens)),
)
"""How tokens lie in a tensor (N, T, ...), (T, N, ...) or (N * T, ...)."""


def _along(func: Any, numbers: Tensor, args: Sequence[Any]) -> Tensor:
    """Of an operation along one dimension, by an index that may have the dimensions of channels, too."""
    x, dim, index = args[:3]
    dim = dim % x.dim()
    if index.dim() > numbers.dim():  # it has channels, too
        index = index[(slice(None),) * numbers.dim() + (0,) * (index.dim() - numbers.dim())]
    moved: Tensor = func(numbers, dim, index.to("cpu"))
    return moved


def _by_index(func: Any, numbers: Tensor, args: Sequence[Any]) -> Tensor:
    moved: Tensor = func(numbers, [None if one is None else one.to("cpu") for one in args[1]])
    return moved


def _turned(func: Any, numbers: Tensor, args: Sequence[Any]) -> Tensor:
    moved: Tensor = func(numbers, [dim % args[0].dim() for dim in args[1]])
    return moved


def _rolled(func: Any, numbers: Tensor, args: Sequence[Any]) -> Tensor:
    moved: Tensor = func(numbers, args[1], [dim % args[0].dim() for dim in args[2]])
    return moved


MOVES: dict[str, Callable[[Any, Tensor, Sequence[Any]], Tensor]] = {
    "index": _by_index,
    "index_select": _along,
    "gather": _along,
    "flip": _turned,
    "roll": _rolled,
}
"""Operations that move tokens, by their names."""
