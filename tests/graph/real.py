"""The neighbours of the real CIFAR ResNet-20, written down by hand from its architecture: no graph is traced.

He et al. 2015, section 4.2, n = 3, option-A shortcuts. Everything in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from support.paths import DATA

from bnprobe.graph.geometry import Geometry, Source
from bnprobe.graph.propagate import implied, reaching
from bnprobe.recording.neighbours import Implied

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")

EPS = 1e-5
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
STAGES = ((1, 32), (2, 16), (3, 8))


def same(size: int, stride: int = 1) -> Geometry:
    """A 3x3 convolution with one zero around, at `size` output positions a side."""
    return Geometry((stride,) * 2, ((1, 1),) * 2, (1, 1), 1, (size * stride,) * 2, (size,) * 2)


@dataclass
class ResNet20:
    """The checkpoint's arrays, without the prefix of its keys."""

    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls) -> ResNet20:
        saved = torch.load(DATA / "cifar_resnet20.th", map_location="cpu", weights_only=True)
        arrays = {k.removeprefix("module."): v.double().numpy() for k, v in saved["state_dict"].items()}
        return cls(arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def sigma(self, norm: str) -> np.ndarray:
        return np.sqrt(self[f"{norm}.running_var"] + EPS)

    @property
    def norms(self) -> list[str]:
        return [k.removesuffix(".running_var") for k in self.arrays if k.endswith("running_var")]

    def source(self, norm: str, activation: str = "none") -> Source:
        gamma, beta = self[f"{norm}.weight"], self[f"{norm}.bias"]
        return Source("norm", activation, gamma.size, norm, gamma, beta)

    @cached_property
    def inside(self) -> dict[str, Implied]:
        """The second norm of every block, which the first one feeds through a ReLU."""
        found = {}
        for stage, size in STAGES:
            for block in range(3):
                at = f"layer{stage}.{block}"
                source = self.source(f"{at}.bn1", "relu")
                found[f"{at}.bn2"] = implied(self[f"{at}.conv2.weight"], None, same(size), reaching(source))
        return found

    @cached_property
    def between(self) -> dict[str, Implied]:
        """The first norm of every block, which a sum of the branch and the skip feeds through a ReLU."""
        found, before = {}, self.source("bn1", "relu")
        for stage, size in STAGES:
            for block in range(3):
                at = f"layer{stage}.{block}"
                narrower = stage > 1 and block == 0
                weight = self[f"{at}.conv1.weight"]
                found[f"{at}.bn1"] = implied(weight, None, same(size, 2 if narrower else 1), reaching(before))
                if narrower:
                    n = weight.shape[0] // 4
                    zeros = Source("norm", "none", n, "", np.zeros(n), np.zeros(n))
                    before = Source("concat", "none", 4 * n, parts=(zeros, before, zeros))
                branch = self.source(f"{at}.bn2")
                before = Source("sum", "relu", branch.n_channels, parts=(branch, before))
        return found
