"""What a file's weights imply for its running statistics, and one factor in all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm as gaussian
from support.paths import DATA
from torch import Tensor, nn

import bnprobe
from bnprobe.checkpoints.predictions import correlation
from bnprobe.models import load_checkpoint
from bnprobe.report.result import Report

DEMO = Path(bnprobe.__file__).parent / "models" / "demo_data" / "digits_mobilenet_v2.safetensors"
REAL = [DEMO, DATA / "cifar_resnet20.th", DATA / "nets" / "version-slim-320.pth"]


def net(state: int = 0, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Convolution, norm, activation, twice, with statistics of Gaussian inputs."""
    torch.manual_seed(state)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.BatchNorm2d(12),
        act(),
        nn.Conv2d(12, 20, 3, bias=True),
        nn.BatchNorm2d(20),
        act(),
    )
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias)
            module.momentum = None
    train(model, 4)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked += 96  # the average of four batches is that of a hundred
    return model


def test_the_correlation_is_that_of_numpy():
    """Fails if channels that are not finite count, means are left in, or what does not vary correlates."""
    rng = np.random.default_rng(0)
    for n, shift in ((12, 0.0), (40, 7.0), (300, -1e3)):
        x, y = rng.normal(shift, 1, (2, n))
        y += 0.5 * x
        x[3], y[5] = np.nan, np.inf
        known = [i for i in range(n) if i not in (3, 5)]
        assert correlation(x, y) == pytest.approx(np.corrcoef(x[known], y[known])[0, 1], abs=1e-12)
        assert correlation(x, 3 - x) == pytest.approx(-1)
        assert correlation(x, np.full(n, 0.5)) == -1
    with np.errstate(over="ignore"):
        assert correlation(1e200 * np.arange(20.0), np.arange(20.0)) == -1


def train(model: nn.Module, n: int) -> None:
    model.train()
    for _ in range(n):
        model(torch.randn(16, 3, 12, 12))


def scaled(state: dict[str, Tensor], mean: float, var: float) -> dict[str, Tensor]:
    factor = {"running_mean": mean, "running_var": var}
    return {k: v * factor.get(k.rpartition(".")[2], 1) for k, v in state.items()}


def found(report: Report) -> list[str]:
    return list(report.findings["says"][report.findings["rule"] == "statistics-scaled"])


@pytest.mark.parametrize("act", [nn.ReLU, nn.Identity])
@pytest.mark.parametrize("sort", [True, False])
def test_the_implied_mean_is_that_of_the_norm_before(act, sort):
    """Fails if the activation, the bias or the sum over the kernel is lost: the closed form, written out again."""
    model = net(act=act)
    state = model.state_dict()
    channels = bnprobe.check(dict(sorted(state.items())) if sort else state).channels
    got = channels["implied_mean"][channels["layer"] == "4"].to_numpy()
    beta, gamma = (v.detach().double().numpy() for v in (model[1].bias, model[1].weight.abs()))
    z = beta / gamma
    handed = beta * gaussian.cdf(z) + gamma * gaussian.pdf(z) if act is nn.ReLU else beta
    kernel = model[3].weight.detach().double().numpy().sum((2, 3))
    np.testing.assert_allclose(got, kernel @ handed + model[3].bias.detach().double().numpy(), rtol=1e-9)
    assert channels["implied_mean"][channels["layer"] == "1"].isna().all()


def test_nothing_is_implied_by_another_norm():
    """Fails if any norm of the right width is taken for the one before: these running means follow none."""
    state = net().state_dict()
    state["4.running_mean"] = state["4.running_mean"].flip(0)
    channels = bnprobe.check(state).channels
    assert channels["implied_mean"].isna().all()


@pytest.mark.parametrize(
    ("mean", "var", "says"),
    [
        (999.98, 999.98, "All running means and variances are off by one common factor of about 1,000."),
        (0.001, 0.001, "All running means and variances are off by one common factor of about 1/1,000."),
        (255, 255**2, "All running means and variances are off"),
        (50, 1, "All running means are off by"),
        (1, 1000, "All running variances are off by"),
    ],
)
def test_one_factor_in_all_statistics_is_seen_without_data(mean, var, says):
    """Fails if a converter's factor passes, or its kind is told wrongly."""
    (said,) = found(bnprobe.check(scaled(net().state_dict(), mean, var)))
    assert said.startswith(says)


def test_the_square_of_a_factor_is_not_caffes():
    """Fails if statistics of inputs of another scale get the remedy of a converter."""
    for mean, var, word in ((999.98, 999.98, "Caffe"), (255, 255**2, "square of the means")):
        findings = bnprobe.check(scaled(net().state_dict(), mean, var)).findings
        (advice,) = findings["do"][findings["rule"] == "statistics-scaled"]
        assert word in advice


@pytest.mark.parametrize(("mean", "var"), [(1, 1), (3, 3), (0.4, 0.4), (1, 20)])
def test_healthy_and_slightly_odd_statistics_are_not_accused(mean, var):
    """Fails if what trained networks do is taken for a factor."""
    assert found(bnprobe.check(scaled(net().state_dict(), mean, var))) == []


def test_an_untrained_network_has_no_factor():
    """Fails if the initial 0 and 1 are compared with anything."""
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 20, 3), nn.BatchNorm2d(20)
    )
    assert found(bnprobe.check(model.state_dict())) == []


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_networks(path):
    """Fails if a real file is accused as it is, or not with Caffe's factor."""
    if not path.exists():
        pytest.skip(f"the folder of real inputs is absent: {DATA}")
    state = load_checkpoint(path)
    assert found(bnprobe.check(state)) == []
    (said,) = found(bnprobe.check(scaled(state, 999.98, 999.98)))
    assert said.startswith("All running means and variances")


def test_a_factor_in_one_norm_is_not_common():
    """Fails if the median of all norms is moved by one, or one norm's own fault is called common."""
    state = load_checkpoint(DEMO)
    one = next(key for key in state if key.endswith("running_mean") and "features.3" in key)
    state[one] = state[one] * 1000
    assert found(bnprobe.check(state)) == []


@pytest.mark.parametrize("n", [1, 3, 10, 40])
@pytest.mark.parametrize("counted", [True, False])
def test_a_network_in_its_first_batches_has_no_factor(n, counted):
    """Fails if running means that are still a tenth of the data's are called scaled, with or without the counter."""
    model = net()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = 0.1
    train(model, n)
    state = model.state_dict()
    if not counted:
        state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert found(bnprobe.check(state)) == []
