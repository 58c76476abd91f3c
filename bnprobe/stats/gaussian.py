"""What an activation makes of a Gaussian: the mean and the mean square of f(X), X ~ N(mean, sd^2).

Piecewise polynomials (ReLU, ReLU6, hard-swish, ...) in closed form: f is written as its leftmost
polynomial plus one truncated polynomial per knot, so that all that is needed is E[(X - t)_+^k]. The
others (SiLU, GELU, tanh, ...) by Gauss-Legendre quadrature in two parts that meet at X = 0, where ELU
has its kink and the sigmoids have the poles that trouble Gauss-Hermite: absolute error below
1e-10 (1 + mean^2 + sd^2) for sd up to 10, and 1e-8 of it up to 40. For the clipped Gaussian see also
Nagel et al. 2019, arXiv:1906.04721.

Activations are named as torch.nn.functional names them, with their numbers in brackets where they are
not torch's defaults: "leaky_relu(0.2)", "hardtanh(-2, 2)". "none" is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import polynomial as P

from bnprobe.errors import NotDefined
from bnprobe.stats.moments import Array

Coefficients = tuple[float, ...]
"""A polynomial, the constant first."""

REACH = 9.0
"""Deviations from the mean at which the quadrature ends: 2e-19 of the Gaussian is beyond."""

N_NODES = 64
"""Nodes on each side of X = 0."""


@dataclass(frozen=True)
class _Pieces:
    """polynomials[i] between knots[i - 1] and knots[i]."""

    knots: tuple[float, ...]
    polynomials: tuple[Coefficients, ...]


@dataclass(frozen=True)
class _Smooth:
    """A function, and the lines to which it tends on the far left and on the far right."""

    function: Callable[[Array], Array]
    left: Coefficients
    right: Coefficients


def is_known(activation: str) -> bool:
    """Whether `moments` has an answer for this name."""
    try:
        _shape(activation)
    except NotDefined:
        return False
    return True


def applied(activation: str, x: Array) -> Array:
    """f(x), elementwise. Raises NotDefined for an activation that is not known (ask `is_known`)."""
    shape = _shape(activation)
    if isinstance(shape, _Smooth):
        return shape.function(x)
    piece = np.searchsorted(shape.knots, x, side="right")
    return np.choose(piece, [P.polyval(x, polynomial) for polynomial in shape.polynomials])


def moments(activation: str, mean: Array, sd: Array) -> tuple[Array, Array]:
    """E[f(X)] and E[f(X)^2] for X ~ N(mean, sd^2), elementwise; the sign of `sd` does not matter, 0 is a point.

    Raises NotDefined for an activation that is not known (ask `is_known`).
    """
    shape = _shape(activation)
    mean, sd = np.broadcast_arrays(np.asarray(mean, dtype=np.float64), np.abs(sd))
    if isinstance(shape, _Smooth):
        return _integrate(shape.function, mean, sd)
    tails = [_tail(mean - knot, sd) for knot in shape.knots]
    square = _expectation(_squared(shape), mean, sd, tails)
    return _expectation(shape, mean, sd, tails), np.maximum(square, 0.0)


def signed_mean(activation: str, mean: Array, gamma: Array) -> Array:
    """E[f(X)] as the closed forms give it with gamma put in the place of |gamma|: a control, and wrong.

    Turning the sign of the deviation in Phi and phi turns E[f(X)] into (left + right) - E[f(X)], where
    left and right are f's outer polynomials at the mean. That is taken for smooth activations as well.
    """
    shape = _shape(activation)
    if isinstance(shape, _Smooth):
        left, right = shape.left, shape.right
    else:
        left, right = shape.polynomials[0], shape.polynomials[-1]
    first, _ = moments(activation, mean, gamma)
    outer = P.polyval(mean, left) + P.polyval(mean, right)
    return np.where(gamma < 0, outer - first, first)


def probability_above(mean: Array, sd: Array, threshold: float = 0.0) -> Array:
    """P(X > threshold) for X ~ N(mean, sd^2); for a ReLU the share of positions at which it fires."""
    p, _ = _tail(np.asarray(mean, dtype=np.float64) - threshold, np.abs(sd))
    return p


def probability_above_skewed(mean: Array, sd: Array, skewness: Array) -> Array:
    """P(X > 0) for a distribution that is nearly Gaussian but skewed: the first term of Edgeworth's series, in 0 to 1.

    Phi(z) + skewness/6 (z^2 - 1) phi(z), z = mean/sd. Where the skewness is not known, as for a point, without it.
    """
    p = probability_above(mean, sd)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = mean / sd
        term = skewness / 6 * (z * z - 1) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    return np.clip(p + np.where(np.isfinite(term), term, 0.0), 0.0, 1.0)


def _tail(offset: Array, sd: Array) -> tuple[Array, Array]:
    """P(X > t) and sd^2 times the density at t, for offset = mean - t."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = np.where(sd > 0, offset / sd, np.where(offset > 0, np.inf, -np.inf))
        z = np.where(np.isnan(offset) | np.isnan(sd), np.nan, z)
        return _below(z), sd * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


def _below(z: Array) -> Array:
    """P(Z < z) of a standard Gaussian, by Python's erfc: one number per channel, for which scipy need not be imported."""
    different, places = np.unique(z, return_inverse=True)  # one only, as without β, or without data
    shares = np.array([math.erfc(-x * _SQRT_HALF) / 2 for x in different.tolist()])
    return shares[places.ravel()].reshape(z.shape)


_SQRT_HALF = math.sqrt(0.5)


def _expectation(f: _Pieces, mean: Array, sd: Array, tails: Sequence[tuple[Array, Array]]) -> Array:
    """E[f(X)]: the leftmost polynomial everywhere, and at each knot what changes there; `tails` are those of the knots."""
    total = _weighed(f.polynomials[0], mean, sd, np.ones_like(mean), np.zeros_like(mean))
    for knot, change, tail in zip(f.knots, _changes(f), tails, strict=True):
        total = total + _weighed(change, mean - knot, sd, *tail)
    return total


@lru_cache(maxsize=64)
def _squared(f: _Pieces) -> _Pieces:
    return _Pieces(f.knots, tuple(tuple(map(float, P.polymul(p, p))) for p in f.polynomials))


@lru_cache(maxsize=64)
def _changes(f: _Pieces) -> tuple[Coefficients, ...]:
    """What is added at each knot, in powers of the distance from it."""
    each = zip(f.knots, f.polynomials, f.polynomials[1:], strict=False)
    return tuple(_about(P.polysub(above, below), knot) for knot, below, above in each)


def _about(coefficients: Any, knot: float) -> Coefficients:
    """The same polynomial in powers of (x - knot): its Taylor coefficients there."""
    taken, factorial = [], 1.0
    for k in range(len(coefficients)):
        factorial *= max(k, 1)
        taken.append(float(P.polyval(knot, P.polyder(coefficients, k))) / factorial)
    return tuple(taken)


def _weighed(coefficients: Coefficients, offset: Array, sd: Array, p: Array, density: Array) -> Array:
    """sum_k c_k E[(X - t)^k; X > t], by h_k = offset h_(k-1) + (k - 1) sd^2 h_(k-2), integrated by parts."""
    h = [p, offset * p + density]
    for k in range(2, len(coefficients)):
        h.append(offset * h[-1] + (k - 1) * sd**2 * h[-2])
    total = np.zeros_like(offset)
    for c, value in zip(coefficients, h, strict=False):
        total = total + c * value
    return total


def _integrate(function: Callable[[Array], Array], mean: Array, sd: Array) -> tuple[Array, Array]:
    """Both moments by quadrature, on each side of X = 0."""
    nodes, weights = np.polynomial.legendre.leggauss(N_NODES)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = np.where(sd > 0, np.clip(-mean / sd, -REACH, REACH), 0.0)
    first, second = np.zeros_like(mean), np.zeros_like(mean)
    for low, high in ((-REACH, middle), (middle, REACH)):
        half = (np.asarray(high - low) / 2)[..., None]
        z = np.asarray(high + low)[..., None] / 2 + half * nodes
        share = half * weights * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
        values = function(mean[..., None] + sd[..., None] * z)
        first = first + (share * values).sum(axis=-1)
        second = second + (share * values**2).sum(axis=-1)
    return first, second


@lru_cache(maxsize=64)
def _shape(activation: str) -> _Pieces | _Smooth:
    """The function of that name; NotDefined where it is none of ours."""
    name, _, rest = activation.partition("(")
    try:
        numbers = [float(number) for number in rest.rstrip(")").split(",") if number.strip()]
        return _SHAPES[name.strip()](*numbers)
    except (KeyError, ValueError, TypeError) as error:
        raise NotDefined(
            f"activation {activation!r}: its moments are not known. Use one of {', '.join(sorted(_SHAPES))}."
        ) from error


def _clip(low: float = -1.0, high: float = 1.0) -> _Pieces:
    return _Pieces((low, high), ((low,), (0.0, 1.0), (high,)))


def _leaky(slope: float = 0.01) -> _Pieces:
    return _Pieces((0.0,), ((0.0, slope), (0.0, 1.0)))


def _elu(alpha: float = 1.0) -> _Smooth:
    line = (0.0, 1.0)
    return _Smooth(lambda x: np.maximum(x, 0.0) + alpha * np.expm1(np.minimum(x, 0.0)), (-alpha,), line)


def _gelu(x: Array) -> Array:
    from bnprobe.stats.scipy_lazy import special

    gelu: Array = x * special.ndtr(x)
    return gelu


def _sigmoid(x: Array) -> Array:
    return (1 + np.tanh(x / 2)) / 2


_SHAPES: dict[str, Callable[..., _Pieces | _Smooth]] = {
    "none": lambda: _Pieces((), ((0.0, 1.0),)),
    "relu": lambda: _leaky(0.0),
    "relu6": lambda: _clip(0.0, 6.0),
    "hardtanh": _clip,
    "leaky_relu": _leaky,
    "hardsigmoid": lambda: _Pieces((-3.0, 3.0), ((0.0,), (0.5, 1 / 6), (1.0,))),
    "hardswish": lambda: _Pieces((-3.0, 3.0), ((0.0,), (0.0, 0.5, 1 / 6), (0.0, 1.0))),
    "elu": _elu,
    "silu": lambda: _Smooth(lambda x: x * _sigmoid(x), (0.0,), (0.0, 1.0)),
    "gelu": lambda: _Smooth(_gelu, (0.0,), (0.0, 1.0)),
    "mish": lambda: _Smooth(lambda x: x * np.tanh(np.logaddexp(0.0, x)), (0.0,), (0.0, 1.0)),
    "tanh": lambda: _Smooth(np.tanh, (-1.0,), (1.0,)),
    "sigmoid": lambda: _Smooth(_sigmoid, (0.0,), (1.0,)),
}
