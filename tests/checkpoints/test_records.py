"""Records without a call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measures.sites import running_stats_of, site, some_rows

from bnprobe.checkpoints.records import without_calls
from bnprobe.stats.fields import RECORDED


@pytest.mark.parametrize("name", RECORDED)
def test_a_norm_that_was_not_called_has_no_sums(name: str) -> None:
    """Fails if a sum of `stats.fields` outlives the calls that it is of."""
    rows = some_rows()
    called = replace(site(rows, **running_stats_of(rows)), **{name: np.full(3, 7.0)})
    assert getattr(without_calls(called), name).tolist() == [0, 0, 0]
    assert without_calls(called).running_mean is called.running_mean
