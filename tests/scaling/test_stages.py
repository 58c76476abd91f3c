"""Stages of a pipeline: their norms side by side, in every order of ranks, and what are no stages is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import bnprobe
from bnprobe.errors import CannotMerge
from bnprobe.recording import Recording, Source
from bnprobe.scaling.join import join
from bnprobe.scaling.tree import merge_in_order

from .conftest import batch, network


def stage(which: int, index: int, of: int, *batches: Tensor) -> Recording:
    """What the rank of one of two stages recorded."""
    whole = network()
    with torch.no_grad():
        inputs = list(batches) if which == 0 else [whole[:3](x) for x in batches]
    part = bnprobe.record(whole[:3] if which == 0 else whole[3:], inputs)
    return replace(part, sources=(Source.rank(index, of),))


@pytest.mark.parametrize("order", [(0, 1, 0, 1), (0, 0, 1, 1)])
def test_two_stages_of_two_replicas_are_one_network(order):
    """Fails if samples of replicas do not add up, or those of stages do."""
    seen = [0, 0]
    parts = []
    for index, which in enumerate(order):
        parts.append(stage(which, index, 4, batch(seen[which], 3 + seen[which])))
        seen[which] += 1
    whole = merge_in_order(parts, join)
    assert whole is not None
    at_once = bnprobe.record(network(), [batch(0, 3), batch(1, 4)])
    assert (whole.about.n_images, whole.about.n_forwards) == (7, 2)
    assert not whole.missing
    for mine, theirs in zip(
        sorted(whole.layers, key=lambda record: record.layer), at_once.layers, strict=True
    ):
        assert mine.layer == theirs.layer
        np.testing.assert_array_equal(mine.pre.n, theirs.pre.n)
        np.testing.assert_allclose(mine.pre.mean, theirs.pre.mean, rtol=1e-6)


def test_stages_that_saw_other_numbers_of_samples_are_refused():
    """Fails if a stage of one replica and one of another become one network."""
    with pytest.raises(
        CannotMerge, match=r"4 and 5 samples.*Gather over the data-parallel group of each stage first"
    ):
        join(stage(0, 0, 2, batch(0, 4)), stage(1, 1, 2, batch(0, 5)))


def test_parts_that_are_no_ranks_are_no_stages():
    """Fails if files of two networks are put side by side as if they were one."""
    first, second = (replace(stage(which, which, 2, batch(0)), sources=()) for which in range(2))
    with pytest.raises(CannotMerge, match="recorded norms differ"):
        join(first, second)
