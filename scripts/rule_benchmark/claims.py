"""What a claim is, and how often it is found to hold on data whose truth is known."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_MOST, AT_LEAST = "at most", "at least"
NO_CLAIM = float("nan")
ERRORS = 3
"""Simulation errors by which what was found may miss the nominal rate."""


@dataclass(frozen=True)
class Claim:
    """A rate that is claimed; `holds` says how it may differ from the nominal one, "" that nothing is claimed.

    `found` makes a rate of what one draw of the trial gives; NaN leaves the draw out.
    """

    words: str
    nominal: float
    holds: str
    found: Callable[..., float]


@dataclass(frozen=True)
class Trial:
    """Data whose truth is known, drawn anew each time, and what is claimed of them."""

    words: str
    n: int
    claims: tuple[Claim, ...]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]


def rows(trial: Trial, n_draws: int) -> Iterator[dict[str, object]]:
    """A row per claim: the mean over draws, and its simulation error, which counts draws."""
    rng = np.random.default_rng([trial.n, zlib.crc32(trial.words.encode())])
    draws = [trial.draw(rng) for _ in range(n_draws)]
    for claim in trial.claims:
        each = np.array([float(claim.found(*one)) for one in draws])
        each = each[~np.isnan(each)]
        found, error = float(each.mean()), _error(each)
        yield {
            "setting": trial.words,
            "images": trial.n,
            "claim": claim.words,
            "holds": claim.holds,
            "nominal": claim.nominal,
            "found": round(found, 4),
            "error": round(error, 4),
            "draws": len(each),
            "fine": _fine(claim, found, error),
        }


def _error(each: NDArray[np.float64]) -> float:
    """Of the mean of rates, one per draw; also where none of them, or all, is 0: as if one more were and one were not."""
    k, n = each.sum(), len(each)
    share = (k + 1) / (n + 2)
    binomial = share * (1 - share) / n if set(each.tolist()) <= {0.0, 1.0} else 0.0
    return float(np.sqrt(max(each.var(ddof=1) / n, binomial)))


def _fine(claim: Claim, found: float, error: float) -> bool:
    """Within three simulation errors of what is claimed, or on the cautious side of it."""
    if claim.holds == AT_MOST:
        return found - ERRORS * error <= claim.nominal
    return claim.holds != AT_LEAST or found + ERRORS * error >= claim.nominal
