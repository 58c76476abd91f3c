"""Rules about axes: a batch norm over sequences that takes positions for channels."""

from __future__ import annotations

import pytest
from measures.sites import running_stats_of, site, some_rows

from bnprobe.recording.neighbours import Neighbours
from rules.firing import fired

ROWS = some_rows(40)


@pytest.mark.parametrize(
    ("around", "severity"),
    [
        ("recurrent before, linear after", "warning"),
        ("embedding before", "warning"),
        ("linear before, linear after", "info"),
    ],
)
def test_positions_taken_for_channels(around, severity):
    """Fails if a linear layer alone, which may act along time, is a warning, or the sizes are exchanged."""
    neighbours = Neighbours("relu", features_elsewhere=around, n_last=24)
    norm = site(ROWS, "bn", gamma=1.5, beta=0.1, neighbours=neighbours, **running_stats_of(ROWS))
    (row,) = fired("positions-as-channels", norm).itertuples()
    assert (row.severity, row.layer) == (severity, "bn")
    assert "input is (N, 3, 24)" in row.because
    assert around in row.because
    assert "with 24 channels" in row.do
