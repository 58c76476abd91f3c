"""The running statistics of the real ResNet-20, and what the previous norms imply of them: the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm as gaussian

from bnprobe.graph.propagate import implied, reaching
from graph.real import ResNet20, needs_data, same

pytestmark = needs_data
CONTROLS = ("permuted", "constant", "signed", "unpadded")


@pytest.fixture(scope="module")
def net() -> ResNet20:
    return ResNet20.load()


def fit(net: ResNet20, found: dict, name: str = "mean") -> tuple[float, float]:
    """R2 about the mean and root mean square error, in running standard deviations, over all channels together."""
    y = np.concatenate([net[f"{at}.running_mean"] / net.sigma(at) for at in found])
    x = np.concatenate([getattr(one, name) / net.sigma(at) for at, one in found.items()])
    return 1 - ((y - x) ** 2).sum() / ((y - y.mean()) ** 2).sum(), float(np.sqrt(((y - x) ** 2).mean()))


def test_the_running_mean_is_almost_redundant(net):
    """Fails if the prediction inside the blocks, or a control, is not what was measured by other code."""
    assert len(net.inside) == 9
    r2, rmse = fit(net, net.inside)
    assert (round(r2, 3), round(rmse, 3)) == (0.987, 0.072)
    controls = {name: round(fit(net, net.inside, f"mean_{name}")[0], 3) for name in CONTROLS}
    assert controls["constant"] == 0.887
    assert controls["signed"] == 0.927
    assert controls["unpadded"] == 0.960
    # this one depends on the permutation: .67 to .84 over twenty of them
    assert 0.65 < controls["permuted"] < 0.85


def test_by_another_formula_for_the_same_thing(net):
    """Fails if the general count of borders is not the special case of a 3x3 kernel with one zero around."""
    for at, found in net.inside.items():
        block = at.removesuffix(".bn2")
        beta, sd = net[f"{block}.bn1.bias"], np.abs(net[f"{block}.bn1.weight"])
        mean = beta * gaussian.cdf(beta / sd) + sd * gaussian.pdf(beta / sd)
        h = {"1": 32, "2": 16, "3": 8}[at[5]]
        share = np.array([(h - 1) / h, 1, (h - 1) / h])
        weight = (net[f"{block}.conv2.weight"] * np.outer(share, share)).sum(axis=(2, 3))
        np.testing.assert_allclose(found.mean, weight @ mean, atol=1e-12)
        square = (beta**2 + sd**2) * gaussian.cdf(beta / sd) + beta * sd * gaussian.pdf(beta / sd)
        within = ((net[f"{block}.conv2.weight"] ** 2) * np.outer(share, share)).sum(axis=(2, 3)) @ (
            square - mean**2
        )
        assert (found.var > within).all()  # the border makes the mean vary over positions


def test_the_running_variance_is_not_redundant(net):
    """Fails if the variance is predicted: independence gives .41 of it inside, .44 with what borders add."""
    ratio = np.concatenate([one.var / net[f"{at}.running_var"] for at, one in net.inside.items()])
    assert 0.41 < np.median(ratio) < 0.46


def test_a_sum_of_branch_and_skip_implies_the_next_mean_too(net):
    """Fails if moments are lost along the skips: each of the other norms is predicted from all before it."""
    r2, rmse = fit(net, net.between)
    assert r2 > 0.98
    assert rmse < 0.07
    for name in ("permuted", "constant", "unpadded"):  # a sum has no gamma whose sign could be lost
        assert fit(net, net.between, f"mean_{name}")[0] < r2 - 0.005


def test_permuted_weights_are_not_implied(net):
    """Fails if any network would do: the channels of the layer before in another order must predict worse."""
    order = np.random.default_rng(5).permutation(64)
    at = "layer3.1"
    found = implied(
        net[f"{at}.conv2.weight"][:, order], None, same(8), reaching(net.source(f"{at}.bn1", "relu"))
    )
    assert fit(net, {f"{at}.bn2": net.inside[f"{at}.bn2"]})[0] > 0.99
    assert fit(net, {f"{at}.bn2": found})[0] < 0.95
