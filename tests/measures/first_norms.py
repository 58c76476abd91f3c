"""A first norm whose numbers are made by hand, trained on inputs as they should be, that sees them changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bnprobe.recording import Normalize, Recording
from bnprobe.recording.neighbours import Folded, Neighbours, Stem
from measures.sites import recording, site

RNG = np.random.default_rng(3)
CONSTANTS = Normalize((0.48, 0.45, 0.40), (0.23, 0.22, 0.22))
MEAN, STD = np.array(CONSTANTS.mean), np.array(CONSTANTS.std)
COLOUR = np.array([0.55, 0.45, 0.3])
N_CHANNELS = 12
MATRIX = RNG.normal(size=(N_CHANNELS, 3))
STEM = Stem(MATRIX, None)
NORM = 3 * np.linalg.norm(MATRIX, axis=1) / RNG.uniform(0.3, 2.8, N_CHANNELS)
PIXELS = np.clip(COLOUR[:, None] + 0.2 * RNG.normal(size=(60, 3, 50)), 0, 1)


def inputs_of(pixels: np.ndarray) -> np.ndarray:
    return (pixels - MEAN[:, None]) / STD[:, None]


def stem_norm(inputs: np.ndarray, stem: Stem = STEM, **changes: Any) -> Recording:
    """The first norm, trained on PIXELS as they should be, that now sees these inputs (N, 3, P)."""
    trained, seen = (np.einsum("cf,nfp->ncp", stem.matrix, x) for x in (inputs_of(PIXELS), inputs))
    neighbours = Neighbours("relu", "conv", ("input",), source="input", stem=stem)
    folded = Folded(NORM, -np.ones(N_CHANNELS), np.ones(N_CHANNELS), None)
    statistics = {"running_mean": trained.mean((0, 2)), "running_var": trained.var((0, 2))}
    first = site(
        seen, "bn1", gamma=1.5, beta=0.1, **statistics, neighbours=replace(neighbours, folded=folded)
    )
    return recording(replace(first, **changes), normalize=CONSTANTS)


DIGITS = RNG.beta(0.153, 0.347, size=(60, 1, 50))
GREY = Normalize((DIGITS.mean(),), (DIGITS.std(),))
GREY_WEIGHTS = RNG.normal(size=(N_CHANNELS, 1))


def grey_norm(change: Any, constants: Normalize | None) -> Recording:
    """The first norm of one channel, trained on normalized DIGITS, that sees them changed."""
    trained = np.einsum("cf,nfp->ncp", GREY_WEIGHTS, (DIGITS - DIGITS.mean()) / DIGITS.std())
    seen = np.einsum("cf,nfp->ncp", GREY_WEIGHTS, change(DIGITS))
    statistics = {"running_mean": trained.mean((0, 2)) + 1e-4, "running_var": trained.var((0, 2))}
    neighbours = Neighbours("relu", "conv", ("input",), source="input", stem=Stem(GREY_WEIGHTS, None))
    first = site(seen, "bn1", gamma=1.5, beta=0.1, **statistics, neighbours=neighbours)
    return recording(first, normalize=constants)


def symmetric(pixels: np.ndarray) -> np.ndarray:
    return (pixels - 0.5) / 0.5
