"""One sandbox for all trials: it imports once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from attacks.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    made.close()
