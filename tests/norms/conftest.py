"""No class that one test has registered is known to another."""

from __future__ import annotations

import pytest

from bnprobe.norms import registry


@pytest.fixture(autouse=True)
def _forget_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
