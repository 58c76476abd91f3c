"""Variances below eps: fires where eps counts, says whether inputs or a buffer are at fault, and what helps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from measures.sites import site
from torch import nn

import bnprobe
from bnprobe.rules.edits import Recalibrate, Remedy, Rescale, SetAttribute
from rules.edited import edited, evidence, findings, healthy
from rules.firing import fired
from rules.stored import ONE, ROWS, STATISTICS, at, stored, wired


def test_inputs_that_never_varied_are_constant_and_no_matter_of_eps():
    """Fails if the smallest number of float32, where × 0.9 stops, is told as an eps that is too large."""
    floor, batches = np.float32(1.0), 0
    while floor != np.float32(0.9) * floor:
        floor, batches = np.float32(0.9) * floor, batches + 1
    assert floor == np.float32(5.6e-45)
    (row,) = fired("variance-below-eps", stored(running_var=at(float(floor), 1.0, 0, 3))).itertuples()
    assert (row.severity, row.channels) == ("info", (0, 3))
    assert "were constant in training" in row.says
    assert "1,000 batches" in row.because
    assert round(batches, -3) == 1000


def test_a_variance_of_exactly_0_beside_others_is_that_of_a_constant():
    """Fails if TensorFlow's zeros become an eps that is too large, or a buffer that was zeroed as a whole constant inputs.

    Of float32 times 0.99 the last steps are flushed to 0 on the hardware of some: efficientnet_lite0 has 53 such channels.
    """
    (row,) = fired("variance-below-eps", stored(running_var=at(0.0, 1.0, 0, 3))).itertuples()
    assert (row.severity, row.channels) == ("info", (0, 3))
    assert "were constant in training" in row.says
    assert "exactly 0 in 2 of 8 channels" in row.because
    assert fired("variance-below-eps", stored(running_var=0 * ONE)).empty


@pytest.mark.parametrize(
    ("running_var", "eps", "severity"),
    [
        (at(3e-6, 1.0, 0, 3), 1e-5, "info"),
        (3e-6 * ONE, 1e-5, "warning"),
        (at(3e-6, 1.0, 0, 3), 1e-3, "warning"),
    ],
    ids=["some", "all", "another eps"],
)
def test_small_variances_of_some_channels_are_a_fact(running_var: Any, eps: float, severity: str) -> None:
    """Fails if a network that was trained with the usual eps is warned of it, as the real mobilenet_v2 would be."""
    assert list(fired("variance-below-eps", stored(running_var=running_var, eps=eps))["severity"]) == [
        severity
    ]


@pytest.mark.parametrize(
    ("own", "following", "severity"), [(0.1, 0.6, "warning"), (0.1, 0.4, "info"), (0.6, 0.7, "info")]
)
def test_small_variances_before_a_norm_that_is_off_are_a_warning(
    own: float, following: float, severity: str
) -> None:
    """Fails if weights that were divided by 255 after training pass for those of training."""
    two = evidence(healthy("a"), healthy("b"))
    small = edited(two, {"running_var": [3e-6, 1.0, 1.0], "pre_var": 3e-6}, eps=1e-5, discrepancy=own)
    (one,) = findings("variance-below-eps", edited(small, at=1, discrepancy=following))
    assert one.severity == severity


def test_what_is_said_of_constant_inputs_holds_for_a_layer():
    """Fails if the output is called β whatever comes in: an input that does vary is amplified by |γ| / √eps."""
    norm = nn.BatchNorm2d(2)
    norm.running_var[0], norm.bias.data[0], norm.weight.data[0] = 5.6e-45, 0.3, 0.5
    norm.eval()
    assert norm(torch.zeros(1, 2, 1, 1))[0, 0].item() == pytest.approx(0.3)
    assert norm(torch.full((1, 2, 1, 1), 0.1))[0, 0].item() == pytest.approx(
        0.3 + 0.1 * 0.5 / 1e-5**0.5, rel=1e-5
    )
    (do,) = bnprobe.check(norm_in_a_file(norm)).findings.query("rule == 'variance-below-eps'")["do"]
    assert "amplified there by up to |γ| / √eps" in do


def norm_in_a_file(norm: nn.BatchNorm2d) -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(3, 2, 3), norm).state_dict()


def test_larger_weights_are_advised_only_where_they_help_all():
    """Fails if a factor below 1, or one that leaves a variance below eps, is said to lift it well clear."""
    fields = {"gamma": 1.5, "eps": 1e-5, "neighbours": wired(ONE)}
    low = fired("variance-below-eps", stored(running_var=np.geomspace(1e-6, 9e-6, 8), **fields))
    assert "Larger weights" in low["do"].iloc[0]
    for var in (at(1e-9, 1.0, 0), at(1e-6, 1e-2, 0)):
        (do,) = fired("variance-below-eps", stored(running_var=var, **fields))["do"]
        assert "Larger weights" not in do
        assert "Scaling the weights up cannot help all of them" in do


def test_larger_weights_with_a_corrected_gamma_leave_the_output():
    """Fails if the advice changes the output where eps counts, which is wherever this rule speaks."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
    with torch.no_grad():
        conv.weight.mul_(2e-3)
        norm.weight.uniform_(0.5, 2)
    model = nn.Sequential(conv, norm)
    x = torch.randn(64, 3, 8, 8)
    model.train()
    for _ in range(200):
        model(x)
    model.eval()
    before = model(x)
    report = bnprobe.report(bnprobe.record(model, [x]))
    (do,) = report.findings.loc[report.findings["rule"] == "variance-below-eps", "do"]
    assert "corrected for eps" in do
    exec(do.split("`")[1], {"model": model, "torch": torch})
    assert float(norm.running_var.median()) > 0.5
    torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-4)


def test_eps_matters_to_live_channels_only():
    """Fails if a dead channel is named, or eps is taken from elsewhere."""
    var = at(1e-4, 1.0, 0, 1)
    record = stored(gamma=at(1e-3, 1.0, 1), running_var=var, eps=1e-3)
    found = fired("variance-below-eps", record)
    assert found["channels"].iloc[0] == (0,)
    assert fired("variance-below-eps", stored(running_var=var, eps=1e-5)).empty
    assert fired("variance-below-eps", stored(running_var=at(-1, 1.0, 0))).empty


def test_a_variance_that_was_lost_is_not_blamed_on_the_inputs():
    """Fails if a buffer of zeros sends the user to weights whose outputs vary."""
    fields = {"gamma": 1.5, "beta": 0.1, **STATISTICS}
    fields["running_var"] = np.where(np.arange(8) < 3, 0.0, fields["running_var"])
    (row,) = fired("variance-below-eps", site(ROWS, **fields)).itertuples()
    assert (row.severity, row.channels) == ("warning", (0, 1, 2))
    assert "while these data vary" in row.says
    assert "update_bn" in row.do
    still = ROWS * np.where(np.arange(8) < 3, 1e-4, 1.0)[:, None]
    (row,) = fired("variance-below-eps", site(still, **fields)).itertuples()
    assert "Their inputs hardly vary" in row.do


@pytest.mark.parametrize("kind", ["layer_norm", "group_norm", "rms_norm"])
@pytest.mark.parametrize(("size", "fires"), [(0.8, True), (1.5, False)])
def test_eps_against_what_a_norm_of_one_image_divides_by(kind, size, fires):
    """Fails if an eps larger than the variance of most images passes, or one that is smaller does not."""
    rows = np.random.default_rng(0).normal(size=(40, 8, 30)) * size
    found = fired("variance-below-eps", site(rows, kind=kind, gamma=1.5, beta=0.1, eps=1.0))
    assert len(found) == fires
    if fires:
        assert found["says"][0].endswith("it hardly normalizes.")
        assert ".eps = 1e-05`" in found["do"][0]


@pytest.mark.parametrize(
    ("own_sd", "eps", "advice"),
    [(1e-3, 1e-3, "eps = 1e-05"), (1e-3, 1e-5, "weights"), (1e-3, 1.1e-5, "eps = 1e-05")],
)
def test_an_eps_larger_than_usual_is_named(own_sd: float, eps: float, advice: str) -> None:
    """Fails if torch's own eps is called too large, or a larger one is not."""
    (one,) = findings("variance-below-eps", edited(evidence(), own_sd=own_sd, eps=eps))
    assert advice in one.do
    assert (advice == "weights") == (".eps = " not in one.do)


def test_inputs_that_vary_are_told_from_those_that_hardly_do() -> None:
    """Fails if a hundred times eps is not the limit between a lost buffer and inputs too small."""
    row, cells = {"eps": 1e-3}, {"running_var": [0.0, 1.0, 1.0], "gamma": 1.0}
    (flat,) = findings("variance-below-eps", edited(evidence(), {**cells, "pre_var": [0.1, 9, 9]}, **row))
    more = [float(np.nextafter(0.1, 1)), 9, 9]
    (lost,) = findings("variance-below-eps", edited(evidence(), {**cells, "pre_var": more}, **row))
    assert flat.channels == lost.channels == (0,)
    assert flat.says != lost.says
    # of a buffer that was lost the advice is to make it again, and the variance of the inputs is named
    assert "0.1" in lost.because
    assert "update_bn" in lost.do
    assert "update_bn" not in flat.do


@pytest.mark.parametrize(
    ("gamma", "larger"),
    [(1.0, True), ([np.nan, 1.0, 1.0], False), (np.nan, False)],
    ids=["all", "some", "none"],
)
def test_larger_weights_need_a_scale_in_every_channel(gamma: float | list[float], larger: bool) -> None:
    """Fails if γ is to be corrected in a channel that has none."""
    small = edited(
        evidence(), {"running_var": 3e-6, "pre_var": 3e-6, "gamma": gamma}, eps=1e-5, feeder="conv"
    )
    (one,) = findings("variance-below-eps", small)
    assert ("Larger weights" in one.do) is larger
    assert ("Check the preceding weights." in one.do) is not larger


def test_a_variance_on_its_way_to_0_behind_filters_of_0_is_that_of_a_constant() -> None:
    """Fails if channels that were pruned and trained on are told as an eps that is too large."""
    fading = at(3e-8, 1.0, 0, 3)
    pruned = stored(running_var=fading, gamma=1.5, neighbours=wired(at(0.0, 1.0, 0, 3)))
    (row,) = fired("variance-below-eps", pruned).itertuples()
    assert (row.severity, row.channels) == ("info", (0, 3))
    assert row.because == "the filters in conv1 (by name) are all 0 for 2 of 8 channels."
    (row,) = fired(
        "variance-below-eps", stored(running_var=fading, gamma=1.5, neighbours=wired(ONE))
    ).itertuples()
    assert (row.says.startswith("eps"), row.channels) == (True, (0, 3))


RULE = "variance-below-eps"
SMALL = {"running_var": [4e-6, 8e-6, 1.0], "pre_var": 0.0, "gamma": 1.0}
USUAL = Remedy((SetAttribute("bn", "eps", 1e-5),))


@pytest.mark.parametrize(
    ("cells", "row", "severity", "says", "because", "do", "remedy"),
    [
        (
            {},
            {},
            "info",
            "sets the scale of some channels.",
            "running_var < eps = 1e-05 in 2 of 3 channels (smallest 4e-06), and |γ| ≥ 0.01.",
            "Check the preceding weights.",
            None,
        ),
        (
            {},
            {"eps_assumed": True},
            "info",
            "sets the scale of some channels, if eps is 1e-05 as assumed.",
            "running_var < an assumed eps = 1e-05 in 2 of 3 channels",
            "Check the preceding weights.",
            None,
        ),
        (
            {"running_var": [4e-6, 8e-6, 9e-6]},
            {"feeder": "conv"},
            "warning",
            "sets the scale of all channels.",
            "in 3 of 3 channels (smallest 4e-06)",
            "Larger weights, with γ corrected for eps, give the same output",
            Remedy((Rescale("conv", "bn", 8e-6**-0.5, with_gamma=True),)),
        ),
        (
            {"running_var": [4e-6, 8e-6, 9e-6]},
            {"feeder": "conv", "eps_assumed": True},
            "warning",
            "as assumed.",
            "in 3 of 3 channels",
            "Larger weights, with γ corrected for eps (assumed here), give",
            Remedy((Rescale("conv", "bn", 8e-6**-0.5, with_gamma=True),)),
        ),
        (
            {"running_var": [1e-6, 0.5, 0.6], "pre_var": 0.0},
            {"feeder": "conv"},
            "info",
            "some channels.",
            "in 1 of 3 channels (smallest 1e-06)",
            "Scaling the weights up cannot help all of them",
            None,
        ),
        (
            {"running_var": [1.0, 2e-3, 1.0]},
            {"eps": 5e-3, "feeder": "conv"},
            "warning",
            "some channels.",
            "running_var < eps = 0.005 in 1 of 3 channels (smallest 0.002)",
            "Only if training used 1e-05, as is usual",
            USUAL,
        ),
        (
            {"pre_var": [0.002, 0.004, 1.0]},
            {},
            "warning",
            "sets the scale of some channels: their running variance is almost 0, while these data vary.",
            "in 2 of 3 channels (smallest 4e-06), and their inputs have a typical variance of 0.003.",
            "The buffer was set to 0",
            Remedy((Recalibrate(),)),
        ),
        (
            {"gamma": [0.009, 0.01, 1.0]},
            {},
            "info",
            "some channels.",
            "in 1 of 3 channels (smallest 8e-06)",
            "Check",
            None,
        ),
        (
            {"gamma": [0.009, -0.01, 1.0]},
            {},
            "info",
            "some channels.",
            "in 1 of 3 channels (smallest 8e-06)",
            "Check",
            None,
        ),
        (
            {"gamma": math.nan},
            {},
            "info",
            "some channels.",
            "in 2 of 3 channels (smallest 4e-06)",
            "Check",
            None,
        ),
        (
            {"running_var": [1e-5, 8e-6, 1.0]},
            {},
            "info",
            "some channels.",
            "in 1 of 3 channels (smallest 8e-06)",
            "Check",
            None,
        ),
    ],
)
def test_what_is_said_of_variances_below_eps(
    cells: dict[str, Any],
    row: dict[str, Any],
    severity: str,
    says: str,
    because: str,
    do: str,
    remedy: Remedy | None,
) -> None:
    """Fails if channels that are counted are not those named, or the remedy is that of another case."""
    (one,) = findings(RULE, edited(evidence(), {**SMALL, **cells}, **{"eps": 1e-5, "feeder": "", **row}))
    assert one.severity == severity
    assert one.says.endswith(says)
    assert because in one.because
    assert do in one.do
    if remedy and isinstance(remedy.edits[0], Rescale):
        assert one.remedy is not None
        (edit,) = one.remedy.edits
        assert isinstance(edit, Rescale)
        assert edit.factor == pytest.approx(remedy.edits[0].factor, rel=1e-9)
        assert (edit.producer, edit.layer, edit.with_gamma, edit.with_eps) == ("conv", "bn", True, False)
    else:
        assert one.remedy == remedy


@pytest.mark.parametrize(
    ("var", "momentum", "because"),
    [
        # ln(1e35) is 80.6; divided by -ln(0.9), 0.1054, it is 765
        ([1e-35, 1.0, 1.0], 0.1, "running_var is 1e-35 in 1 of 3 channels: with momentum 0.1 it takes about 800 batches"),
        ([1e-36, 1e-35, 1.0], 0.1, "running_var is at most 1e-35 in 2 of 3 channels: with momentum 0.1 it takes about 800"),
        ([1e-35, 1.0, 1.0], 0.5, "running_var is 1e-35 in 1 of 3 channels: with momentum 0.5 it takes about 100 batches"),
        ([1e-35, 1.0, 1.0], math.nan, "running_var is 1e-35 in 1 of 3 channels: with momentum 0.1 it takes about 800"),
        ([1e-35, 1.0, 1.0], 1.0, "running_var is 1e-35 in 1 of 3 channels: with momentum 0.1 it takes about 800"),
        ([0.0, 0.0, 1.0], 0.1, "running_var is exactly 0 in 2 of 3 channels: no variance in any of the last batches"),
    ],
)  # fmt: skip
def test_how_long_a_variance_takes_to_vanish(var: list[float], momentum: float, because: str) -> None:
    """Fails if the count is not ln(1/var) / -ln(1 - m), or a momentum that is none is taken."""
    base = edited(evidence(), {"running_var": var, "pre_var": 0.0, "gamma": 1.0}, momentum=momentum)
    (one,) = findings(RULE, base)
    assert one.because.startswith(because)
    assert one.says.startswith("The inputs of some channels were constant in training")


@pytest.mark.parametrize(
    ("beta", "says", "do", "not_do"),
    [
        (0.1, "the output is β.", "|γ| / √eps.", "Remove them"),
        ([0.1, math.nan, 0.1], "the output is β.", "|γ| / √eps.", "Remove them"),
        ([math.nan, 0.1, 0.1], "the output is β.", "|γ| / √eps.", "Remove them"),
        (math.nan, "the output is 0.", "|γ| / √eps, γ being 1.", "bias"),
    ],
)
def test_what_constant_inputs_give(beta: float | list[float], says: str, do: str, not_do: str) -> None:
    """Fails if a β that is not there is the output, or one that is there is not."""
    cells = {"running_var": [0.0, 1.0, 1.0], "pre_var": 0.0, "gamma": 1.0, "beta": beta}
    (one,) = findings(RULE, edited(evidence(), cells))
    assert one.says.endswith(says)
    assert one.do.endswith(do)
    assert not_do not in one.do


@pytest.mark.parametrize(
    ("own_sd", "eps", "told"),
    [
        (
            0.1,
            0.00501,
            "it typically divides by 0.1, and by √eps = 0.0708 for inputs of 0 (eps = 0.00501, threshold",
        ),
        (0.1, 0.00499, None),
        (math.nan, 1.0, None),
    ],
)
def test_a_norm_that_divides_by_little_but_eps(own_sd: float, eps: float, told: str | None) -> None:
    """Fails if half of the squared divisor is not the limit, or √eps is told as eps."""
    found = findings(RULE, edited(evidence(), {"running_var": math.nan}, own_sd=own_sd, eps=eps))
    assert len(found) == (told is not None)
    for one in found:
        assert (one.severity, one.remedy) == ("warning", USUAL)
        assert one.because.startswith(str(told))


@pytest.mark.parametrize(("eps", "severity"), [(1e-5, "info"), (1.1e-5, "warning")])
def test_a_new_network_may_feed_little(eps: float, severity: str) -> None:
    """Fails if a new network is warned of torch's own eps, or not of a larger one."""
    new = edited(
        evidence(),
        {"gamma": 1.0, "beta": 0.0, "running_mean": math.nan, "running_var": math.nan},
        own_sd=1e-3,
        eps=eps,
    )
    assert new.is_new
    assert [one.severity for one in findings(RULE, new)] == [severity]


@pytest.mark.parametrize(
    ("learning", "gamma", "eps", "severity"),
    [
        (50, [0.95, 1.0, 1.09], 1e-5, "info"),
        (50, [0.95, 1.0, 1.11], 1e-5, "warning"),
        (0, [0.95, 1.0, 1.09], 1e-5, "warning"),
        (50, [0.95, 1.0, 1.09], 1e-3, "warning"),
    ],
    ids=["first steps", "trained", "not learning", "another eps"],
)
def test_small_inputs_in_the_first_steps_of_training_are_a_fact(
    learning: int, gamma: list[float], eps: float, severity: str
) -> None:
    """Fails if norms after branches, as in OLMo 2, are warned of small initial weights while these grow."""
    cells = {"gamma": gamma, "beta": math.nan, "running_mean": math.nan, "running_var": math.nan}
    new = edited(evidence(), cells, own_sd=1e-3, eps=eps, n_calls_learning=learning)
    assert not new.is_new
    assert [one.severity for one in findings(RULE, new)] == [severity]


def test_variances_that_are_all_0_were_set_so() -> None:
    """Fails if a buffer of zeros is taken for inputs that never varied, where these data do not vary either."""
    cells = {"running_var": 0.0, "pre_var": 0.0, "gamma": 1.0}
    assert not [
        one for one in findings(RULE, edited(evidence(), cells)) if "were constant in training" in one.says
    ]
    one_varies = {**cells, "running_var": [0.0, 0.0, 1.0]}
    assert any(
        "were constant in training" in one.says for one in findings(RULE, edited(evidence(), one_varies))
    )


def test_inputs_that_were_constant_in_training_are_not_a_lost_buffer() -> None:
    """Fails if a category that training did not hold is a buffer to be restored, where no weights were seen before."""
    cells = {"running_var": [1e-9, 4.0, 4.0], "pre_var": [0.2, 4.0, 4.0]}
    for follows, says in (
        ("linear", "constant in training vary here"),
        ("unknown", "running variance is almost 0"),
    ):
        found = findings("variance-below-eps", edited(evidence(healthy()), cells, follows=follows, feeder=""))
        assert [one.channels for one in found] == [(0,)]
        assert says in found[0].says
