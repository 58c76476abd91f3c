"""What norms over channels do to tokens: every number against numpy, one token after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import tokens as slow
from torch import Tensor, nn

import bnprobe
from bnprobe.measures import tables
from bnprobe.measures.tokens import first_position, scale_by_position
from bnprobe.recording import Recording

N, P, C = 6, 11, 24


class Block(nn.Module):
    """Pre-norm: x + w(norm(x)), twice."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.first, self.second = kind(C, eps=1e-3), kind(C, eps=1e-3)
        self.attention, self.mlp = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


def stream(seed: int = 0) -> Tensor:
    """Tokens of different scales, the first of each sequence many times as loud, one channel larger than the others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((N, P, C), generator=generator) * torch.rand((N, P, 1), generator=generator).add(0.5)
    x[:, 0] *= 40.0
    x[..., 3] += 4.0
    return x


@pytest.fixture(scope="module", params=[nn.LayerNorm, nn.RMSNorm], ids=["layer norm", "RMS norm"])
def seen(request) -> tuple[Recording, np.ndarray, np.ndarray, bool]:
    """A block probed in two batches; its input and that of its second norm, and whether its norms take out the mean."""
    torch.manual_seed(1)
    model, x = Block(request.param).eval(), stream()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(x[:4])
        model(x[4:])
    with torch.no_grad():
        middle = x + model.attention(model.first(x))
    return probe.recording, x.numpy(), middle.numpy(), request.param is nn.LayerNorm


def row(recording: Recording, layer: str) -> Any:
    layers = tables(recording).layers
    return layers[layers["layer"] == layer].iloc[0]


def test_scales_positions_and_loud_tokens(seen):
    """Fails if eps, the mean of layer norm or a position is missed, or batches are not added."""
    recording, x, _, centred = seen
    r, found = slow.scales(x, 1e-3, centred), row(recording, "first")
    assert found["n_tokens"] == N * P
    assert found["token_scale"] == pytest.approx(np.median(r), rel=0.05)
    assert found["token_scale_high"] == pytest.approx(np.quantile(r, 0.95), rel=0.25)
    assert found["loud_share"] == pytest.approx((r > 5 * np.median(r)).mean())
    assert found["position_share"] == pytest.approx(slow.position_share(r), rel=1e-6)
    assert found["first_token_scale"] * found["token_scale"] == pytest.approx(
        np.exp(np.log(r[:, 0]).mean()), rel=1e-6
    )
    assert found["token_eps_share"] == pytest.approx(1e-3 / found["token_scale"] ** 2)
    tokens = recording.layers[0].tokens
    by_position = scale_by_position(tokens)
    for b in range(4):
        here = [p for p in range(P) if slow.bucket(p) == b]
        assert by_position[b] == pytest.approx(np.exp(np.log(r[:, here]).mean()), rel=1e-6)
        assert first_position(b) == here[0]
    assert np.isnan(by_position[7])
    order = np.argsort(-r, axis=None)[:8]
    np.testing.assert_allclose(tokens.loudest[:, 0], r.reshape(-1)[order], rtol=1e-6)
    np.testing.assert_array_equal(tokens.loudest[:, 1], order // P)
    np.testing.assert_array_equal(tokens.loudest[:, 2], order % P)


def test_what_is_left_after_dividing(seen):
    """Fails if the energy is of the raw input, a share of another sum, or the mean direction of z squared."""
    recording, x, _, centred = seen
    z, table = slow.divided(x, 1e-3, centred), tables(recording)
    energy = (z * z).sum((0, 1))
    channels = table.channels[table.channels["layer"] == "first"]
    np.testing.assert_allclose(channels["z_share"], energy / energy.sum(), rtol=1e-6)
    found = row(recording, "first")
    assert found["z_largest"] == pytest.approx((energy / energy.sum()).max())
    assert found["common"] == pytest.approx(slow.common(z), rel=1e-6)
    assert found["mean_excess"] == pytest.approx(slow.mean_excess(x), rel=1e-6)
    np.testing.assert_allclose(channels["rms_ratio"], np.sqrt(energy) / np.median(np.sqrt(energy)), rtol=1e-6)


def test_dimensions_in_use(seen):
    """Fails if pairs of one sequence or position count, or the square is taken of the mean."""
    recording, x, _, centred = seen
    z = slow.divided(x, 1e-3, centred)
    found = row(recording, "first")
    assert found["dims"] == pytest.approx(slow.dims(z), rel=0.1)


def test_dimensions_around_the_common_direction():
    """Fails if differences are counted once, or the common direction stays in: 4 of 24 directions have equal variance."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(32, 64, 4)) @ np.linalg.qr(rng.normal(size=(C, 4)))[0].T * 0.3 + rng.normal(size=C)
    model = nn.Sequential(nn.RMSNorm(C, eps=1e-12))
    with torch.no_grad(), bnprobe.attach(model) as probe:
        for part in torch.from_numpy(x).split(4):
            model(part.float())
    z = slow.divided(x, 1e-12, False).reshape(-1, C)
    spread = np.linalg.eigvalsh(np.cov(z.T, bias=True))
    expected = spread.sum() ** 2 / (spread**2).sum() / C
    assert row(probe.recording, "0")["dims_centred"] == pytest.approx(expected, rel=0.15)


def test_the_branch_is_what_was_added_to_the_stream(seen):
    """Fails if the norm's own output is taken for the stream, or a ratio for its log."""
    recording, x, middle, _ = seen
    found = row(recording, "second")
    assert found["branch"] == pytest.approx(slow.branch(x, middle), rel=1e-5)
    assert np.isnan(row(recording, "first")["branch"])


def test_what_the_next_layer_reads(seen):
    """Fails if rows of the weight are taken for columns, or γ is left out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.RMSNorm(C), nn.Linear(C, 7))
    model[0].weight.data = torch.linspace(-1, 2, C)
    x = stream()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(x)
    z = slow.divided(x.numpy(), torch.finfo(torch.float32).eps, False)
    read = (model[0].weight.detach().numpy() * np.linalg.norm(model[1].weight.detach().numpy(), axis=0)) ** 2
    read = read * (z * z).sum((0, 1))
    np.testing.assert_allclose(tables(probe.recording).channels["read_share"], read / read.sum(), rtol=1e-5)


def test_other_norms_have_no_tokens():
    """Fails if a batch norm pays for, or shows, numbers of tokens."""
    model = nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)).eval()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(torch.randn(3, 4, 9))
    (record,) = probe.recording.layers
    assert record.tokens is None
    assert np.isnan(row(probe.recording, "1")["token_scale"])
