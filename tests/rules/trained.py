"""A trained batch norm in a training or evaluation, with the facts of its call log as a test wants them."""

from __future__ import annotations

from typing import Any

from measures.sites import call_log, running_stats_of, site, some_rows

from bnprobe.recording import LayerRecord

ROWS = some_rows(40)
STATISTICS = running_stats_of(ROWS)
LEARNED = {"gamma": 1.5, "beta": 0.1, **STATISTICS}
TRAIN = {"n_calls_training": 1, "n_calls_running": 0}


def norm(layer: str = "bn", changes: dict[str, Any] | None = None, **facts: Any) -> LayerRecord:
    """A trained batch norm whose data agree with its running statistics; `facts` are those of the call log."""
    return site(ROWS, layer, **{**LEARNED, **(changes or {})}, call_log=call_log(**facts))


def learning(**facts: Any) -> dict[str, Any]:
    return {"n_calls_learning": 1, "n_calls_model_training": 1, **facts}
