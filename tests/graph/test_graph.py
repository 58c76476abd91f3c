"""Which tensors share memory: regions of a storage against the sets of elements that they hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bnprobe.graph.graph import INPUT, PARTS, Node, Storages, _Region, above, tensors
from bnprobe.graph.operations import PASS


def region(tensor: torch.Tensor) -> _Region:
    return _Region(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())


def elements(tensor: torch.Tensor) -> set[int]:
    """The places in the storage, one by one."""
    steps = (range(n) for n in tensor.shape)
    return {
        int(tensor.storage_offset()) + sum(i * s for i, s in zip(at, tensor.stride(), strict=True))
        for at in itertools.product(*steps)
    }


def views(whole: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pieces of a tensor of shape (4, 6, 5), some of which overlap."""
    return {
        "whole": whole,
        "first rows": whole[:2],
        "last rows": whole[2:],
        "one row": whole[1],
        "first columns": whole[:, :3],
        "last columns": whole[:, 3:],
        "columns from the third": whole[:, 2:],
        "even columns": whole[:, ::2],
        "odd columns": whole[:, 1::2],
        "first depth": whole[..., :2],
        "last depth": whole[..., 2:],
        "depth from the second": whole[..., 1:],
        "a corner": whole[:2, :3, :2],
        "the opposite corner": whole[2:, 3:, 2:],
        "a corner beside": whole[:2, 3:, :2],
        "turned": whole.transpose(0, 1),
        "a single value": whole[3, 5, 4],
        "the value before": whole[3, 5, 3],
    }


VIEWS = views(torch.zeros(4, 6, 5))


@pytest.mark.parametrize(("one", "two"), list(itertools.product(VIEWS, VIEWS)))
def test_regions_that_are_called_apart_share_no_element(one: str, two: str) -> None:
    """Fails if a view is taken for other memory than it stands in: a value that was overwritten would be believed."""
    a, b = VIEWS[one], VIEWS[two]
    share = bool(elements(a) & elements(b))
    assert not (region(a).apart_from(region(b)) and share)
    assert region(a).apart_from(region(b)) == region(b).apart_from(region(a))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("first rows", "last rows"),
        ("first columns", "last columns"),
        ("first depth", "last depth"),
        ("a corner", "the opposite corner"),
        ("a corner", "a corner beside"),
        ("a single value", "the value before"),
        ("one row", "last rows"),
    ],
)
def test_slices_of_one_tensor_are_apart(one: str, two: str) -> None:
    """Fails if writing into one half of a tensor makes the other half unknown."""
    assert not elements(VIEWS[one]) & elements(VIEWS[two])
    assert region(VIEWS[one]).apart_from(region(VIEWS[two]))


@pytest.mark.parametrize("name", VIEWS)
def test_the_extent_of_a_region(name: str) -> None:
    """Fails if the first or last element, or the number of values, is another."""
    held = elements(VIEWS[name])
    assert region(VIEWS[name]).extent == (min(held), max(held) + 1)
    assert region(VIEWS[name]).numel == len(held)


def node(tensor: torch.Tensor) -> Node:
    return Node(INPUT, "", tuple(tensor.shape))


def test_a_view_is_found_behind_what_was_put() -> None:
    """Fails if a view of known values is unknown, or the same tensor is another node each time."""
    memory, whole = Storages(), torch.zeros(4, 6)
    assert memory.find(whole) is None
    made = node(whole)
    memory.put(whole, made)
    assert memory.find(whole) is made
    view = memory.find(whole[1:])
    assert view is not None
    assert (view.part, view.shape, view.inputs) == (PASS, (3, 6), (made,))
    assert memory.find(whole[1:]) is view
    assert memory.find(torch.zeros(4, 6)) is None


def test_what_was_overwritten_is_not_believed() -> None:
    """Fails if a tensor keeps its old values although a piece of its memory was written, or its neighbour loses them."""
    memory, whole = Storages(), torch.zeros(4, 6)
    made = node(whole)
    memory.put(whole, made)
    left, right = memory.find(whole[:, :3]), memory.find(whole[:, 3:])
    written = node(whole[:, :3])
    memory.put(whole[:, :3], written, written=True)
    assert memory.find(whole[:, :3]) is written
    assert memory.find(whole[:, 3:]) is right
    assert left is not written
    mixed = memory.find(whole)
    assert mixed is not None
    assert (mixed.part, mixed.inputs) == (PARTS, (made, written))


def test_views_of_what_was_wholly_overwritten_are_found_anew() -> None:
    """Fails if a view still stands for values that an in-place operation on the whole has replaced."""
    memory, whole = Storages(), torch.zeros(4, 6)
    memory.put(whole, node(whole))
    memory.find(whole[:2])
    written = node(whole)
    memory.put(whole, written, written=True)
    found = memory.find(whole[:2])
    assert found is not None
    assert found.inputs == (written,)


def test_another_view_of_all_that_was_overwritten_is_found_anew() -> None:
    """Fails if a flat view, through which the whole was written, leaves the whole half its old self."""
    memory, whole = Storages(), torch.zeros(4, 6)
    memory.put(whole, node(whole))
    written = node(whole.flatten())
    memory.put(whole.flatten(), written, written=True)
    found = memory.find(whole)
    assert found is not None
    assert (found.part, found.inputs) == (PASS, (written,))


def test_forgetting_parts_the_nodes() -> None:
    """Fails if nodes keep each other, and the parameters in their facts, alive."""
    memory, whole = Storages(), torch.zeros(4, 6)
    first = node(whole)
    first.facts["tensor"] = whole
    second = Node(PASS, "view", (4, 6), (first,))
    memory.put(whole, second)
    memory.forget()
    assert first.consumers == []
    assert first.facts == {}
    assert memory.find(whole) is None


def test_all_that_went_into_some_nodes() -> None:
    """Fails if a source of a source is left out, or something beside it is in."""
    a, beside = Node(INPUT, "", (1,)), Node(INPUT, "", (1,))
    b = Node(PASS, "", (1,), (a,))
    c = Node(PASS, "", (1,), (b, a))
    assert above([c]) == {a, b, c}
    assert beside not in above([c])
    assert a.consumers == [b, c]


def test_tensors_in_containers() -> None:
    """Fails if a tensor in a nested container is not seen, in another order, or a string is taken apart for ever."""
    a, b, c = (torch.full((1,), float(i)) for i in range(3))
    found = list(tensors({"x": [a, (b, "word")], "y": {"z": c}, "n": 3, "none": None}))
    assert [int(t) for t in found] == [0, 1, 2]
    deep: object = a
    for _ in range(6):
        deep = [deep]
    assert list(tensors(deep)) == [a]
    assert list(tensors([deep])) == []


def test_random_strided_views_are_judged_without_error() -> None:
    """Fails if a pair of strided slices is called apart although one element is in both: 400 random pairs."""
    rng = np.random.default_rng(5)
    whole = torch.zeros(6, 6, 6)

    def piece() -> torch.Tensor:
        view = whole
        for d in range(3):
            start, step = int(rng.integers(0, 5)), int(rng.integers(1, 4))
            view = view[tuple([slice(None)] * d + [slice(start, int(rng.integers(start + 1, 7)), step)])]
        return view

    for _ in range(400):
        a, b = piece(), piece()
        if region(a).apart_from(region(b)):
            assert not elements(a) & elements(b), (a.shape, a.stride(), b.shape, b.stride())


def test_a_view_of_a_whole_that_overlaps_a_smaller_piece_is_of_the_whole() -> None:
    """Fails if a piece that is known by itself, and does not hold the view, is counted among what the view is made of."""
    memory, whole = Storages(), torch.zeros(4, 6)
    made = node(whole)
    memory.put(whole, made)
    memory.put(whole[:1], node(whole[:1]))
    found = memory.find(whole[:2])
    assert found is not None
    assert (found.part, found.inputs) == (PASS, (made,))


def test_another_shape_of_the_whole_is_the_whole_whatever_pieces_are_known() -> None:
    """Fails if a piece that is known by itself is counted beside a whole that is just as large as the view."""
    memory, whole = Storages(), torch.zeros(4, 6)
    made = node(whole)
    memory.put(whole, made)
    memory.put(whole[:1], node(whole[:1]))
    found = memory.find(whole.flatten())
    assert found is not None
    assert (found.part, found.inputs) == (PASS, (made,))


def test_a_write_takes_what_it_covers_and_mixes_what_it_meets() -> None:
    """Fails if a piece that was written over is still known, or a larger one is taken for what was written into it."""
    memory, whole = Storages(), torch.zeros(4, 6)
    memory.put(whole, node(whole))
    inner, larger = node(whole[1]), node(whole[:3])
    memory.put(whole[1], inner)
    memory.put(whole[:3], larger)
    written = node(whole[1:3])
    memory.put(whole[1:3], written, written=True)
    found = {
        name: memory.find(view)
        for name, view in (("row", whole[1]), ("larger", whole[:3]), ("last", whole[3]))
    }
    assert found["row"].inputs == (written,)
    assert (found["larger"].part, found["larger"].inputs) == (PARTS, (larger, written))
    assert written not in found["last"].inputs
