"""Pooled and mixed statistics against float64 arithmetic on all values, and against the copies that get them wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from bnprobe.experiments.mixing import Statistics, mixed, weight_of
from bnprobe.experiments.recalibrate import recalibrate


def uneven_batches(sizes: tuple[int, ...] = (7, 40, 3, 25), n_channels: int = 5) -> list[Tensor]:
    """Batches of several sizes, each about a place of its own, far from 0 and skewed."""
    g = torch.Generator().manual_seed(3)
    scale = torch.tensor([1.0, 10.0, 0.1, 3.0, 2.0])[:n_channels]
    return [(torch.randn(n, n_channels, generator=g).exp() + 2 * i + 5) * scale for i, n in enumerate(sizes)]


def renewed(model: nn.Module, batches: list[Tensor], **options: object) -> tuple[np.ndarray, np.ndarray]:
    """The statistics that the plan's only norm would get."""
    plan = recalibrate(model, batches, **options)  # type: ignore[arg-type]
    return plan.channels["mean_after"].to_numpy(), plan.channels["var_after"].to_numpy()


def norm_of(n_channels: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(n_channels)).eval()


def test_uneven_batches_pool_to_the_statistics_of_all_values() -> None:
    """Fails if batches count alike, or if the variance of the batch means is left out."""
    batches = uneven_batches()
    mean, var = renewed(norm_of(), batches)
    x = torch.cat(batches).double().numpy()
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, x.var(0, ddof=1), rtol=1e-6)


def test_torchs_update_bn_leaves_out_the_variance_of_the_batch_means() -> None:
    """Its arithmetic, run for real, differs from the variance of all values; ours agrees with that."""
    batches = uneven_batches()
    theirs = nn.Sequential(nn.BatchNorm1d(5))
    update_bn(batches, theirs)
    x = torch.cat(batches).double().numpy()
    _, ours = renewed(norm_of(), batches)
    np.testing.assert_allclose(ours, x.var(0, ddof=1), rtol=1e-6)
    short = theirs[0].running_var.double().numpy() / x.var(0, ddof=1)
    assert (short < 0.8).all()


@pytest.mark.parametrize(
    "pooled_by",
    [
        pytest.param(lambda parts: np.mean([p.var(0, ddof=1) for p in parts], axis=0), id="aimet"),
        pytest.param(
            lambda parts: np.mean([p.var(0, ddof=0) for p in parts], axis=0), id="timm-distribute-bn"
        ),
        pytest.param(  # Transformer Engine's merge subtracts what it should add
            lambda parts: (
                np.mean([p.var(0) for p in parts], axis=0) - np.var([p.mean(0) for p in parts], axis=0)
            ),
            id="transformer-engine",
        ),
    ],
)
def test_other_ways_to_pool_are_off(pooled_by) -> None:  # type: ignore[no-untyped-def]
    """Each is the arithmetic of another tool, on the same batches."""
    batches = uneven_batches()
    _, ours = renewed(norm_of(), batches)
    theirs = pooled_by([b.double().numpy() for b in batches])
    assert (np.abs(theirs / ours - 1) > 0.1).all()


def test_a_module_used_twice_pools_both_calls() -> None:
    """Fails if only one call counts; fvcore refuses such a module."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            self.norm(x)
            return self.norm(3 * x + 1)

    batches = uneven_batches(n_channels=4)
    mean, var = renewed(Twice().eval(), batches)
    x = torch.cat(batches).double().numpy()
    both = np.concatenate([x, 3 * x + 1])
    np.testing.assert_allclose(mean, both.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, both.var(0, ddof=1), rtol=1e-5)


def test_an_instance_norm_gets_the_variance_within_samples() -> None:
    """Its running variance is the mean over samples of their own variances, not that of all values."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, 5, 5, generator=g) + 4 * torch.randn(12, 3, 1, 1, generator=g)
    model = nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)).eval()
    mean, var = renewed(model, [x[:5], x[5:]])
    values = x.double().numpy()
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(var, values.reshape(12, 3, 25).var(2, ddof=1).mean(0), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_mixture_has_the_variance_of_both_populations_together(alpha: float) -> None:
    """Fails without alpha (1 - alpha) (difference of the means)²."""
    rng = np.random.default_rng(0)
    old, new = rng.normal(0, 1, (100_000, 2)), rng.normal([3, -1], [2, 0.5], (100_000, 2))
    k = round(alpha * 100_000)
    together = np.concatenate([old[k:], new[:k]])
    exact = mixed(
        Statistics(old.mean(0), old.var(0)), Statistics(new.mean(0), new.var(0)), alpha, ("mean", "var")
    )
    np.testing.assert_allclose(exact.mean, together.mean(0), atol=0.02)
    np.testing.assert_allclose(exact.var, together.var(0), rtol=0.02)


def test_what_is_not_renewed_stays() -> None:
    """Fails if "var" alone moves the mean, or counts the distance of means that are not mixed."""
    old, new = Statistics(np.array([0.0]), np.array([1.0])), Statistics(np.array([5.0]), np.array([3.0]))
    assert mixed(old, new, 0.5, ("var",)) == (0.0, 2.0)
    assert mixed(old, new, 0.5, ("mean",)) == (2.5, 1.0)


def test_the_prior_counts_as_samples() -> None:
    """16 samples against a prior of 48 weigh a quarter (Schneider et al. 2020)."""
    assert weight_of(16, 48) == 0.25
    batches = uneven_batches((10, 6))
    model = norm_of()
    mean, _ = renewed(model, batches, prior=48)
    np.testing.assert_allclose(mean, 0.25 * torch.cat(batches).double().numpy().mean(0), rtol=1e-6)


def test_layer_after_layer_is_one_pass_over_everything_as_one_batch() -> None:
    """The two ways agree when the whole data are one batch; in small batches only layer after layer stays there.

    A batch is normalized by its population variance and a running variance is the unbiased one: n / (n - 1) is left over.
    """
    g = torch.Generator().manual_seed(1)
    model = (
        nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 4),
            nn.BatchNorm1d(4),
            nn.ReLU(),
            nn.Linear(4, 2),
        )
        .double()
        .eval()
    )
    x = 2 * torch.randn(6000, 6, generator=g, dtype=torch.float64) + 1
    whole = recalibrate(model, [x]).channels
    batches = list(x.split([7, 13] * 300))
    pooled = recalibrate(model, batches).channels
    exact = recalibrate(model, batches, layer_by_layer=True).channels
    for column in ("mean_after", "var_after"):
        np.testing.assert_allclose(exact[column], whole[column], rtol=1e-3)
    deep = whole["layer"] == "4"
    off = np.abs(pooled.loc[deep, "var_after"] / whole.loc[deep, "var_after"] - 1)
    assert off.max() > 0.02
