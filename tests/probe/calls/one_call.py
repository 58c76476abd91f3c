"""One call of a norm of each kind, described and worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from support import oracles
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.calls import InputReading, observe_before, vectors_of

N, C, P, EPS = 2, 6, 35, 0.05
"""A large eps, so that leaving it out shows."""

GAMMA = torch.tensor([1.5, -0.7, 0.0, 0.2, 3.0, -1.0], dtype=torch.float64)
SCALE = np.where(GAMMA.numpy() == 0, 1, np.abs(GAMMA.numpy()))
BETA = torch.tensor([0.3, -1.0, 0.7, 0.0, -0.2, 2.0], dtype=torch.float64)
MEAN = torch.tensor([0.0, 4.0, -1.0, 0.5, 9.0, 1.0], dtype=torch.float64)
VAR = torch.tensor([1.0, 0.3, 2.0, 0.0, 5.0, 0.1], dtype=torch.float64)


def plan(kind: str, **changes: Any) -> NormLayer:
    kinds: dict[str, dict[str, Any]] = {
        "batch": {"pools": "batch"},
        "stored": {"pools": "batch", "running_mean": MEAN, "running_var": VAR, "uses_running": True},
        "instance": {"pools": "instance"},
        "group": {"pools": "group", "n_groups": 2},
        "layer": {"pools": "channels"},
        "rms": {"pools": "channels", "centred": False},
        "batch without the mean": {"pools": "batch", "centred": False},
    }
    named = {"kind": kind, "n_channels": C, "eps": EPS, "weight": GAMMA, "bias": BETA}
    return NormLayer(**{**named, **kinds[kind], **changes})


LEARNT_GAMMA, LEARNT_BETA = GAMMA.numpy(), BETA.numpy()
KINDS = ("batch", "stored", "instance", "group", "layer", "rms")


def formula(kind: str, x: np.ndarray, gamma: Any = LEARNT_GAMMA, beta: Any = LEARNT_BETA) -> np.ndarray:
    match kind:
        case "batch":
            return oracles.batch_norm(x, gamma, beta, EPS)
        case "stored":
            return oracles.stored_norm(x, MEAN.numpy(), VAR.numpy(), gamma, beta, EPS)
        case "instance":
            return oracles.group_norm(x, C, gamma, beta, EPS)
        case "group":
            return oracles.group_norm(x, 2, gamma, beta, EPS)
        case "layer":
            return oracles.layer_norm(x, gamma, beta, EPS)
    return oracles.rms_norm(x, gamma, beta, EPS)


def before_of(plan: NormLayer, x: Tensor, **changes: Any) -> InputReading:
    named: dict[str, Any] = {
        "plan": plan,
        "vectors": vectors_of(plan),
        "x": x,
        "training": False,
        "memory": vectors_of(plan),
        "reference": None,
        "histograms": True,
        "keep_sample": True,
    }
    return observe_before(**{**named, **changes})
