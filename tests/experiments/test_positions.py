"""Places of tokens, padding, and what each token should predict: shapes and masks by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bnprobe.experiments.positions import Positions, _ids, next_tokens

IDS = torch.tensor([[5, 6, 7, 8], [9, 5, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
LEFT = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])


def of(batch: Any, *shape: int) -> Any:
    """Places of a norm's rows, whose input has these samples and positions."""
    positions = Positions()
    positions.see(batch)
    layer: Any = SimpleNamespace(places=lambda x: shape)
    found = positions.of(layer, torch.zeros(1))
    return None if found is None else found.tolist()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 3), [[0, 1, 2]] * 2),
        ((2, 1, 3), [[0, 1, 2]] * 2),
        ((2, 3, 1), [[0, 1, 2]] * 2),
        ((2, 2), [[0, 1]] * 2),
        ((2, 3, 2), None),
        ((2, 1, 1), None),
        ((2,), None),
    ],
)
def test_without_tokens_the_only_dimension_holds_positions(shape: tuple[int, ...], expected: Any) -> None:
    """Fails if rows and columns of an image are positions, or a single one is."""
    assert of(torch.zeros(2, 3), *shape) == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 4), [[0, 1, 2, 3]] * 2),
        ((8,), [[0], [1], [2], [3]] * 2),
        ((8, 1), [[0], [1], [2], [3]] * 2),
        ((2, 4, 3), [[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]] * 2),
        ((2, 3, 4), [[0, 1, 2, 3] * 3] * 2),
        ((2, 4, 4), None),
        ((2, 3), None),
        ((2, 5), None),
        ((7,), None),
        # a part of the batch, whose sequences all begin alike
        ((1, 4), [[0, 1, 2, 3]]),
        ((6, 4), [[0, 1, 2, 3]] * 6),
        ((8, 4), [[0, 1, 2, 3]] * 8),
    ],
)
def test_places_of_tokens_in_what_a_norm_is_given(shape: tuple[int, ...], expected: Any) -> None:
    """Fails if heads are positions, rows of all sequences are not told apart, or a dimension is chosen by chance."""
    assert of({"input_ids": IDS}, *shape) == expected
    assert of((IDS, torch.zeros(2)), *shape) == expected


def test_a_batch_of_one_sequence_may_be_shown_several_times() -> None:
    """Fails if places are only known of as many samples as there are sequences, or need two."""
    assert of({"input_ids": IDS[:1]}, 3, 4) == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize(
    ("mask", "expected"),
    [(MASK, [[0, 1, 2, 3], [0, 1, -1, -1]]), (LEFT, [[-1, -1, 0, 1], [-1, 0, 1, 2]]), (2 * MASK, None)],
)
def test_padding_has_no_place(mask: torch.Tensor, expected: Any) -> None:
    """Fails if padding on the left counts as positions, a place is one too large, or a mask must hold ones."""
    expected = expected or [[0, 1, 2, 3], [0, 1, -1, -1]]
    batch = {"input_ids": IDS, "attention_mask": mask}
    assert of(batch, 2, 4) == expected
    assert of(batch, 1, 4) is None  # whose sequence it is, is not known
    assert of({"input_ids": IDS, "attention_mask": mask[:, :3]}, 2, 4) == [[0, 1, 2, 3]] * 2


def test_another_batch_is_at_hand() -> None:
    """Fails if the places of the batch before remain."""
    positions = Positions()
    positions.see({"input_ids": IDS})
    positions.see(torch.zeros(2, 3))
    layer: Any = SimpleNamespace(places=lambda x: (2, 4, 3))
    assert positions.of(layer, torch.zeros(1)) is None


@pytest.mark.parametrize(
    ("x", "is_ids"),
    [
        (IDS, True),
        ({"input_ids": IDS}, True),
        ((IDS, MASK), True),
        ({"ids": IDS}, False),
        ((), False),
        (IDS.float(), False),
        (IDS > 5, False),
        (IDS[0], False),
        (IDS[None], False),
        (IDS[:, :0], False),
        ("text", False),
    ],
)
def test_what_tokens_are(x: Any, is_ids: bool) -> None:
    """Fails if images, masks or nothing are tokens."""
    assert (_ids(x) is IDS) if is_ids else _ids(x) is None


LABELS = torch.tensor([[1, 2, 3, -100], [4, -100, 0, 0]])


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ({"input_ids": IDS}, [[6, 7, 8, -7], [5, 0, 0, -7]]),
        ({"input_ids": IDS, "labels": LABELS}, [[2, 3, -100, -7], [-100, 0, 0, -7]]),
        ({"input_ids": IDS, "labels": LABELS[:1]}, [[6, 7, 8, -7], [5, 0, 0, -7]]),
        ({"input_ids": IDS, "labels": [1, 2]}, [[6, 7, 8, -7], [5, 0, 0, -7]]),
        ({"input_ids": IDS, "attention_mask": MASK}, [[6, 7, 8, -7], [5, -7, -7, -7]]),
        ({"input_ids": IDS, "attention_mask": LEFT}, [[-7, -7, 8, -7], [-7, 0, 0, -7]]),
        (IDS, [[6, 7, 8, -7], [5, 0, 0, -7]]),
        (torch.zeros(2, 3), None),
    ],
)
def test_each_token_predicts_the_next(x: Any, expected: Any) -> None:
    """Fails if a token predicts itself, padding predicts or is predicted, or labels come second."""
    found = next_tokens((x, None) if isinstance(x, dict) else x, -7)
    assert (None if found is None else found.tolist()) == expected
