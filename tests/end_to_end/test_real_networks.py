"""What is said of a face detector and a segmenter that nobody here wrote, on photographs: every claim is put to the test.

Numbers are counted once more in float64 with plain hooks, and remedies are carried out on a copy whose outputs must change
as the remedy says. Mistakes of preprocessing are planted, and what is said of them must be true of them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from support import real_networks as networks
from support.paths import DATA
from torch import Tensor, nn

import bnprobe
from bnprobe.report.result import Report

FACES, STREETS = networks.FACES, networks.STREETS
NETS = (FACES, STREETS)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}"),
]


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {net: networks.network(net) for net in NETS}


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    """32 photographs as each network's authors prepare them."""
    return {FACES: networks.faces_input(), STREETS: networks.streets_input()}


@pytest.fixture(scope="module")
def reports(models, inputs) -> dict[str, Report]:
    return {net: reported(models[net], inputs[net]) for net in NETS}


@pytest.fixture(scope="module")
def outputs_of_norms(models, inputs) -> dict[str, dict[str, np.ndarray]]:
    """Mean, std and largest output of every norm in float64, shape (3, C), by network and path."""
    return {net: counted(copy.deepcopy(models[net]).double(), inputs[net].double()) for net in NETS}


def reported(model: nn.Module, x: Tensor) -> Report:
    return bnprobe.report(bnprobe.record(model, list(x.split(16))))


def counted(model: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    seen: dict[str, np.ndarray] = {}

    def count(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Tensor, ...], y: Tensor) -> None:
            dims = (0, 2, 3)
            seen[path] = torch.stack([y.mean(dims), y.std(dims, correction=0), y.amax(dims)]).numpy()

        return hook

    for path, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(count(path))
    with torch.no_grad():
        model(x)
    return seen


def found(report: Report, rule: str, words: str = "") -> pd.DataFrame:
    findings = report.findings
    return findings[(findings["rule"] == rule) & findings["says"].str.contains(words)]


def run(advice: str, **names: object) -> dict[str, object]:
    """The code of a remedy, carried out."""
    (code,) = re.findall(r"`([^`]+)`", advice)[-1:]
    space: dict[str, object] = {"torch": torch, **names}
    exec(code, space)
    return space


def output(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


# Sentences


@pytest.mark.parametrize("net", NETS)
def test_the_answer_counts_right(net, models, reports, outputs_of_norms):
    """Fails if a number in the answer is not what the weights and the photographs give."""
    norms = [m for m in models[net].modules() if isinstance(m, nn.BatchNorm2d)]
    gamma = np.concatenate([m.weight.detach().double().numpy() for m in norms])
    near = [int((np.abs(m.weight.detach().double().numpy()) < 0.01).sum()) for m in norms]
    highest = np.concatenate([stats[2] for stats in outputs_of_norms[net].values()])
    text = " ".join(reports[net].answer.split()).replace("\u00a0", " ")
    assert (
        f"A typical |γ| is {np.median(np.abs(gamma)):.2g}; γ is negative in {(gamma < 0).sum()} channels"
        in text
    )
    assert f"{sum(near)} channels in {np.count_nonzero(near)} norms have |γ| below 0.01" in text
    never = int((reports[net].channels["fires"] == 0).sum())
    assert never == int((highest <= 0).sum())
    assert f"{never} of {gamma.size:,} never do" in text


@pytest.mark.parametrize("net", NETS)
def test_outputs_of_channels_with_little_gamma_hardly_vary(net, reports, outputs_of_norms):
    """Fails if a channel is named whose output varies, or the others' γ is not that of the file."""
    rows = found(reports[net], "channels-constant")
    assert len(rows) > 5
    for row in rows.itertuples():
        std = outputs_of_norms[net][row.layer][1]
        assert std[list(row.channels)].max() < 0.03
        assert "hardly vary" in row.says
        assert "whatever the input" not in row.says


def test_little_gamma_is_not_nothing(models, inputs, reports):
    """Fails if the remedy says that no output changes: here one pixel in twenty and more gets another class."""
    model, x = copy.deepcopy(models[STREETS]), inputs[STREETS][:8]
    before = output(model, x)
    for row in found(reports[STREETS], "channels-constant").itertuples():
        model.get_submodule(row.layer).weight.data[list(row.channels)] = 0
        assert "Outputs change slightly" in row.do
        assert "measure before and after" in row.do
    assert (output(model, x).argmax(1) != before.argmax(1)).double().mean() > 0.05


def test_constant_inputs_are_constant_on_photographs(models, reports, outputs_of_norms):
    """Fails if an output called β is another."""
    rows = found(reports[FACES], "variance-below-eps", "constant in training")
    assert len(rows) == 10
    for row in rows.itertuples():
        at = list(row.channels)
        mean, std, _ = outputs_of_norms[FACES][row.layer]
        beta = models[FACES].get_submodule(row.layer).bias.detach().double().numpy()
        np.testing.assert_allclose(mean[at], beta[at], atol=1e-6)
        assert std[at].max() < 1e-6


# Remedies


def test_dead_channels_add_nothing(models, inputs, reports, outputs_of_norms):
    """Fails if a dead channel is positive somewhere, or the weights that read it matter."""
    model, x = copy.deepcopy(models[FACES]), inputs[FACES]
    before = output(model, x)
    rows = found(reports[FACES], "channels-dead")
    assert len(rows) > 10
    for row in rows.itertuples():
        at = list(row.channels)
        assert outputs_of_norms[FACES][row.layer][2][at].max() <= 1e-4
        block, _, place = row.layer.rpartition(".")
        if place == "1" and block != "base_net.0":  # read by the 1 x 1 convolution of its block
            model.get_submodule(f"{block}.3").weight.data[:, at] = 0
    torch.testing.assert_close(output(model, x), before, rtol=0, atol=1e-5)


def test_larger_weights_leave_the_output(models, inputs, reports):
    """Fails if the line for variances below eps changes what the detector outputs, or lifts no variance."""
    rows = found(reports[FACES], "variance-below-eps", "more than the data")
    rows = rows[rows["do"].str.contains("Larger weights")]
    assert "base_net.12.1" in set(rows["layer"])
    for row in rows.itertuples():
        model, x = copy.deepcopy(models[FACES]), inputs[FACES][:4]
        before = output(model, x)
        run(row.do, model=model)
        torch.testing.assert_close(output(model, x), before, rtol=1e-3, atol=1e-4)
        var = model.get_submodule(row.layer).running_var[list(row.channels)]
        assert var.min() > 100 * 1e-5, "well clear of eps"


# Planted mistakes


@pytest.mark.parametrize(
    "mistake", [lambda x: x * 128 + 127, lambda x: x * 128], ids=["0 to 255", "mean subtracted only"]
)
def test_pixels_that_were_not_scaled(mistake, models, inputs):
    """Fails if the first norm is not blamed, or the line that undoes it leaves the mistake in."""
    report = reported(models[FACES], mistake(inputs[FACES]))
    (row,) = found(report, "input-not-as-trained").itertuples()
    assert (row.severity, row.layer) == ("critical", "base_net.0.1")
    assert "0 to 255" in row.says
    mended = run(row.do, x=mistake(inputs[FACES]))["x"]
    assert isinstance(mended, Tensor)
    assert found(reported(models[FACES], mended), "input-not-as-trained").empty
    for other in found(report, "channels-shifted").itertuples():
        assert other.do.startswith("Inputs already differ at")


@pytest.mark.parametrize("mistake", [lambda x: x * 255, lambda x: x + 0.005], ids=["gain", "mean"])
def test_inputs_that_eps_hides_are_not_cleared(mistake, models, inputs):
    """Fails if the segmenter's first norm, which eps rules, is said to show that the preprocessing is right."""
    rows = found(reported(models[STREETS], mistake(inputs[STREETS])), "data-shifted")
    assert len(rows)
    assert not rows["do"].str.contains("Inputs still match at encoder.level1.bn").any()
    assert rows["do"].iloc[0].startswith("Check the preprocessing first")
