"""The circumstances of calls: modes, gradients, the smallest call, updates, and a memory that moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from measures.sites import call_log, recording, site, some_rows
from torch import nn
from torch.utils.checkpoint import checkpoint

import bnprobe
from bnprobe.errors import BnprobeError
from bnprobe.measures import tables
from bnprobe.recording import CallLog, LayerRecord

GROUPS, CHANNELS, SIDE = 2, 6, 5


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.GroupNorm(GROUPS, CHANNELS))


def ledgers(model: nn.Module, *sizes: int, learning: bool = True) -> dict[str, CallLog]:
    """The ledger of every norm after passes with batches of these sizes."""
    with bnprobe.attach(model) as probe, torch.set_grad_enabled(learning):
        for n in sizes:
            y = model(torch.randn(n, 3, SIDE, SIDE))
            if learning:
                y.sum().backward()
    return {record.layer: record.call_log for record in probe.recording.layers}


def test_the_smallest_call_is_counted_at_the_layer():
    """Fails if the batch size is taken for the number of values, or another call is named."""
    found = ledgers(network().train(), 4, 2, 7)
    n = (SIDE - 2) ** 2
    assert (found["1"].fewest_values, found["1"].fewest_call, found["1"].fewest_images) == (2 * n, 1, 2)
    assert found["2"].fewest_values == n * CHANNELS / GROUPS  # of one image and one group


def test_calls_that_used_the_memory_are_not_small():
    """Fails if eval mode, where the batch does not matter, is counted."""
    found = ledgers(network().eval(), 2)
    assert (found["1"].fewest_values, found["1"].fewest_call, found["1"].fewest_images) == (None, None, None)


@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_passes_that_learn_and_modes(learning, training):
    """Fails if the mode of the norm is taken for the model's, or grad mode is read inside the layer."""
    model = network().train(training)
    model[1].train(not training)
    found = ledgers(model, 3, 3, learning=learning)["1"]
    assert (found.n_calls_learning, found.n_calls_model_training) == (2 * learning, 2 * training)


def test_what_requires_a_gradient():
    """Fails if gamma and beta are exchanged, or a missing one counts as frozen."""
    model = network()
    model[1].weight.requires_grad_(False)
    model[2] = nn.GroupNorm(GROUPS, CHANNELS, affine=False)
    found = ledgers(model, 3)
    assert (found["1"].gamma_learns, found["1"].beta_learns) == (False, True)
    assert (found["2"].gamma_learns, found["2"].beta_learns) == (None, None)


def test_updates_are_counted_from_the_first_recorded_call():
    """Fails if batches before the recording count, or the count is read after the first call."""
    model = network().train()
    model(torch.randn(3, 3, SIDE, SIDE))
    found = ledgers(model, 3, 3, 3)
    assert found["1"].n_updates == 3
    assert found["2"].n_updates is None


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.body = nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.body, self.conv(x), use_reentrant=False)


def test_checkpointing_updates_twice():
    """Fails if the second update, by the recomputation, is not seen."""
    found = ledgers(Checkpointed().train(), 3, 3)
    assert found["body.0"].n_updates == 4


def test_how_far_the_memory_moved():
    """Fails if the step is not in remembered deviations, or the means before and after are exchanged."""
    model = network().train()
    before = model[1].running_mean.double().numpy().copy()
    var = model[1].running_var.double().numpy().copy()
    with bnprobe.attach(model) as probe:
        model(torch.randn(3, 3, SIDE, SIDE) + 2)
    layers = bnprobe.report(probe).layers.set_index("layer")
    step = (model[1].running_mean.double().numpy() - before) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(layers.loc["1", "memory_moved"], np.sqrt((step**2).mean()), rtol=1e-6)
    assert np.isnan(layers.loc["2", "memory_moved"])


def test_merging_adds_counts_and_keeps_the_smallest_call():
    """Fails if a part without a small call hides that of the other, or counts are not added."""
    learning = {"n_calls_learning": 1, "n_updates": 2}
    one = call_log(**learning, fewest_values=64.0, fewest_call=3, fewest_images=1)
    two = call_log(**learning, fewest_values=9.0, fewest_call=1, fewest_images=2, n_ranks=4)
    for merged in (one.merge(two), two.merge(one), one.merge(call_log(n_updates=0)).merge(two)):
        assert (merged.fewest_values, merged.fewest_call, merged.fewest_images) == (9.0, 1, 2)
        assert merged.n_ranks == 4
    assert one.merge(two).n_calls_learning == 2
    assert one.merge(two).n_updates == 4
    assert one.merge(call_log(n_updates=None)).n_updates is None


def test_more_calls_of_a_kind_than_calls_are_refused():
    """Fails if an edited file can claim more learning calls than there were calls."""
    record = site(some_rows(), call_log=call_log(n_calls_learning=2))
    with pytest.raises(BnprobeError, match="more of such calls than calls"):
        record.check_sane()


def test_a_memory_of_another_width_is_refused():
    """Fails if the vectors after the recording may have another length than the layer."""
    with pytest.raises(BnprobeError, match="running_mean_after"):
        site(some_rows(), call_log=call_log(running_mean_after=np.zeros(7)))


def test_records_without_a_ledger_have_the_columns():
    """Fails if a recording from before it was kept cannot be tabulated."""
    record: LayerRecord = replace(site(some_rows()), call_log=None)
    row = tables(recording(record)).layers.iloc[0]
    assert row["learns"] == ""
    assert np.isnan(row["fewest_values"])
