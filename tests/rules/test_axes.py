"""Rules about axes: a batch norm over sequences that takes positions for channels."""

from __future__ import annotations

import pytest
from measures.sites import running_stats_of, site, some_rows

from bnprobe.recording.neighbours import Neighbours
from rules.edited import edited, evidence, findings
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


@pytest.mark.parametrize(("learns", "vectors"), [("both", True), ("", False)])
def test_samples_taken_for_channels(learns, vectors):
    """Fails if an instance norm of rows is not told of, or its missing vectors are said to belong to places."""
    around = {"features_elsewhere": "linear before", "n_last": 16}
    (one,) = findings(
        "positions-as-channels", edited(evidence(), kind="instance_norm", learns=learns, **around)
    )
    assert one.severity == "warning"
    assert one.says.startswith("This instance norm takes samples for channels")
    assert ("γ and β belong to places in the batch" in one.says) == vectors
    assert "its input is (3, 16)" in one.because
    assert "`torch.nn.LayerNorm(16)`" in one.do


@pytest.mark.parametrize(
    ("around", "severity"),
    [("conv before, conv after", "warning"), ("conv before", "info")],
)
def test_a_layer_norm_over_positions(around, severity):
    """Fails if one between convolutions is only noted, or one of which half is known is a warning."""
    norm = site(
        ROWS,
        "ln",
        "layer_norm",
        gamma=1.5,
        beta=0.1,
        neighbours=Neighbours("relu", features_elsewhere=around),
    )
    (row,) = fired("positions-as-channels", norm).itertuples()
    assert (row.severity, row.layer) == (severity, "ln")
    assert row.says.startswith("This layer norm takes positions for features")
    assert "the 3 values of the last dimension" in row.because
    assert around in row.because
    assert fired(
        "positions-as-channels",
        site(
            ROWS,
            "gn",
            "group_norm",
            gamma=1.5,
            beta=0.1,
            neighbours=Neighbours("relu", features_elsewhere=around),
        ),
    ).empty
