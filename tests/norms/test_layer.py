"""The description of a norm: where its channels stand, which inputs fit, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from support.models import C, H, L, W

from bnprobe.errors import BnprobeError
from bnprobe.norms import NormLayer


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
