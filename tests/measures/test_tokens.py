"""What norms over channels do to tokens: every number against numpy, one token after another."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from support import tokens as slow
from torch import Tensor, nn

import bnprobe
from bnprobe.measures import tables
from bnprobe.measures.tokens import channel_columns, first_position, layer_columns, scale_by_position
from bnprobe.recording import Recording
from bnprobe.recording.neighbours import Neighbours
from bnprobe.stats.tokens import N_BUCKETS, N_SCALES, SCALES, TokenStats
from measures.sites import site

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


def test_a_norm_of_the_class_token_alone_has_no_branch():
    """Fails if its tokens are compared with all of those of the stream before it, which raised in the user's pass."""

    class Classifier(Block):
        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attention(self.first(x))
            return self.mlp(self.second(x[:, 0]))

    model = Classifier(nn.LayerNorm).eval()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(stream())
    assert np.isnan(row(probe.recording, "second")["branch"])
    assert row(probe.recording, "second")["n_tokens"] == N


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


def sums(**changes: Any) -> TokenStats:
    """Sums over 8 tokens of 3 channels, each number of its own."""
    scales = np.zeros(N_SCALES)
    scales[[256, 264, 280, 300]] = [1, 5, 1, 1]
    n, log_sum, log_square = np.zeros(N_BUCKETS), np.zeros(N_BUCKETS), np.zeros(N_BUCKETS)
    n[:3], log_sum[:3], log_square[:3] = [1, 2, 5], [3.0, 1.0, 4.0], [9.0, 2.0, 6.0]
    fields: dict[str, Any] = {
        "n": n,
        "log_sum": log_sum,
        "log_square": log_square,
        "scales": scales,
        "z_sum": np.array([2.0, -1.0, 0.5]),
        "z_square": np.array([1.0, 9.0, 6.0]),
        "mean_share": np.array([2.0]),
        "n_sequences": np.array([2.0]),
        "pairs": np.array([4.0, 24.0]),
        "centred_pairs": np.array([3.0, 30.0]),
        "branch": np.array([4.0, -6.0, 11.0, 3.0]),
        "loudest": np.array([[50.0, 1, 7, -1, 2, 0.75], [3.0, 0, 4, -1, 1, 0.25]]),
    }
    return TokenStats(**{**fields, **changes})


ROWS = np.random.default_rng(0).normal(size=(4, 3, 5))


def columns(tokens: TokenStats | None = None, **changes: Any) -> dict[str, float]:
    record = site(ROWS, kind="rms_norm", eps=0.25, tokens=sums() if tokens is None else tokens, **changes)
    return layer_columns(record)


def test_every_number_of_a_layer_by_hand() -> None:
    """Fails if a sum is divided by another count, a field stands for another, or a power is off."""
    found = columns()
    median = SCALES[264]
    expected = {
        "n_tokens": 8,
        "token_scale": median,
        "token_scale_low": SCALES[256],
        "token_scale_high": SCALES[300],
        "loudest_token": 50 / median,
        "loudest_position": 7,
        "loudest_channel": 2,
        "loudest_channel_share": 0.75,
        "loud_share": 1 / 8,  # only 2^(36/8) times the median is more than five times it
        "first_token_scale": math.exp(3.0) / median,
        "z_largest": 9 / 16,
        "mean_excess": 3 * 2 / 8,
        "common": (4 + 1 + 0.25) / 64 / 3,
        "dims": 9 * 4 / 24,
        "dims_centred": 3 * (1 - 5.25 / 192) ** 2 * 4 * 3 / 30,
        "branch": math.exp(-6 / 4),
        "branch_cosine": 3 / 4,
        "token_eps_share": 0.25 / median**2,
        "bare_head": 0.0,
    }
    # of 8 tokens with a mean log of 1: 1 · 2², 2 · (-1/2)², 5 · (-1/5)² of the variance 17 - 8
    expected["position_share"] = (4 + 0.5 + 0.2) / (17 - 8)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bucket", "position"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 8), (23, 2**22), (24, 2**23), (30, 2**23)]
)
def test_the_first_position_of_a_bucket(bucket: int, position: int) -> None:
    """Fails if a bucket begins elsewhere than at a power of two."""
    assert first_position(bucket) == position


def test_what_tokens_do_not_tell_is_nan() -> None:
    """Fails if no pair, no branch or no known position gives a number, or one token is none."""
    nothing = columns(
        sums(pairs=np.zeros(2), centred_pairs=np.zeros(2), branch=np.zeros(4), n=np.zeros(N_BUCKETS))
    )
    for name in ("dims", "dims_centred", "branch", "branch_cosine", "position_share", "first_token_scale"):
        assert np.isnan(nothing[name]), name
    n = np.zeros(N_BUCKETS)
    n[0] = 1
    assert np.isnan(columns(sums(n=n))["position_share"]), "of one position"
    n[1] = 1
    log_sum, log_square = np.zeros(N_BUCKETS), np.zeros(N_BUCKETS)
    log_sum[:2], log_square[:2] = [1.0, 3.0], [1.0, 9.0]
    assert columns(sums(n=n, log_sum=log_sum, log_square=log_square))["position_share"] == pytest.approx(1.0)
    empty = columns(TokenStats.empty(3))
    assert {name for name, value in empty.items() if not np.isnan(value)} == {"bare_head"}


def test_a_head_without_a_norm_before_it_is_told() -> None:
    """Fails if the head of another norm counts, or is lost without tokens."""
    bare = Neighbours("none", bare_head=True)
    assert columns(neighbours=bare)["bare_head"] == 1.0
    assert columns(TokenStats.empty(3), neighbours=bare)["bare_head"] == 1.0
    assert columns(neighbours=Neighbours("none"))["bare_head"] == 0.0


@pytest.mark.parametrize(
    ("gamma", "reads", "expected"),
    [
        (None, [1.0, 1.0, 1.0], [1 / 16, 9 / 16, 6 / 16]),
        ([2.0, -1.0, 0.0], [1.0, 2.0, 3.0], [4 / 40, 36 / 40, 0.0]),
        ([1.0, 1.0, 1.0], None, [np.nan] * 3),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [np.nan] * 3),
    ],
)
def test_what_is_read_of_each_channel_by_hand(
    gamma: list[float] | None, reads: list[float] | None, expected: list[float]
) -> None:
    """Fails if γ or the weights are not squared, or one of the three is left out."""
    weights = None if reads is None else np.array(reads)
    record = site(
        ROWS, kind="rms_norm", gamma=gamma, tokens=sums(), neighbours=Neighbours("linear", reads=weights)
    )
    found = channel_columns(record)
    np.testing.assert_allclose(found["read_share"], expected)
    np.testing.assert_allclose(found["z_share"], [1 / 16, 9 / 16, 6 / 16])
    empty = channel_columns(site(ROWS, kind="rms_norm", tokens=TokenStats.empty(3)))
    assert np.isnan([*empty["read_share"], *empty["z_share"]]).all()
