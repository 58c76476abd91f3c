"""What every test gets: a seeded generator, one thread, and sanity asked of every statistic made."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from bnprobe.stats import Moments

if not torch.cuda.is_available():
    # kernels for a GPU run on the CPU then; triton must know before anything imports it (torchvision does)
    os.environ.setdefault("TRITON_INTERPRET", "1")

# An example may be the first to call a compiled loop, or the machine busy: seconds say nothing about the code.
settings.register_profile(
    "no_clock", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("no_clock")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "insane: makes Moments that no sample of values can have, on purpose")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The order of additions, and with it the last bits, must not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(1)


@pytest.fixture(autouse=True)
def _every_moment_is_sane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inequalities that need no oracle, asked of every `Moments` that a test makes in passing."""
    made = Moments.__post_init__

    def made_and_checked(self: Moments) -> None:
        made(self)
        self.check_sane("a statistic made in this test")

    if request.node.get_closest_marker("insane") is None:
        monkeypatch.setattr(Moments, "__post_init__", made_and_checked)
