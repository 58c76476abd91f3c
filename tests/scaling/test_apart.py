"""How far ranks are apart: by the formula over their values, for the pair that is farthest, and of one model only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import CannotMerge
from bnprobe.measures import tables
from bnprobe.recording import RankGap, Recording, Source
from bnprobe.rules import judge
from bnprobe.scaling.join import join
from bnprobe.scaling.tree import merge_in_order

from .conftest import batch, network


def rank(index: int, of: int, model: nn.Module, *batches: Tensor) -> Recording:
    return replace(bnprobe.record(model, list(batches)), sources=(Source.rank(index, of),))


def ranks(*data: Tensor) -> Recording:
    """Ranks of one network, merged as they are gathered."""
    parts = [rank(i, len(data), network(), x) for i, x in enumerate(data)]
    whole = merge_in_order(parts, join)
    assert whole is not None
    return whole


def inputs(model: nn.Module, x: Tensor) -> np.ndarray:
    """What the first norm of the network is given, (N, C, P)."""
    with torch.no_grad():
        return model[0](x).flatten(2).double().numpy()


def rms(squares: np.ndarray) -> float:
    return float(np.sqrt(squares.mean()))


def test_inputs_are_as_far_apart_as_their_values():
    """Fails if means are not those of the ranks, σ is not that within them, or chance counts values and not samples."""
    first, second = batch(1, 6), batch(2, 3) + 1.5
    gap = ranks(first, second).layers[0].ranks
    assert gap is not None
    a, b = (inputs(network(), x) for x in (first, second))
    deviations = np.concatenate(
        [(x - x.mean((0, 2), keepdims=True)).swapaxes(0, 1).reshape(5, -1) for x in (a, b)], 1
    )
    within = (deviations**2).mean(1)
    assert gap.inputs == pytest.approx(rms((a.mean((0, 2)) - b.mean((0, 2))) ** 2 / within), rel=1e-5)
    errors = [x.mean(2).var(0, ddof=1) / len(x) for x in (a, b)]
    assert gap.inputs_chance == pytest.approx(rms(sum(errors) / within), rel=1e-5)
    assert gap.inputs_of == "rank 0 and rank 1"
    assert gap.stored == 0


@pytest.mark.parametrize("odd", range(4))
def test_the_odd_rank_is_named(odd):
    """Fails if the difference of one rank is lost among others, or another pair is named."""
    data = [batch(seed, 20) + 3 * (seed == odd) for seed in range(4)]
    whole = ranks(*data)
    gap = whole.layers[0].ranks
    assert gap is not None
    assert gap.inputs_of == ("rank 0 and rank 1" if odd < 2 else "rank 2 and rank 3")
    (row,) = [row for row in judge(tables(whole)).itertuples() if row.rule == "ranks-unlike"]
    assert row.layer == "1"


def test_ranks_alike_are_left_in_peace():
    """Fails if samples of one kind, dealt to ranks, are called different."""
    found = judge(tables(ranks(*(batch(seed, 20) for seed in range(5)))))
    assert not found["rule"].str.startswith("ranks-").any()


def drifted(move: float, scale: float) -> nn.Module:
    model = network()
    model[1].running_mean += move
    model[1].running_var *= scale
    return model


def test_running_statistics_that_drifted_are_merged_and_said():
    """Fails if ranks whose buffers drifted cannot be gathered, the whole has statistics of no rank, or calls the
    difference a change that the run made."""
    first, second = rank(0, 2, network(), batch(1)), rank(1, 2, drifted(0.5, 4.0), batch(2))
    whole = join(first, second)
    record, mine = whole.layers[0], first.layers[0]
    np.testing.assert_array_equal(record.running_mean, mine.running_mean)
    np.testing.assert_array_equal(record.running_var, mine.running_var)
    assert record.ranks is not None
    var = mine.running_var + mine.eps
    theirs = 4 * mine.running_var + mine.eps
    assert record.ranks.stored == pytest.approx(
        rms(0.25 / var + np.log(np.sqrt(theirs / var)) ** 2), rel=1e-5
    )
    assert record.ranks.stored_of == "rank 0 and rank 1"
    measured = tables(whole)
    assert measured.layers["memory_moved"][0] == 0
    (row,) = [row for row in judge(measured).itertuples() if row.rule == "ranks-drifted"]
    assert (row.severity, row.layer) == ("warning", "1")


@pytest.mark.parametrize("sources", [(), (Source(kind="shard", index=0, of=2),)])
def test_parts_that_are_no_ranks_still_need_the_same_statistics(sources):
    """Fails if shards of two checkpoints are merged because ranks may be."""
    first, second = (
        replace(rank(0, 2, model, batch(i)), sources=sources)
        for i, model in enumerate((network(), drifted(1, 1)))
    )
    with pytest.raises(CannotMerge, match="running_mean differs"):
        join(first, second)


def test_ranks_of_another_network_are_refused():
    """Fails if ranks of two networks are merged as one whose statistics drifted."""
    with pytest.raises(CannotMerge, match="running_mean differs"):
        join(rank(0, 2, network(), batch(1)), rank(1, 2, network(8), batch(2)))
    unknown = replace(rank(1, 2, drifted(1, 1), batch(2)), tensors=None)
    with pytest.raises(CannotMerge, match="running_mean differs"):
        join(rank(0, 2, network(), batch(1)), unknown)


def test_of_two_gaps_the_farther_is_kept():
    """Fails if the order of merging decides, one number takes the pair of the other, or NaN wins."""
    near = RankGap(0.5, 0.1, "a", 0.75, "b")
    far = RankGap(0.6, 0.59, "c", 0.25, "d")  # farther, but hardly beyond chance
    unknown = RankGap(float("nan"), float("nan"), "", float("nan"), "")
    for one, other in ((near, far), (far, near)):
        assert one.merge(other) == near
    for one, other in ((far, unknown), (unknown, far)):
        assert one.merge(other) == far


def test_gaps_are_saved(tmp_path):
    """Fails if a whole that was saved no longer knows that its ranks differed."""
    whole = ranks(batch(1), batch(2) + 3)
    loaded = bnprobe.load(whole.save(tmp_path / "whole.bnp"))
    assert [repr(vars(record.ranks)) for record in loaded.layers] == [
        repr(vars(record.ranks)) for record in whole.layers
    ]
