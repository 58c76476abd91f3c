"""Where a dimension of a view's output stood in its input: against torch itself, by values that name their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bnprobe.graph.graph import INPUT, Node
from bnprobe.graph.operations import PASS
from bnprobe.graph.producer import _same_place, dim_before, label

SHAPE = (2, 3, 5, 7)


def truth(view: Callable[[Tensor], Tensor], shape: tuple[int, ...], dim: int) -> int | None:
    """The dimension of the input whose index alone, and always, is what changes along `dim`; None where there is none."""
    found = []
    for d, n in enumerate(shape):
        index = torch.arange(n).view(*[n if i == d else 1 for i in range(len(shape))]).expand(shape)
        along = view(index.clone()).movedim(dim, 0).flatten(1)
        # -1 is what a padding puts around
        if along.shape[0] == n and bool(((along == torch.arange(n)[:, None]) | (along == -1)).all()):
            found.append(d)
    return found[0] if found else None


def answer(
    name: str, args: tuple[Any, ...], out: Tensor, shape: tuple[int, ...], dim: int | None
) -> int | None:
    below = Node(INPUT, "", shape)
    return dim_before(Node(PASS, name, tuple(out.shape), (below,), facts={"args": (None, *args)}), dim)


VIEWS: dict[str, tuple[str, tuple[Any, ...], Callable[[Tensor], Tensor]]] = {
    "transpose": ("transpose", (1, 3), lambda x: x.transpose(1, 3)),
    "transpose from behind": ("transpose", (-1, 0), lambda x: x.transpose(-1, 0)),
    "swapaxes": ("swapaxes", (0, 2), lambda x: x.swapaxes(0, 2)),
    "mT": ("mT", (), lambda x: x.mT),
    "permute": ("permute", ((2, 0, 3, 1),), lambda x: x.permute(2, 0, 3, 1)),
    "permute from behind": ("permute", ((-1, 0, -2, 1),), lambda x: x.permute(-1, 0, -2, 1)),
    "select first": ("select", (0, 1), lambda x: x.select(0, 1)),
    "select second": ("select", (1, 2), lambda x: x.select(1, 2)),
    "select last": ("select", (-1, 0), lambda x: x.select(-1, 0)),
    "unbind": ("unbind", (), lambda x: x.unbind()[1]),
    "unbind second": ("unbind", (1,), lambda x: x.unbind(1)[2]),
    "unbind last": ("unbind", (-1,), lambda x: x.unbind(-1)[0]),
    "flatten positions": ("view", ((2, 3, 35),), lambda x: x.flatten(2)),
    "flatten all but the last": ("view", ((30, 7),), lambda x: x.flatten(0, 2)),
    "unsqueeze": ("unsqueeze", (1,), lambda x: x.unsqueeze(1)),
    "slice": ("slice", (3, 1, 4), lambda x: x[..., 1:4]),
    "pad": ("constant_pad_nd", ((1, 2),), lambda x: torch.nn.functional.pad(x, (1, 2), value=-1)),
    "clone": ("clone", (), lambda x: x.clone()),
}


@pytest.mark.parametrize("name", VIEWS)
def test_every_dimension_of_a_view(name: str) -> None:
    """Fails if a channel is looked for in the wrong place, or found although it was taken apart."""
    called, args, view = VIEWS[name]
    out = view(torch.zeros(SHAPE, dtype=torch.long))
    for dim in range(out.dim()):
        expected = truth(view, SHAPE, dim)
        found = answer(called, args, out, SHAPE, dim)
        if found is None or expected is None:
            # where another number of entries is left, whoever asks compares it; joined dimensions are None
            changed = found is None or out.shape[dim] != SHAPE[found] or out.shape[dim] == 1
            assert expected is None, (dim, found, expected)
            assert changed, (dim, found, expected)
        else:
            assert found == expected, (dim, found, expected)


@pytest.mark.parametrize(("dims", "expected"), [((1,), [0, None, 2, 3]), ((0, -1), [None, 1, 2, None])])
@pytest.mark.parametrize("name", ["roll", "flip"])
def test_dimensions_that_were_rolled_or_flipped(
    name: str, dims: tuple[int, ...], expected: list[int | None]
) -> None:
    """Fails if channels in another order are taken for those of the norm, or the other dimensions are lost."""
    args = ((1,) * len(dims), dims) if name == "roll" else (dims,)
    out = torch.zeros(SHAPE)
    assert [answer(name, args, out, SHAPE, dim) for dim in range(4)] == expected


def test_a_roll_along_one_number() -> None:
    """Fails if a dimension that is given as a number, not as a list, is overlooked."""
    assert answer("roll", (1, 2), torch.zeros(SHAPE), SHAPE, 2) is None
    assert answer("roll", (1, 2), torch.zeros(SHAPE), SHAPE, 1) == 1


@pytest.mark.parametrize("name", ["movedim", "channel_shuffle", "unfold", "pixel_shuffle", "as_strided"])
def test_what_is_not_followed(name: str) -> None:
    """Fails if values that change their order are followed as if they had kept it."""
    out = torch.zeros(2, 12, 5, 7) if name in ("pixel_shuffle", "as_strided") else torch.zeros(SHAPE)
    assert answer(name, (1, 0), out, SHAPE, 1) is None


def test_without_a_dimension_or_an_input_there_is_no_answer() -> None:
    """Fails if "not known" becomes known by a view."""
    assert answer("clone", (), torch.zeros(SHAPE), SHAPE, None) is None
    assert dim_before(Node(PASS, "clone", SHAPE), 1) is None


@pytest.mark.parametrize(
    ("below", "shape", "dim", "expected"),
    [
        ((2, 3, 35), (2, 3, 5, 7), 1, 1),
        ((6, 35), (2, 3, 5, 7), 1, None),
        ((6, 5, 7), (2, 3, 5, 7), 2, 1),
        ((2, 3, 5, 7), (6, 35), 0, None),
        ((3, 2, 5), (3, 10), 0, 0),
        ((4, 4, 9), (4, 4, 3, 3), 0, 0),
        ((4, 4, 9), (4, 4, 3, 3), 1, 1),
    ],
)
def test_the_same_place_in_another_shape(
    below: tuple[int, ...], shape: tuple[int, ...], dim: int, expected: int | None
) -> None:
    """Fails if a dimension of the same size but elsewhere is taken for it: behind it must be as many values."""
    assert _same_place(below, shape, dim) == expected


def test_a_site_in_words() -> None:
    """Fails if the first call is numbered, or the second is called the third."""
    assert label(("bn", 0)) == "bn"
    assert label(("bn", 1)) == "bn (call 2)"
