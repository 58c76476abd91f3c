"""What a site adds up: one map for many calls, maps that change, and the share that histograms count."""

from __future__ import annotations

import numpy as np
import torch
from support import oracles
from support.oracles import assert_same_moments
from torch import Tensor, nn

import bnprobe
from bnprobe.probe.calls.histogram_scale import COUNTED_EVERY, COUNTED_WHOLE
from bnprobe.recording import LayerRecord


def a_norm(seed: int = 0) -> nn.BatchNorm2d:
    """Three channels, one with a negative gamma, one flat; statistics that do not fit the data."""
    norm = nn.BatchNorm2d(3, dtype=torch.float64).eval()
    norm.weight.data = torch.tensor([1.5, -0.5, 0.0], dtype=torch.float64)
    norm.bias.data = torch.tensor([0.3, 1.0, -2.0], dtype=torch.float64)
    norm.running_mean = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    norm.running_var = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)
    return norm


def batches(*sizes: int, px: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [
        torch.empty(n, 3, px, px, dtype=torch.float64).exponential_(generator=generator) * (1 + i)
        for i, n in enumerate(sizes)
    ]


def watched(
    norm: nn.Module, passes: list[Tensor], between: list[object] | None = None
) -> tuple[LayerRecord, Tensor]:
    """The record of a norm, and its real outputs."""
    outputs = []
    with bnprobe.attach(norm) as probe, torch.no_grad():
        for i, x in enumerate(passes):
            outputs.append(norm(x))
            if between and i < len(between):
                between[i](norm)
    return probe.recording.layers[0], torch.cat(outputs)


def rows(x: Tensor) -> np.ndarray:
    return x.flatten(2).numpy()


def check(record: LayerRecord, x: Tensor, y: Tensor) -> None:
    assert_same_moments(record.pre, oracles.channel_moments(rows(x)))
    assert_same_moments(record.post, oracles.channel_moments(rows(y)))
    np.testing.assert_array_equal(record.n_positive, oracles.n_positive(rows(y)))
    for histogram, values in ((record.pre_histogram, x), (record.post_histogram, y)):
        centre, scale = histogram.centre[0], histogram.scale[0]
        np.testing.assert_array_equal(histogram.counts[0], oracles.histogram(rows(values), centre, scale))


def test_many_calls_under_one_map():
    """Fails if the output of the sum is not the sum of the outputs: moments, counts, negative and flat gammas."""
    passes = batches(3, 1, 5)
    record, y = watched(a_norm(), passes)
    check(record, torch.cat(passes), y)


def test_a_map_that_changes_starts_new_sums():
    """Fails if calls under a new gamma, or new statistics, are mapped by the old: each call by its own."""

    def new_weight(norm: nn.BatchNorm2d) -> None:
        norm.weight.data *= torch.tensor([2.0, -1.0, 1.0])

    def new_mean(norm: nn.BatchNorm2d) -> None:
        norm.running_mean += 0.5

    def new_eps(norm: nn.BatchNorm2d) -> None:
        norm.eps = 1.0

    passes = batches(3, 2, 4, 2, 3)
    record, y = watched(a_norm(), passes, [new_weight, new_mean, new_eps])
    assert_same_moments(record.pre, oracles.channel_moments(rows(torch.cat(passes))))
    assert_same_moments(record.post, oracles.channel_moments(rows(y)))
    np.testing.assert_array_equal(record.n_positive, oracles.n_positive(rows(y)))
    np.testing.assert_array_equal(record.post_histogram.n, record.post.n)


def test_a_snapshot_is_not_changed_by_later_calls():
    """Fails if totals that are added in place are handed out: the first snapshot must stay as it was."""
    norm, (first, second) = a_norm(), batches(3, 4)
    with bnprobe.attach(norm) as probe, torch.no_grad():
        y = norm(first)
        record = probe.recording.layers[0]
        norm(second)
        norm.weight.data *= 2
        norm(second)
        check(record, first, y)
        again = probe.recording.layers[0]
    assert again.pre.n[0] == (3 + 4 + 4) * 36


def test_histograms_count_every_fourth_image_of_a_long_stream():
    """Fails if the share stands still, is scaled, or touches moments: images one by one, numbered over calls."""
    n_whole, n_later = -(-COUNTED_WHOLE // 64**2), 3 * COUNTED_EVERY + 1
    passes = batches(*[1] * (n_whole + n_later), px=64)
    record, _ = watched(a_norm(), passes)
    counted = [x for i, x in enumerate(passes) if i < n_whole or i % COUNTED_EVERY == 0]
    histogram = record.pre_histogram
    np.testing.assert_array_equal(histogram.n, np.full(3, len(counted) * 64**2))
    expected = oracles.histogram(rows(torch.cat(counted)), histogram.centre[0], histogram.scale[0])
    np.testing.assert_array_equal(histogram.counts[0], expected)
    assert record.pre.n[0] == len(passes) * 64**2
