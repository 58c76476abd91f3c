"""What two outputs differ by, and what decides in an output: every number by numpy, every shape by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bnprobe.errors import BnprobeError
from bnprobe.experiments.outputs import (
    NoComparison,
    change,
    class_axis,
    correct,
    deciding,
    holds_nan,
    n_classes,
    per_sample,
    rest_loss,
    scores,
    token_loss,
    token_losses,
)

A = torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [0.5, 0.25, 4.0]])
B = torch.tensor([[1.0, 0.0, 2.5], [0.0, 3.0, 1.5], [0.5, 0.25, 3.0]])


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def kl(a: Tensor, b: Tensor, axis: int) -> np.ndarray:
    p, q = softmax(a.double().numpy(), axis), softmax(b.double().numpy(), axis)
    return (p * np.log(p / q)).sum(axis)


def test_a_change_of_scores_by_numpy() -> None:
    """Fails if the divergence is the other way round, a norm is another, or a largest change has a sign."""
    found = change(A, B)
    a, d = A.double().numpy(), (B - A).double().numpy()
    assert found.agreement.tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.kl, kl(A, B, 1), rtol=1e-5)
    np.testing.assert_allclose(found.relative, np.sqrt((d**2).sum(1)) / np.sqrt((a**2).sum(1)), rtol=1e-6)
    np.testing.assert_allclose(found.largest, [2.5, 0.5, 1.0])


@pytest.mark.parametrize(
    ("shape", "target", "axis"),
    [
        ((2, 4, 3), None, 2),
        ((2, 4, 3), (2, 3), 1),
        ((2, 4, 3), (2, 4), 2),
        ((2, 4, 4), (2, 4), 1),  # either would do: that of images
        ((2, 4, 3), (2,), 2),
        ((2, 4, 3), (2, 5), 2),
        ((2, 5, 3, 4), None, 1),
        ((2, 5, 3, 4), (2, 3, 4), 1),
        ((2, 5, 3, 4), (2, 5, 3), 3),
        ((2, 4), None, 1),
        ((2, 2), None, 1),
        ((2, 1), None, None),
        ((2, 1, 3), None, 2),
        ((4,), None, None),
        ((2, 2, 2, 2, 2), None, None),
    ],
)
def test_where_the_classes_are(
    shape: tuple[int, ...], target: tuple[int, ...] | None, axis: int | None
) -> None:
    """Fails if a target does not settle it, or one that fits nowhere does."""
    of = None if target is None else torch.zeros(target, dtype=torch.long)
    assert class_axis(torch.zeros(shape), of) == axis
    if target is None:
        assert n_classes(torch.zeros(shape)) == (None if axis is None else shape[axis])


@pytest.mark.parametrize(("target", "axis"), [(None, 2), ((2, 5), 1)])
def test_positions_are_averaged(target: tuple[int, ...] | None, axis: int) -> None:
    """Fails if positions are summed, or the largest score is looked for along the wrong dimension."""
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.normal(size=(2, 4, 5))) for _ in range(2))
    found = change(a, b, None if target is None else torch.zeros(target, dtype=torch.long))
    np.testing.assert_allclose(found.kl, kl(a, b, axis).mean(1), rtol=1e-9)
    same = a.numpy().argmax(axis) == b.numpy().argmax(axis)
    np.testing.assert_allclose(found.agreement, same.mean(1))


def test_outputs_that_decide_nothing_have_sizes_alone() -> None:
    """Fails if one number per sample is a decision, or has no size of its own: |1.5 - 1| / 1 and |-2 - 4| / 4."""
    for shape in ((2,), (2, 1)):
        found = change(torch.tensor([1.0, 4.0]).reshape(shape), torch.tensor([1.5, -2.0]).reshape(shape))
        assert np.isnan([found.agreement, found.kl]).all()
        np.testing.assert_allclose(found.relative, [0.5, 1.5])
        np.testing.assert_allclose(found.largest, [0.5, 6.0])


def test_an_output_of_nothing_is_infinitely_far_but_for_itself() -> None:
    """Fails if zero by zero is not a number, or the size of zeros is taken for another one."""
    nothing = torch.zeros(2, 3)
    assert change(nothing, nothing).relative.tolist() == [0, 0]
    assert (change(nothing, nothing + 1e-3).relative > 1e30).all()
    assert (change(A, A).kl >= 0).all()


def test_samples_with_nan_are_found_and_banned_classes_are_not_among_them() -> None:
    nan, inf = float("nan"), float("inf")
    output = torch.tensor([[0.0, nan, 1.0], [0.0, -inf, 1.0], [inf, 0.0, 1.0], [nan, nan, nan]])
    assert holds_nan({"logits": output}).tolist() == [True, False, False, True]
    assert holds_nan(output[:, 1]).tolist() == [True, False, False, True]
    assert holds_nan(output[:, None, :, None]).tolist() == [True, False, False, True]


def test_wide_numbers_keep_their_digits() -> None:
    """Fails if float64 is made float32, or half precision is reduced in itself."""
    a = A.double()
    np.testing.assert_allclose(change(a, a + 1e-12).largest, 1e-12, rtol=1e-2)
    half = torch.full((1, 3000), 8.0, dtype=torch.float16)
    np.testing.assert_allclose(change(half, half * 1.25).relative, 0.25, rtol=1e-5)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (A, A[:2]),
        (A, A[:, :2]),
        (A, "text"),
        ("text", A),
        (torch.tensor(1.0), torch.tensor(2.0)),
        (A.long(), A.long()),
    ],
)
def test_outputs_that_cannot_be_compared(before: Any, after: Any) -> None:
    """Fails if another shape, a single number, or no numbers at all are compared."""
    with pytest.raises(NoComparison, match="cannot be compared"):
        change(before, after)


class Named:
    """An output of a class of its own."""

    def __init__(self, logits: Any) -> None:
        self.logits = logits


@pytest.mark.parametrize(
    ("output", "is_found"),
    [
        (A, True),
        ((A, B), True),
        ([A.long(), A], False),
        ({"out": A, "aux": B}, True),
        ({"aux": B, "logits": A, "out": B}, True),
        ({"logits": "no tensor", "out": A}, True),
        ({"aux": A, "more": B}, True),
        (Named(A), True),
        (Named("no tensor"), False),
        ({}, False),
        (None, False),
        (A.long(), False),
    ],
)
def test_the_tensor_that_decides(output: Any, is_found: bool) -> None:
    """Fails if logits are not preferred to other outputs, a name without a tensor hides one, or whole numbers decide."""
    found = deciding(output)
    assert (found is A) if is_found else found is None
    assert (scores(output) is None) is not is_found


def test_scores_have_no_history() -> None:
    """Fails if a graph of gradients is held, or what gradients need is cut off."""
    a = A.clone().requires_grad_()
    assert not scores(a).requires_grad
    assert deciding(a).requires_grad


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (torch.tensor([1, 1, 0]), [1, 1, 0]),
        (torch.tensor([1, 0, 2]), [1, 0, 1]),
        (torch.tensor([1, -100, 0]), [1, np.nan, 0]),
        (torch.tensor([1.0, 1.0, 0.0]), None),
        (torch.tensor([True, True, False]), None),
        (torch.tensor([[1], [1], [0]]), None),
        (torch.tensor([1, 1]), None),
        ([1, 1, 0], None),
        (None, None),
    ],
)
def test_who_is_right(target: Any, expected: list[float] | None) -> None:
    """Fails if class 0 is none, an ignored target counts as wrong, or what are no classes are compared."""
    with np.errstate(invalid="ignore"):
        found = correct(A, target)
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(found, expected)


def test_who_is_right_by_position() -> None:
    """Fails if positions that do not count are wrong, or in the divisor: two of three, then one of one."""
    output = torch.eye(3)[torch.tensor([[0, 1, 2, 0], [2, 2, 2, 2]])]
    target = torch.tensor([[0, 1, 0, -100], [-100, -100, 2, -1]])
    np.testing.assert_allclose(correct(output, target), [2 / 3, 1])
    np.testing.assert_allclose(correct(output.movedim(-1, 1), target), [2 / 3, 1])
    assert correct("text", target) is None
    assert correct(torch.zeros(2, 1), target[:, 0]) is None


def test_losses_of_tokens_by_numpy() -> None:
    """Fails if a target of 0 is ignored, an ignored one counts, or the first that counts is not the one left out."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=(3, 4, 5))
    target = np.array([[-100, 0, 4, 2], [1, 1, -1, 3], [-100, -100, 0, -100]])
    logs = np.log(softmax(a, 2))
    expected = np.where(
        target >= 0, -np.take_along_axis(logs, np.maximum(target, 0)[..., None], 2)[..., 0], np.nan
    )
    for output in (torch.from_numpy(a), torch.from_numpy(a).movedim(2, 1)):
        np.testing.assert_allclose(token_losses(output, torch.from_numpy(target)), expected, rtol=1e-9)
    given = torch.from_numpy(a), torch.from_numpy(target)
    np.testing.assert_allclose(token_loss(*given), np.nanmean(expected, axis=1), rtol=1e-9)
    rest = [expected[0, 2:].mean(), expected[1, [1, 3]].mean(), np.nan]
    np.testing.assert_allclose(rest_loss(*given), rest, rtol=1e-9)
    classes = token_losses(A, torch.tensor([2, 0, 1]))
    np.testing.assert_allclose(classes[:, 0], -np.log(softmax(A.numpy(), 1))[[0, 1, 2], [2, 0, 1]], rtol=1e-5)


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (A, torch.zeros(3)),
        (A, torch.zeros(3, dtype=torch.bool)),
        (A, torch.zeros(2, dtype=torch.long)),
        (A, None),
        ("text", torch.zeros(3, dtype=torch.long)),
        (A[:, :1], torch.zeros(3, dtype=torch.long)),
    ],
)
def test_a_loss_needs_classes(output: Any, target: Any) -> None:
    """Fails if numbers, truths or targets of another shape are taken for classes."""
    with pytest.raises(NoComparison, match="a loss needs outputs"):
        token_losses(output, target)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.0, 2.0], r"shape \(3,\), got shape \(2,\)"),
        (np.ones((3, 1)), r"got shape \(3, 1\)"),
        (torch.tensor(2.0), "got one Tensor"),
        (0.5, "got one float"),
        ("text", "got one str"),
        ([1.0, np.nan, np.inf], "returned nan for sample 1"),
        ([1.0, 2.0, np.inf], "returned inf for sample 2"),
    ],
)
def test_a_metric_gives_a_finite_number_per_sample(values: Any, says: str) -> None:
    """Fails if a mean, a column, or a number that is not finite is taken, or another sample is named."""
    with pytest.raises(BnprobeError, match=says):
        per_sample(lambda output, target: values, A, None)


def test_what_a_metric_may_give() -> None:
    """Fails if a tensor with a history or whole numbers are refused, or a metric without a number of samples is."""
    given = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    assert per_sample(lambda output, target: given, A, None).tolist() == [1, 2, 4]
    assert per_sample(lambda output, target: [1, 2], SimpleNamespace(), None).tolist() == [1, 2]
    assert per_sample(lambda output, target: [1, 2], torch.tensor(1.0), None).tolist() == [1, 2]
    with pytest.raises(BnprobeError, match=r"failed on a batch \(ValueError: no target\)"):
        per_sample(_failing, A, None)


def _failing(output: Any, target: Any) -> Any:
    raise ValueError("no   target")
