"""One cage for all trials: it imports once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from attacks.sandbox import Cage


@pytest.fixture(scope="session")
def cage() -> Iterator[Cage]:
    made = Cage()
    yield made
    made.close()
