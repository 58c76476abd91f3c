"""The running totals of a site: snapshots of them, what moved meanwhile, and two first calls at the same time."""

from __future__ import annotations

import threading

import numpy as np
import torch
from recording.test_recording import assert_same_recordings
from support import oracles
from support.models import BY_NAME, C
from support.runs import recorded
from torch import Tensor, nn

import bnprobe


def test_first_calls_at_the_same_time_keep_their_own_scale():
    """Fails if a thread's counts, made against its own first batch, are added to those of another scale."""
    barrier = threading.Barrier(2)

    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gn = nn.GroupNorm(1, C)

        def forward(self, x: Tensor) -> Tensor:
            x = self.gn(x)
            barrier.wait(timeout=10)  # neither pass is over when the other's first call is
            return x

    model, batches = Waits().double().eval(), BY_NAME["batch norm"].batches()[:2]
    with bnprobe.attach(model) as probe:
        threads = [threading.Thread(target=model, args=(x,)) for x in batches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (record,) = probe.recording.layers
    assert record.n_calls == 2
    sheets = record.pre_histogram
    assert sheets.counts.shape == (2, C, 96)
    for x in batches:
        rows = x.flatten(2).numpy()
        mean = rows.mean((0, 2))
        own = int(np.abs(sheets.centre - mean).sum(axis=1).argmin())
        np.testing.assert_allclose(sheets.centre[own], mean)
        expected = oracles.histogram(rows, sheets.centre[own], sheets.scale[own])
        np.testing.assert_array_equal(sheets.counts[own], expected)


def test_recording_is_a_snapshot(tmp_path):
    """Fails if a later pass changes what was handed out, through a shared array."""
    case = BY_NAME["mixed"]
    model, (x, y, _) = case.model(training=True), case.batches()
    with bnprobe.attach(model) as probe:
        model(x)
        early = probe.recording
        then = bnprobe.load(early.save(tmp_path / "early"))
        model(y)
    assert_same_recordings(early, then, 1e-15)
    assert (early.layers[0].n_calls, probe.recording.layers[0].n_calls) == (1, 2)


def test_what_moved_is_said():
    """Fails if an optimizer's step or a momentum update between batches goes unnoticed, or is imagined."""
    case = BY_NAME["batch norm"]
    batches = case.batches()
    resting = recorded(case.model(), *batches).layers[0]
    assert (resting.parameters_moved, resting.buffers_moved) == (False, False)
    model = case.model(training=True)
    with bnprobe.attach(model) as probe:
        model(batches[0])
        assert (probe.recording.layers[0].parameters_moved, probe.recording.layers[0].buffers_moved) == (
            False,
            True,
        )
        with torch.no_grad():
            model[0].bias += 0.5
        model(batches[1])
    moved = probe.recording.layers[0]
    assert (moved.parameters_moved, moved.buffers_moved) == (True, True)
    np.testing.assert_array_equal(moved.beta, model[0].bias.detach().numpy())
    assert moved.n_batches_tracked == 2
