"""Home-made norms: what gives their output is named, with what remains; and what does not, is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.probe.calls import alternatives
from bnprobe.recording import LayerRecord

B, T, C = 6, 9, 16
RULE = "more-than-a-norm"


def normalized(
    x: Tensor, dims: tuple[int, ...] = (-1,), eps: float = 1e-5, beside: bool = False, unbiased: bool = False
) -> Tensor:
    """The formula, over these dimensions of (samples, positions, channels)."""
    mean, var = x.mean(dims, keepdim=True), x.var(dims, keepdim=True, unbiased=unbiased)
    return (x - mean) / (var.sqrt() + eps if beside else (var + eps).sqrt())


def norm(
    forward: Callable[[nn.Module, Tensor], Tensor], name: str = "LayerNorm", eps: float = 1e-5
) -> nn.Module:
    """A module that is a layer norm by its name and attributes, and does what `forward` says."""

    def init(self: nn.Module) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = (
            nn.Parameter(torch.linspace(0.5, 1.7, C)),
            nn.Parameter(torch.linspace(-0.4, 0.6, C)),
        )
        self.eps = eps

    return type(name, (nn.Module,), {"__init__": init, "forward": forward})()


def inputs(scale: float = 1.0) -> Tensor:
    """Tokens whose samples, positions and channels lie at places and scales of their own."""
    torch.manual_seed(1)
    own = torch.rand(B, 1, 1) + torch.rand(1, T, 1) + torch.rand(1, 1, C)
    return scale * (own * torch.randn(B, T, C) + own)


def probed(module: nn.Module, *batches: Tensor) -> bnprobe.Recording:
    model = nn.Sequential(module).eval()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        for x in batches:
            model(x)
    return probe.recording


def record_of(module: nn.Module, *batches: Tensor) -> LayerRecord:
    (record,) = probed(module, *batches).layers
    return record


def findings(recording: bnprobe.Recording, rule: str = RULE) -> list:
    found = bnprobe.report(recording).findings
    return list(found[found["rule"] == rule].itertuples())


GIVEN: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], tuple[str, ...]]] = {
    "time too": (lambda m, x: normalized(x, (1, 2)) * m.weight + m.bias, ("over channels, positions",)),
    "time alone": (lambda m, x: normalized(x, (1,)) * m.weight + m.bias, ("over positions",)),
    "the batch": (lambda m, x: normalized(x, (0,)) * m.weight + m.bias, ("over samples",)),
    "as batch norm": (lambda m, x: normalized(x, (0, 1)) * m.weight + m.bias, ("over samples, positions",)),
    "everything": (
        lambda m, x: normalized(x, (0, 1, 2)) * m.weight + m.bias,
        ("over samples, channels, positions",),
    ),
    "batch and channels": (
        lambda m, x: normalized(x, (0, 2)) * m.weight + m.bias,
        ("over samples, channels",),
    ),
    "unbiased": (lambda m, x: normalized(x, unbiased=True) * m.weight + m.bias, ("unbiased variance",)),
    "torch.std": (
        lambda m, x: normalized(x, unbiased=True, beside=True, eps=m.eps) * m.weight + m.bias,
        ("unbiased variance",),
    ),
    "no weight": (lambda m, x: normalized(x) + m.bias, ("no weight",)),
    "no bias": (lambda m, x: normalized(x) * m.weight, ("no bias",)),
    "another eps": (lambda m, x: normalized(x, eps=0.5) * m.weight + m.bias, ("eps 0.5",)),
    "relu": (lambda m, x: (normalized(x) * m.weight + m.bias).relu(), ("relu",)),
    "gelu": (lambda m, x: F.gelu(normalized(x) * m.weight + m.bias), ("gelu",)),
    "silu": (lambda m, x: F.silu(normalized(x) * m.weight + m.bias), ("silu",)),
    "tanh": (lambda m, x: torch.tanh(normalized(x) * m.weight + m.bias), ("tanh",)),
    "time too, gelu": (
        lambda m, x: F.gelu(normalized(x, (1, 2)) * m.weight + m.bias),
        ("over channels, positions", "gelu"),
    ),
    "skip": (lambda m, x: normalized(x) * m.weight + m.bias + x, ("adds the input",)),
    "a factor": (lambda m, x: 4 * normalized(x) * m.weight + m.bias, ("gain times 4",)),
    "cut off": (lambda m, x: (normalized(x) * m.weight + m.bias).clamp(-1, 2), ("clamp(-1, 2)",)),
    "bf16": (lambda m, x: normalized(x).bfloat16() * m.weight + m.bias, ("in bfloat16",)),
    "fp16": (lambda m, x: normalized(x).half() * m.weight + m.bias, ("in float16",)),
}


@pytest.mark.parametrize("name", GIVEN)
def test_what_gives_the_output_is_named(name: str):
    """Fails if an axis, a place of eps, a gain, an activation or a precision is not tried, or another is named for it."""
    forward, expected = GIVEN[name]
    record = record_of(norm(forward), inputs())
    check = record.output_check
    assert (record.output, check.fits, check.deviations) == ("read", False, expected)
    assert check.remaining < (3e-2 if "bf16" in name else 4e-3 if "fp16" in name else 1e-4)


def test_eps_beside_the_root_is_told_from_another_eps():
    """Fails if an eps that is fitted to the output hides the place where it is added: rows differ in their variance."""
    forward = lambda m, x: normalized(x, eps=m.eps, beside=True) * m.weight + m.bias  # noqa: E731
    record = record_of(norm(forward, eps=0.1), inputs())
    assert record.output_check.deviations == ("eps beside the root",)


def test_one_plus_weight_of_torchs_own_class_is_named():
    """Fails if only look-alikes are tried with 1 + weight: a subclass keeps its kind and changes its forward."""

    class Gemma(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return normalized(x) * (1 + self.weight) + self.bias

    record = record_of(Gemma(C), inputs())
    assert record.output_check.deviations == ("1 + weight",)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_large_batch_is_explained_by_its_first_samples(training: bool, monkeypatch: pytest.MonkeyPatch):
    """Fails if a batch norm's statistics are taken from the samples that are compared alone."""
    from bnprobe.probe.calls import formula_check

    monkeypatch.setattr(formula_check, "CHECKED_VALUES", 2 * 3 * 25)

    class Fused(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.silu(super().forward(x))

    model = nn.Sequential(Fused(3)).train(training)
    with bnprobe.attach(model) as probe:
        model(1 + torch.arange(1.0, 9)[:, None, None, None] * torch.randn(8, 3, 5, 5))
    assert probe.recording.layers[0].output_check.deviations == ("silu",)


def test_groups_that_are_not_told_apart():
    """Fails if a group norm is only tried with its groups."""

    class Whole(nn.GroupNorm):
        def forward(self, x: Tensor) -> Tensor:
            return F.group_norm(x, 1, self.weight, self.bias, self.eps)

    check = record_of(Whole(4, C), inputs().mT).output_check
    assert check.deviations == ("no groups",)


def test_what_nothing_explains_is_not_explained():
    """Fails if the nearest of many wrong formulas is named."""
    record = record_of(norm(lambda m, x: torch.sin(3 * normalized(x)) + m.bias), inputs())
    assert (record.output_check.deviations, record.output_check.remaining) == ((), None)
    (row,) = findings(probed(norm(lambda m, x: torch.sin(3 * normalized(x)) + m.bias), inputs()))
    assert row.severity == "warning"
    assert "no usual change to the formula explains it" in row.says
    assert "tried were" in row.because


def test_what_gives_some_values_is_no_explanation():
    """Fails if a formula is named because it gives the values it is tried on first: here all positions but one."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = (normalized(x) * m.weight + m.bias).relu()
        y[:, 3] *= 2
        return y

    torch.manual_seed(1)
    x = torch.randn(16, 64, C)
    assert x.numel() > alternatives.COMPARED
    check = record_of(norm(forward), x).output_check
    assert (check.fits, check.deviations, check.remaining) == (False, (), None)


def test_a_norm_over_time_is_a_warning_with_its_consequence():
    """Fails if a wrong axis is a note, a fused activation is blamed, or what it means is not said."""
    (row,) = findings(probed(norm(GIVEN["time too"][0]), inputs()))
    assert row.severity == "warning"
    assert "takes its statistics over each sample as a whole" in row.says
    assert "with this change" in row.because
    assert "a causal model sees what comes later" in row.do


@pytest.mark.parametrize(
    ("name", "severity"), [("the batch", "warning"), ("relu", "info"), ("unbiased", "info")]
)
def test_only_statistics_of_something_else_are_warned_of(name: str, severity: str):
    """Fails if timm's norms with their activation become warnings, or a norm over the batch a note."""
    (row,) = findings(probed(norm(GIVEN[name][0]), inputs()))
    assert row.severity == severity


@pytest.mark.parametrize(
    "module", [nn.LayerNorm(C), nn.RMSNorm(C), norm(lambda m, x: normalized(x) * m.weight + m.bias)]
)
def test_a_norm_that_does_what_it_should_is_not_searched(module: nn.Module, monkeypatch: pytest.MonkeyPatch):
    """Fails if the search runs where the formula fits: it would cost time, and might name something."""
    monkeypatch.setattr("bnprobe.probe.calls.output_check.Search", None)
    recording = probed(module, inputs())
    assert recording.layers[0].output_check.fits
    assert not findings(recording)


# Rows without values


class HalfRMSNorm(nn.RMSNorm):
    """Squares in float16, which overflow from 256 on; then every output of the row is 0."""

    def forward(self, x: Tensor) -> Tensor:
        h = x.half()
        return (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.weight


def test_rows_that_overflow_to_zero_are_told_with_their_share():
    """Fails if rows of zeros hide in a mismatch: 2 of 9 positions are beyond what float16 can square."""
    x = inputs()
    x[:, 2] *= 400
    x[:, 5] += 3000
    recording = probed(HalfRMSNorm(C), x)
    np.testing.assert_allclose(recording.layers[0].output_check.zero_rows, 2 / 9)
    (row,) = findings(recording, "rows-zero")
    assert row.severity == "warning"
    assert "22.2% of the positions" in row.because
    assert "float32" in row.do
    x[:, :6] += 3000
    (row,) = findings(probed(HalfRMSNorm(C), x), "rows-zero")
    assert row.severity == "critical"


@pytest.mark.parametrize("name", ["relu", "time too"])
def test_rows_that_a_formula_makes_zero_are_not_lost(name: str):
    """Fails if zeros of a ReLU, or of padding, count as lost rows."""
    x = inputs()
    x[:, 3:5] = 0
    recording = probed(norm(GIVEN[name][0]), x)
    assert recording.layers[0].output_check.zero_rows == 0
    assert not findings(recording, "rows-zero")


def test_padding_is_told_with_its_share():
    """Fails if rows of equal values, which carry nothing, go unsaid; or rows that merely are alike count."""
    x = inputs()
    x[:, 6:] = 0.25
    recording = probed(nn.LayerNorm(C), x)
    np.testing.assert_allclose(recording.layers[0].output_check.constant_rows, 3 / 9)
    (row,) = findings(recording, "rows-constant")
    assert (row.severity, "33.3%" in row.because) == ("info", True)
    assert not findings(probed(nn.LayerNorm(C), inputs()), "rows-constant")


@pytest.mark.parametrize(("dims", "share"), [(3, 3 / 9), (4, 0.0)])
def test_padding_of_a_batch_norm_is_told_for_sequences(dims: int, share: float):
    """Fails if padded positions of a sequence go unsaid, or the black background of images counts."""
    x = inputs().mT.contiguous()
    x[:, :, 6:] = 0
    module = nn.BatchNorm1d(C) if dims == 3 else nn.BatchNorm2d(C)
    recording = probed(module, x if dims == 3 else x[..., None])
    np.testing.assert_allclose(recording.layers[0].output_check.zero_positions, share)
    assert len(findings(recording, "rows-constant")) == (share > 0)


@pytest.mark.parametrize(
    ("module", "share"),
    [(nn.InstanceNorm1d(C), 3 / 9), (nn.GroupNorm(2, C), 3 / 9), (nn.LayerNorm([C, 9]), 0.0)],
    ids=["instance", "group", "layer"],
)
def test_padding_in_the_statistics_of_single_samples_is_told(module: nn.Module, share: float):
    """Fails if zeros among the positions that an instance or a group norm pools go unsaid, or are called equal values."""
    x = inputs().mT.contiguous()
    x[:, :, 6:] = 0
    recording = probed(module, x)
    np.testing.assert_allclose(recording.layers[0].output_check.zero_positions, share)
    found = findings(recording, "rows-constant")
    assert len(found) == (share > 0)
    assert all("33.3%" in row.because and "how far that is padded" in row.says for row in found)


@pytest.mark.parametrize(
    ("forward", "end"),
    [
        (lambda m, x: (normalized(x) * m.weight + m.bias).clamp(-1, 1), 1.0),
        (lambda m, x: torch.tanh(normalized(x) * m.weight + m.bias), 3.45),
        (lambda m, x: F.relu6(normalized(x) * m.weight + m.bias), 6.0),
        (lambda m, x: F.relu(normalized(x) * m.weight + m.bias), 99.0),
    ],
    ids=["clamp", "tanh", "relu6", "relu"],
)
def test_outputs_at_an_end_are_saturated(forward: Callable[[nn.Module, Tensor], Tensor], end: float):
    """Fails if values that are cut off go unsaid, or the zeros of a ReLU count as saturated.

    `end` is where the input of what follows the norm saturates it: for tanh, within a thousandth of its range.
    """
    recording = probed(norm(forward), inputs())
    x = inputs().double()
    y = normalized(x) * torch.linspace(0.5, 1.7, C) + torch.linspace(-0.4, 0.6, C)
    expected = float((y.abs() >= end).double().mean())
    np.testing.assert_allclose(recording.layers[0].output_check.saturated, expected, atol=2e-3)
    assert len(findings(recording, "outputs-saturated")) == (expected > 0.01)


# Digits


def far_from_zero(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(8, C, 5, 5) * 0.02
    return {
        "layer": (nn.LayerNorm(C), x.permute(0, 2, 3, 1)),
        "batch": (nn.BatchNorm2d(C).train(), x),
        "stored": (nn.BatchNorm2d(C), x),
        "instance": (nn.InstanceNorm2d(C, affine=True), x),
        "group": (nn.GroupNorm(4, C), x),
    }[kind]


KINDS = ("layer", "batch", "stored", "instance", "group")


@pytest.mark.parametrize("offset", [0.0, 4e4])
@pytest.mark.parametrize("kind", KINDS)
def test_digits_that_rounding_takes_are_told(kind: str, offset: float):
    """Fails if another formula is blamed, the derived output is believed where it is not what came out, or a norm whose
    inputs lie near zero is blamed."""
    module, x = far_from_zero(kind)
    x = x + offset
    if kind == "stored":
        module.running_mean.fill_(offset)
        module.running_var.fill_(4e-4)
    model = nn.Sequential(module)
    module.train(kind == "batch")
    with torch.no_grad(), bnprobe.attach(model) as probe:
        y = model(x)
    (record,) = probe.recording.layers
    assert not findings(probe.recording, RULE)
    rows = y.movedim(-1, 1).flatten(2) if kind == "layer" else y.flatten(2)
    np.testing.assert_allclose(
        record.post.mean, rows.double().mean((0, 2)), rtol=1e-4, atol=1e-5 if offset else 1e-4
    )
    told = findings(probe.recording, "digits-lost")
    assert len(told) == (offset > 0)
    if told:
        assert told[0].severity == "warning"
        assert record.output == "read"
        assert "neighboring numbers of float32" in told[0].because


@pytest.mark.parametrize(
    ("dtype", "ratio", "fires"),
    [
        (torch.float32, 6e3, False),
        (torch.float32, 1e4, True),
        (torch.float64, 1e6, False),
        (torch.float16, 50.0, False),
        (torch.float16, 150.0, True),
        (torch.bfloat16, 5.0, False),
        (torch.bfloat16, 30.0, True),
    ],
)
def test_how_far_from_zero_is_too_far(dtype: torch.dtype, ratio: float, fires: bool):
    """Fails if the limit is that of another type: half precision has fewer digits to lose, float64 more."""
    torch.manual_seed(0)
    x = (torch.randn(400, C, dtype=torch.float64) + ratio).to(dtype)
    recording = probed(nn.LayerNorm(C).to(dtype), x)
    assert len(findings(recording, "digits-lost")) == fires
    assert not findings(recording, RULE)


def test_one_channel_far_from_zero_is_named():
    """Fails if the median of a layer hides the one channel that is ruined."""
    x = torch.randn(64, C, 3, 3)
    x[:, 5] += 2e4
    module = nn.BatchNorm2d(C).train()
    with bnprobe.attach(model := nn.Sequential(module)) as probe:
        model(x)
    (row,) = findings(probe.recording, "digits-lost")
    assert row.channels == (5,)
    assert f"1 of {C} channels" in row.because


def test_a_norm_that_subtracts_no_mean_loses_nothing():
    """Fails if the mean of an RMS norm's inputs, which stays in, counts."""
    assert not findings(probed(nn.RMSNorm(C), inputs() + 1e5), "digits-lost")


def test_digits_that_other_inputs_than_in_training_lose_are_no_matter_of_rounding():
    """Fails if pixels that were not scaled are to be dealt with by subtracting a number and retraining."""
    x = torch.randn(64, C, 3, 3) + 2e4
    fits, other = nn.BatchNorm2d(C).eval(), nn.BatchNorm2d(C).eval()
    fits.running_mean.fill_(2e4)
    other.running_var.fill_(1.1)
    for module, first in ((fits, "Subtract"), (other, "The inputs are not those of training here")):
        with torch.no_grad(), bnprobe.attach(model := nn.Sequential(module)) as probe:
            model(x)
        (row,) = findings(probe.recording, "digits-lost")
        assert row.do.startswith(first)
