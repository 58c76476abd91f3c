"""The description of a norm: where its channels stand, which inputs fit, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.models import C, H, L, W
from torch import nn

from bnprobe.errors import BnprobeError
from bnprobe.norms import NormLayer
from bnprobe.norms.layer import faults


def test_layouts_with_pairwise_distinct_sizes():
    """Fails if two axes are swapped: each value must stand where its channel says."""
    first = NormLayer("k", "batch", C, 0.0)
    last = NormLayer("k", "channels", C, 0.0, channels="last")
    x = torch.arange(2 * C * H * W).reshape(2, C, H, W).double()
    assert first.rows(x).shape == (2, C, H * W)
    assert torch.equal(first.rows(x)[1, 2], x[1, 2].ravel())
    tokens = x.permute(0, 2, 3, 1)
    assert last.rows(tokens).shape == (2, C, H * W)
    assert torch.equal(last.rows(tokens)[1, 2], x[1, 2].ravel())
    image = NormLayer("k", "channels", C * H * W, 0.0, channels="last", n_channel_dims=3)
    assert torch.equal(image.rows(x)[1, :, 0], x[1].ravel())
    assert image.rows(x).shape == (2, C * H * W, 1)


def test_layouts_without_some_dimension():
    """Fails if vectors, lone vectors or inputs without a batch are taken for something larger."""
    last = NormLayer("k", "channels", C, 0.0, channels="last")
    vector = torch.arange(3.0)
    assert torch.equal(last.rows(vector), vector[None, :, None])
    assert torch.equal(last.rows(vector.expand(2, 3)), vector.expand(2, 3)[..., None])
    lone = NormLayer("k", "instance", C, 0.0, unbatched_dims=2)
    x = torch.arange(C * L).reshape(C, L).double()
    assert lone.fits(x)
    assert not lone.fits(x.T)
    assert torch.equal(lone.rows(x), x[None])
    assert lone.rows(x.expand(2, C, L)).shape == (2, C, L)


def test_fits_refuses_other_shapes():
    """Fails if a plan for channels first accepts channels last, or a scalar."""
    first, last = NormLayer("k", "batch", C, 0.0), NormLayer("k", "channels", C, 0.0, channels="last")
    assert first.fits(torch.ones(2, C, H))
    assert not first.fits(torch.ones(2, H, C))
    assert not first.fits(torch.ones(C))
    assert last.fits(torch.ones(2, H, C))
    assert last.fits(torch.ones(C)), "one sample alone"
    assert not last.fits(torch.ones(2, C, H))
    assert not last.fits(torch.tensor(1.0))
    image = NormLayer("k", "channels", C * H, 0.0, channels="last", n_channel_dims=2)
    assert image.fits(torch.ones(2, C, H))
    assert not image.fits(torch.ones(C * H))


def test_rows_are_views_of_common_layouts():
    """Fails if every norm's input is copied before it is read: RAM would double."""
    x = torch.ones(2, C, H, W)
    assert NormLayer("k", "batch", C, 0.0).rows(x).data_ptr() == x.data_ptr()
    tokens = torch.ones(2, L, C)
    assert NormLayer("k", "channels", C, 0.0, channels="last").rows(tokens).data_ptr() == tokens.data_ptr()


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"pools": "layer"}, "Use one of batch, instance, group, channels"),
        ({"channels": "middle"}, "Use 'first' or 'last'"),
        ({"uses_running": True}, "Pass both, or uses_running=False"),
        ({"n_groups": 2}, "n_groups=2 does not divide 3 channels"),
        ({"n_groups": 0}, "n_groups=0 does not divide 3 channels"),
    ],
    ids=str,
)
def test_a_plan_checks_itself(changes: dict[str, object], advice: str):
    """Fails if a user's description with a misspelt word is believed until the numbers are strange."""
    with pytest.raises(BnprobeError, match=advice):
        NormLayer(**{"kind": "k", "pools": "batch", "n_channels": C, "eps": 0.0, **changes})  # type: ignore[arg-type]


FIRST = NormLayer("k", "batch", C, 0.0)
LONE = replace(FIRST, unbatched_dims=2)
LAST = NormLayer("k", "channels", C, 0.0, channels="last")
SECOND = replace(LAST, sample_dim=1)
"""Of inputs of shape (positions, N, C)."""


@pytest.mark.parametrize(
    ("layer", "shape", "places", "rows"),
    [
        (FIRST, (2, C, H, W), (2, H, W), (2, C, H * W)),
        (FIRST, (2, C), (2,), (2, C, 1)),
        (LONE, (C, L), (1, L), (1, C, L)),
        (LONE, (2, C, L), (2, L), (2, C, L)),
        (LAST, (2, H, W, C), (2, H, W), (2, C, H * W)),
        (LAST, (C,), (1,), (1, C, 1)),
        (SECOND, (H, 2, C), (2, H), (2, C, H)),
        (SECOND, (H, 2, W, C), (2, H, W), (2, C, H * W)),
        (SECOND, (2, C), (2,), (2, C, 1)),
        (replace(SECOND, n_channels=C * W, n_channel_dims=2), (H, 2, C, W), (2, H), (2, C * W, H)),
    ],
)
def test_samples_and_positions_of_every_layout(
    layer: NormLayer, shape: tuple[int, ...], places: tuple[int, ...], rows: tuple[int, ...]
) -> None:
    """Fails if a dimension is dropped or a position taken for a sample; places multiply to what rows have."""
    x = torch.randn(shape)
    assert layer.fits(x)
    assert layer.places(x) == places
    assert layer.rows(x).shape == rows


def test_inputs_whose_sample_is_the_second_dimension() -> None:
    """Fails if positions and samples are exchanged, or a dimension of the channels is taken for the sample."""
    x = torch.arange(H * 2 * C).reshape(H, 2, C)
    assert torch.equal(SECOND.rows(x)[1, 2], x[:, 1, 2])
    assert torch.equal(LAST.rows(x)[3, 2], x[3, :, 2])


@pytest.mark.parametrize("layer", [FIRST, LONE, LAST, SECOND])
def test_inputs_without_a_value_have_no_rows(layer: NormLayer) -> None:
    """Fails if an empty batch, or one of no positions, cannot be reshaped."""
    for shape in ((0, C, H), (2, C, 0)) if layer.channels == "first" else ((0, H, C), (2, 0, C)):
        assert layer.rows(torch.ones(shape)).shape == (0, C, 1)


def test_a_description_shows_what_was_given() -> None:
    """Fails if defaults are told, or what differs from them is not."""
    assert repr(replace(LAST, weight=torch.ones(C), sample_dim=1)) == (
        f"NormLayer(kind='k', pools='channels', n_channels={C}, eps=0.0, channels='last', weight=<float32 ({C},)>, "
        "sample_dim=1)"
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"n_channels": 0}, ""),
        ({"eps": 1}, ""),
        ({"weight": nn.UninitializedParameter()}, ""),
        ({"weight": torch.ones(C, 1), "bias": torch.ones(C)}, ""),
        ({"kind": 7}, "gave kind=7 and"),
        ({"n_channels": -1}, "n_channels=-1, not a name and a whole number"),
        ({"n_channels": 3.0}, "n_channels=3.0, not a name and a whole number"),
        ({"n_channels": True}, "n_channels=True, not a name and a whole number"),
        ({"eps": True}, "gave eps=True, not a number"),
        ({"eps": "1e-5"}, "gave eps='1e-5', not a number"),
        ({"bias": [0.0] * C}, "gave bias as list, not a tensor"),
        ({"weight": torch.ones(C + 1)}, f"gave weight of {C + 1} numbers for {C} channels"),
        ({"running_mean": torch.ones(1)}, f"gave running_mean of 1 numbers for {C} channels"),
        ({"running_var": 1.0}, "gave running_var as float, not a tensor"),
    ],
    ids=str,
)
def test_what_no_layer_can_be(changes: dict[str, Any], fault: str) -> None:
    """Fails if a description that cannot be is believed, or one that can be is refused."""
    found = faults(replace(FIRST, **changes))
    assert found == fault if not fault else fault in found
