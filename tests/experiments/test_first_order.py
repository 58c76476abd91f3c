"""The parts of a first-order estimate: changes of the output, losses, and which rows belong to a sample."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import bnprobe
from bnprobe.errors import BnprobeError
from bnprobe.experiments.first_order import Estimates, _gradients, _loss, affine_change, per_sample, pieces
from bnprobe.experiments.held_vectors import held_norms
from bnprobe.experiments.replacements import variants

OLD = {
    "mean": np.array([0.5, -2.0, 1.0]),
    "var": np.array([4.0, 0.25, 1.0]),
    "weight": np.array([2.0, -0.5, 1.5]),
    "bias": np.array([0.1, 0.2, -0.3]),
}
EPS = 0.1
X = np.array([[1.0, -1.0, 3.0], [0.0, 2.0, -2.0]])


def output(held: dict[str, np.ndarray]) -> np.ndarray:
    return held["weight"] * (X - held["mean"]) / np.sqrt(held["var"] + EPS) + held["bias"]


@pytest.mark.parametrize("vector", ["mean", "var", "weight", "bias"])
def test_the_change_of_an_output_is_that_of_the_norm(vector: str) -> None:
    """Fails if a sign, a deviation or gamma is wrong: a x̂ + b against the norm with one vector replaced."""
    norm: Any = SimpleNamespace(values=OLD, layer=SimpleNamespace(eps=EPS))
    new = {**OLD, vector: np.array([1.5, 0.75, 2.5])}
    a, b = affine_change(norm, vector, new[vector])
    normalized = (X - OLD["mean"]) / np.sqrt(OLD["var"] + EPS)
    np.testing.assert_allclose(a * normalized + b, output(new) - output(OLD), rtol=1e-9)


def test_a_norm_without_gamma_or_beta_has_one_and_zero() -> None:
    """Fails if a vector that is missing counts as anything but what it does nothing as."""
    bare: Any = SimpleNamespace(
        values={"mean": OLD["mean"], "var": OLD["var"]}, layer=SimpleNamespace(eps=EPS)
    )
    a, b = affine_change(bare, "mean", OLD["mean"] + 1)
    np.testing.assert_allclose(a, 0)
    np.testing.assert_allclose(b, -1 / np.sqrt(OLD["var"] + EPS))
    for vector, expected in (("weight", (2.0, 0.0)), ("bias", (0.0, 3.0))):
        a, b = affine_change(bare, vector, np.full(3, 3.0))
        np.testing.assert_allclose([a, b], [[expected[0]] * 3, [expected[1]] * 3])


def test_a_norm_that_divides_by_nothing_changes_by_nothing() -> None:
    """Fails if an infinite change spoils the estimate of a layer."""
    norm: Any = SimpleNamespace(values={**OLD, "var": np.zeros(3)}, layer=SimpleNamespace(eps=0.0))
    a, b = affine_change(norm, "mean", OLD["mean"])
    assert (a.tolist(), b.tolist()) == ([0, 0, 0], [0, 0, 0])


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (4, [[1, 2], [3, 4], [5, 6], [7, 8]]),
        (2, [[4, 6], [12, 14]]),
        (1, [[16, 20]]),
        (3, [[16 / 3, 20 / 3]] * 3),
        (8, [[2, 2.5]] * 8),
    ],
)
def test_rows_of_a_sample_add_up(n: int, expected: list[list[float]]) -> None:
    """Fails if windows of other samples are added, or rows that cannot be dealt are."""
    values = np.arange(1.0, 9.0).reshape(4, 2)
    np.testing.assert_allclose(per_sample(values, n), expected)


def test_of_no_sample_there_is_nothing() -> None:
    """Fails if nothing is divided by zero."""
    assert per_sample(np.ones((4, 2)), 0).shape == (0, 2)


X5, Y5 = torch.arange(10.0).reshape(5, 2), torch.arange(5)


def sizes(batch: Any, n: int = 2) -> list[list[int]]:
    found = list(pieces(batch, n))
    return [[len(value) for value in (one if isinstance(one, tuple | list) else [one])] for one in found]


def test_a_batch_is_cut_into_pieces() -> None:
    """Fails if a sample is lost or twice there, targets stay behind, or a list becomes a tuple."""
    assert sizes((X5, Y5)) == [[2, 2], [2, 2], [1, 1]]
    assert sizes(X5) == [[2], [2], [1]]
    assert torch.equal(torch.cat([x for x, _ in pieces((X5, Y5), 2)]), X5)
    assert torch.equal(torch.cat([y for _, y in pieces((X5, Y5), 2)]), Y5)
    assert [type(one) for one in pieces([X5, Y5], 3)] == [list, list]
    assert torch.equal(torch.cat(list(pieces(X5, 4))), X5)


@pytest.mark.parametrize(
    "batch",
    [
        (X5[:2], Y5[:2]),
        X5[:2],
        (X5, Y5[:4]),
        {"x": X5},
        (X5, torch.tensor(1.0)),
        (X5, "a text"),
    ],
)
def test_what_has_no_row_per_sample_stays_whole(batch: Any) -> None:
    """Fails if as many samples as fit are cut, or targets of another number are."""
    (one,) = pieces(batch, 2)
    assert one is batch


def test_the_loss_is_summed_over_samples_and_averaged_over_positions() -> None:
    """Fails if classes are in another dimension, positions add up, or samples are averaged."""
    rng = np.random.default_rng(2)
    scores = torch.from_numpy(rng.normal(size=(3, 4)))
    target = torch.tensor([1, 0, 3])
    expected = cross_entropy(scores, target, reduction="sum")
    assert float(_loss(scores, target)) == pytest.approx(float(expected))
    decided = cross_entropy(scores, scores.argmax(1), reduction="sum")
    for none in (None, target.double(), target == 1, target[:2]):
        assert float(_loss(scores, none)) == pytest.approx(float(decided))
    tokens, following = (
        torch.from_numpy(rng.normal(size=(3, 5, 4))),
        torch.from_numpy(rng.integers(4, size=(3, 5))),
    )
    by_token = cross_entropy(tokens.reshape(-1, 4), following.reshape(-1), reduction="sum") / 5
    assert float(_loss(tokens, following)) == pytest.approx(float(by_token))
    assert float(_loss(tokens.movedim(2, 1), following)) == pytest.approx(float(by_token))


def test_an_output_that_decides_nothing_is_projected_on_signs() -> None:
    """Fails if the sum of the output itself, where opposite changes cancel, is its loss."""
    loss = {
        float(_loss(torch.ones(7, 1) * torch.tensor([[0.0]] * i + [[1.0]] + [[0.0]] * (6 - i)), None))
        for i in range(7)
    }
    assert loss == {-1.0, 1.0}


class Net(nn.Module):
    """A norm, called once or twice, before classes."""

    def __init__(self, images: bool, calls: int) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.norm = nn.BatchNorm2d(3) if images else nn.BatchNorm1d(3)
        self.head, self.calls = nn.Linear(3, 4), calls
        for vector in (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var):
            nn.init.uniform_(vector, 0.5, 1.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = self.norm(x)
        return self.head(x.flatten(2).mean(2) if x.dim() > 2 else x)


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("images", [False, True], ids=["rows", "images"])
def test_an_estimate_is_the_gradient_times_the_change_of_the_output(images: bool, calls: int) -> None:
    """Fails if a sample, position or call is left out or counts twice: against autograd, and the norm with each
    replacement on the very inputs of its calls."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(6, 3, 4, 5) if images else (6, 3))).float()
    y = torch.tensor([0, 3, 1, 2, 2, 0])
    model = Net(images, calls)
    norms = held_norms(model, bnprobe.record(model, [x]))
    made = variants(norms, ("mean", "var", "weight", "bias"), {}, lambda members: {}, 0)
    estimates = Estimates(norms, made, {}, 0)
    assert set(estimates.sizes.values()) == {0.0}
    for rows in (slice(0, 4), slice(4, 6)):
        estimates.see(model, (x[rows], y[rows]), None)
    assert estimates.n_samples == 6
    inputs, outputs, z = [], [], x
    for _ in range(calls):
        inputs.append(z)
        z = model.norm(z).detach().requires_grad_()
        outputs.append(z)
    # each output on its own leads to the loss through what follows it
    slopes = []
    for k, output in enumerate(outputs):
        after = output
        for _ in range(calls - 1 - k):
            after = model.norm(after)
        loss = cross_entropy(model.head(after.flatten(2).mean(2) if images else after), y, reduction="sum")
        slopes.append(torch.autograd.grad(loss, output)[0])
    for variant in made:
        with variant.written(), torch.no_grad():
            moved = [model.norm(given) - output for given, output in zip(inputs, outputs, strict=True)]
        by_sample = sum(
            (slope * change).flatten(1).sum(1) for slope, change in zip(slopes, moved, strict=True)
        )
        expected = float(by_sample.square().mean().sqrt())
        assert estimates.sizes[variant] == pytest.approx(expected, rel=1e-4, abs=1e-6), variant.vector


def test_a_gain_of_zero_hides_what_it_multiplies() -> None:
    """Fails if a channel whose output says nothing of its input spoils the estimate of the others."""
    model = Net(images=False, calls=1)
    with torch.no_grad():
        model.norm.weight[1] = 0.0
    x, y = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 3])
    norms = held_norms(model, bnprobe.record(model, [x]))
    made = [v for v in variants(norms, ("mean",), {}, lambda members: {}, 0) if v.replacement == "0"]
    estimates = Estimates(norms, made, {}, 0)
    estimates.see(model, (x, y), None)
    out = model.norm(x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(model.head(out), y, reduction="sum"), out)
    with made[0].written(), torch.no_grad():
        by_sample = (slope * (model.norm(x) - out)).sum(1)
    assert estimates.sizes[made[0]] == pytest.approx(float(by_sample.square().mean().sqrt()), rel=1e-4)


def test_without_gradients_there_is_no_estimate() -> None:
    """Fails if an output that gradients do not reach is taken for one that nothing changes."""
    for decided in (None, torch.ones(2, 3)):
        with pytest.raises(BnprobeError, match="the output has no gradient"):
            _gradients(decided, None, [])
    x = torch.ones(2, 3, requires_grad=True)
    other = torch.ones(2, requires_grad=True)
    found = _gradients(x * torch.tensor([1.0, 2.0, 3.0]), None, [x, other])
    assert found[0].shape == (2, 3)
    assert found[1] is None
