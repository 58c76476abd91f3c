"""One batch for tests of single calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from probe.calls.one_call import C, N, P


@pytest.fixture
def x(rng: np.random.Generator) -> Tensor:
    rows = rng.gamma(0.7, size=(N, C, P)) * (1 + rng.gamma(2.0, size=(N, 1, 1)))
    return torch.tensor(rows * np.array([1, 10, 0.1, 2, 1, 5])[:, None] + np.arange(C)[:, None])
