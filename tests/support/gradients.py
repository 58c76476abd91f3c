"""References for backward passes: a model whose graph is cut at every norm, and the formulas by hand.

Nothing here hooks a node of the graph. The gradient at a norm's output is that of a leaf of zeros added
to it; the gradients of the norm itself come from running a copy of it alone, on a detached input.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.recording import GradientRecord, Recording
from support import oracles
from support.models import Case, Norm

Site = tuple[str, int]
PER_PASS = ("gamma", "beta", "importance")


@dataclass(frozen=True)
class Pull:
    """One backward pass at one call of a norm: what went in, and the gradients around the norm alone."""

    x: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    dgamma: np.ndarray | None
    dbeta: np.ndarray | None
    vectors: dict[str, np.ndarray | None]
    training: bool


def loss_of(output: Any, seed: int = 7) -> Tensor:
    """A scalar that pulls at every value of the output with another force, which depends on the value too."""
    y = next(iter(output.values())) if isinstance(output, dict) else output
    force = torch.tensor(np.random.default_rng(seed).gamma(0.7, size=tuple(y.shape)) - 0.4).to(y)
    return (force * y + 0.3 * force * y * y).sum()


class Cut:
    """Takes a model of its own and cuts its graph at every norm in `paths`, counted per call of a forward pass."""

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        self.model = model
        modules = dict(self.model.named_modules())
        for path in paths:
            module = modules.get(path, self.model)
            module.register_forward_pre_hook(self._before(path), with_kwargs=True)
            module.register_forward_hook(self._after(path))

    def pulls(self, run: Callable[[nn.Module], Tensor], seed: int = 0) -> dict[Site, Pull]:
        """One forward pass and one backward pass of the loss that `run` returns."""
        self._n: dict[str, int] = {}
        self._open: dict[str, tuple[nn.Module, Tensor]] = {}
        self._calls: dict[Site, tuple[nn.Module, Tensor, Tensor]] = {}
        torch.manual_seed(seed)
        self.model.zero_grad(set_to_none=True)
        run(self.model).backward()
        calls = self._calls.items()
        return {site: _alone(norm, x, z.grad) for site, (norm, x, z) in calls if z.grad is not None}

    def _before(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            norm = copy.deepcopy(module)
            for hooks in (norm._forward_hooks, norm._forward_pre_hooks):
                hooks.clear()
            x = args[0] if args else kwargs["input"]
            self._open[path] = norm, x.detach().clone()

        return hook

    def _after(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
            zeros = torch.zeros_like(y).requires_grad_()
            number = self._n.get(path, 0)
            self._n[path] = number + 1
            self._calls[path, number] = (*self._open.pop(path), zeros)
            return y + zeros

        return hook


def _alone(norm: nn.Module, x: Tensor, dy: Tensor) -> Pull:
    """The gradients that `dy` at its output gives this norm and its input, through nothing else."""
    training, vectors = norm.training, {name: _array(getattr(norm, name, None)) for name in VECTORS}
    x.requires_grad_()
    learned = [getattr(norm, name, None) for name in ("weight", "bias")]
    wanted = [p for p in learned if isinstance(p, nn.Parameter) and p.requires_grad]
    with torch.enable_grad():
        dx, *others = torch.autograd.grad(norm(x), [x, *wanted], grad_outputs=dy)
    by_id = {id(p): _array(g).reshape(-1) for p, g in zip(wanted, others, strict=True)}
    dgamma, dbeta = (by_id.get(id(p)) for p in learned)
    flat = {name: None if v is None else v.reshape(-1) for name, v in vectors.items()}
    return Pull(_array(x), _array(dy), _array(dx), dgamma, dbeta, flat, training)


VECTORS = ("weight", "bias", "running_mean", "running_var")


def _array(x: Tensor | None) -> np.ndarray | None:
    return None if x is None else np.array(x.detach().double().cpu().numpy())


# The formulas, by numpy alone, on rows (N, C, P)


def dx_by_hand(norm: Norm, pull: Pull, eps: float) -> np.ndarray:
    """dL/dx of one call: (q - mean q - xhat mean(q xhat)) / s with q = gamma dy, over what the norm pools.

    With stored statistics q / s; without centring, (q - xhat mean(q xhat)) / s.
    """
    x, q = norm.rows(pull.x), norm.rows(pull.dy) * _gamma(norm, pull)[:, None]
    if _stored(norm, pull):
        return q / np.sqrt(pull.vectors["running_var"] + eps)[:, None]
    shape, axes = _pooled(norm, x)
    x_, q_ = x.reshape(shape), q.reshape(shape)
    mean = x_.mean(axes, keepdims=True) if norm.centred else 0.0
    s = np.sqrt(((x_ - mean) ** 2).mean(axes, keepdims=True) + eps)
    xhat = (x_ - mean) / s
    centre = q_.mean(axes, keepdims=True) if norm.centred else 0.0
    return ((q_ - centre - xhat * (q_ * xhat).mean(axes, keepdims=True)) / s).reshape(x.shape)


def dgamma_dbeta_by_hand(norm: Norm, pull: Pull, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """sum dy xhat and sum dy of one call."""
    x, dy = norm.rows(pull.x), norm.rows(pull.dy)
    if _stored(norm, pull):
        mean, var = pull.vectors["running_mean"][:, None], pull.vectors["running_var"][:, None]
        xhat = (x - mean) / np.sqrt(var + eps)
    else:
        shape, axes = _pooled(norm, x)
        x_ = x.reshape(shape)
        mean = x_.mean(axes, keepdims=True) if norm.centred else 0.0
        square = ((x_ - mean) ** 2).mean(axes, keepdims=True)
        xhat = ((x_ - mean) / np.sqrt(square + eps)).reshape(x.shape)
    return (dy * xhat).sum((0, 2)), dy.sum((0, 2))


def energy_by_hand(norm: Norm, pull: Pull, eps: float) -> np.ndarray:
    """sum (dy gamma / sqrt(var + eps))^2 of one call, with the variance that the norm used."""
    x, q = norm.rows(pull.x), norm.rows(pull.dy) * _gamma(norm, pull)[:, None]
    if _stored(norm, pull):
        return (q**2).sum((0, 2)) / (pull.vectors["running_var"] + eps)
    shape, axes = _pooled(norm, x)
    x_ = x.reshape(shape)
    mean = x_.mean(axes, keepdims=True) if norm.centred else 0.0
    square = ((x_ - mean) ** 2).mean(axes, keepdims=True)
    return (q.reshape(shape) ** 2 / (square + eps)).reshape(x.shape).sum((0, 2))


def _stored(norm: Norm, pull: Pull) -> bool:
    return norm.running and (norm.frozen or not pull.training)


def _gamma(norm: Norm, pull: Pull) -> np.ndarray:
    weight = pull.vectors["weight"]
    return np.ones(norm.rows(pull.x).shape[1]) if weight is None else weight + norm.weight_offset


def _pooled(norm: Norm, x: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape in which the norm pools over whole axes, and these axes."""
    n, c, p = x.shape
    if norm.pools == "group":
        return (n, norm.n_groups, c // norm.n_groups, p), (2, 3)
    return (n, c, p), {"batch": (0, 2), "instance": (2,), "channels": (1,)}[norm.pools]


# What a record must say of these passes


def assert_gradients_true(
    recording: Recording,
    case: Case,
    passes: Sequence[dict[Site, Pull]],
    rtol: float = 1e-8,
    with_dx: bool = True,
) -> None:
    """Every number of every site's gradient, over all passes; each pass reached every site."""
    sites = {(path, call) for path, norm in case.norms.items() for call in range(norm.calls)}
    assert all(set(one) == sites for one in passes), "the reference itself must have seen every site"
    assert {(r.layer, r.call) for r in recording.layers} == sites
    for record in recording.layers:
        pulls = [one[record.layer, record.call] for one in passes]
        assert record.gradient is not None, f"{record.site}: no gradient was recorded"
        assert_gradient_true(
            record.gradient, case.norms[record.layer], pulls, record.eps, rtol, with_dx=with_dx
        )


def assert_gradient_true(
    found: GradientRecord,
    norm: Norm,
    pulls: Sequence[Pull],
    eps: float,
    rtol: float = 1e-8,
    with_dx: bool = True,
) -> None:
    """Every number of one site's gradient, but for the producer's and the gaps."""
    assert found.n_passes == len(pulls)
    oracles.assert_same_moments(found.dy, together(norm, [pull.dy for pull in pulls]), rtol)
    np.testing.assert_array_equal(
        found.dy_nonfinite, sum(oracles.n_nonfinite(norm.rows(pull.dy)) for pull in pulls)
    )
    assert (found.dx is not None) is with_dx
    if found.dx is not None:
        oracles.assert_same_moments(found.dx, together(norm, [pull.dx for pull in pulls]), rtol)
        energy = sum(energy_by_hand(norm, pull, eps) for pull in pulls)
        np.testing.assert_allclose(found.energy, energy, rtol=rtol, err_msg="energy")
    for name, vectors in (("gamma", [p.dgamma for p in pulls]), ("beta", [p.dbeta for p in pulls])):
        _assert_over_passes(getattr(found, name), vectors, rtol, name)
    _assert_over_passes(found.importance, [_importance(norm, pull) for pull in pulls], rtol, "importance")


def _importance(norm: Norm, pull: Pull) -> np.ndarray | None:
    if pull.dgamma is None:
        return None
    total = (pull.vectors["weight"] + norm.weight_offset) * pull.dgamma
    if pull.dbeta is not None:
        total = total + pull.vectors["bias"] * pull.dbeta
    return np.abs(total)


def _assert_over_passes(found: Any, vectors: Sequence[np.ndarray | None], rtol: float, name: str) -> None:
    assert (found is None) == (vectors[0] is None), name
    if found is not None:
        oracles.assert_same_moments(found, oracles.moments(np.stack(vectors)), rtol)


def assert_same_gradients(found: GradientRecord, expected: GradientRecord, rtol: float = 1e-9) -> None:
    """Every field of two records agrees."""
    assert found.n_passes == expected.n_passes
    for name in ("dy", "dx", *PER_PASS):
        assert_same(getattr(found, name), getattr(expected, name), name, rtol)
    for name in ("dy_nonfinite", "energy"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rtol, err_msg=name)
    for name in ("gap_centre", "gap_map"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-9, err_msg=name
        )
    assert (found.producer is None) == (expected.producer is None)
    if found.producer is not None:
        for name in ("norm", "grad_norm", "angle"):
            assert_same(getattr(found.producer, name), getattr(expected.producer, name), name, rtol)
        np.testing.assert_allclose(found.producer.gap, expected.producer.gap, atol=1e-9)


def assert_same(found: Any, expected: Any, name: str, rtol: float) -> None:
    assert (found is None) == (expected is None), name
    if found is not None:
        whole = {field.name: getattr(expected, field.name) for field in fields(expected)}
        oracles.assert_same_moments(found, whole, rtol)


def together(norm: Norm, values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Moments per channel over several passes."""
    rows = [norm.rows(one) for one in values]
    return oracles.moments(np.concatenate([np.moveaxis(r, 1, 2).reshape(-1, r.shape[1]) for r in rows]))
