"""Readings that stay on a GPU: the same records as on the CPU, and nothing waits that need not.

Where there is no GPU the kernels are interpreted and CPU tensors are sent to them; what would be a wait is a
call of `fetched` there. tests/reductions/test_gpu.py has torch refuse every wait on a GPU.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from support import oracles
from torch import Tensor, nn

import bnprobe
from bnprobe import reductions
from bnprobe.probe.calls.plan_cache import _Version
from bnprobe.recording import CallLog, LayerRecord
from bnprobe.reductions import device_reading
from bnprobe.stats import Folds, Histogram, ImageMoments, Moments
from bnprobe.stats.fields import RECORDED
from bnprobe.stats.tokens import TokenStats

pytest.importorskip("triton", reason="triton ships with torch's CUDA builds only")

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN")


@pytest.fixture(autouse=True)
def _numpy_is_as_quiet_as_a_gpu() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """CPU tensors go to the kernels, where there is no GPU; and every transfer of a reading is noted."""
    noted: list[int] = []
    original = device_reading.fetched

    def fetched(*parts: Tensor | None) -> list[object]:
        noted.append(len(parts))
        return original(*parts)

    monkeypatch.setattr(device_reading, "fetched", fetched)
    monkeypatch.setitem(reductions.ENGINES, DEVICE, reductions.fused)
    return noted


def images(*sizes: int, px: int = 5, channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [
        torch.empty(n, channels, px, px).exponential_(generator=generator) * (1 + i)
        for i, n in enumerate(sizes)
    ]


def a_batch_norm() -> nn.Module:
    """Stored statistics that do not fit, a negative gamma and a flat one."""
    norm = nn.BatchNorm2d(3)
    norm.weight.data = torch.tensor([1.5, -0.5, 0.0])
    norm.bias.data = torch.tensor([0.3, 1.0, -2.0])
    norm.running_mean = torch.tensor([0.0, 1.0, -1.0])
    norm.running_var = torch.tensor([1.0, 4.0, 0.25])
    return norm.eval()


NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": a_batch_norm,
    "layer norm": lambda: nn.LayerNorm(5),
    "rms norm": lambda: nn.RMSNorm(5, eps=1e-6),
    "batch norm, training": lambda: nn.BatchNorm2d(3),
    "instance norm": lambda: nn.InstanceNorm2d(3, affine=True),
    "group norm": lambda: nn.GroupNorm(1, 3),
}
STAYING = ("batch norm", "layer norm", "rms norm")


def record_of(norm: nn.Module, passes: list[Tensor], device: str, **options: bool) -> LayerRecord:
    norm = norm.to(device)
    with bnprobe.attach(norm, **options) as probe, torch.no_grad():
        for x in passes:
            norm(x.to(device))
    return probe.recording.layers[0]


def assert_same_records(found: LayerRecord, other: LayerRecord) -> None:
    for name, expected in vars(other).items():
        value = getattr(found, name)
        if isinstance(expected, Moments | ImageMoments | Histogram):
            for part, numbers in vars(expected).items():
                close = {
                    "rtol": 2e-5,
                    "atol": 2e-5 * (1 + np.abs(numbers[np.isfinite(numbers)]).max(initial=0)),
                }
                np.testing.assert_allclose(getattr(value, part), numbers, **close, err_msg=f"{name}.{part}")
        elif isinstance(expected, Folds):
            oracles.assert_same_folds(value, vars(expected), 2e-5)
        elif name in RECORDED and not RECORDED[name].whole:
            np.testing.assert_allclose(value, expected, rtol=2e-6, err_msg=name)
        elif isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(value, expected, err_msg=name)
        elif isinstance(expected, TokenStats):
            for part, numbers in vars(expected).items():
                np.testing.assert_allclose(
                    getattr(value, part), numbers, rtol=2e-5, atol=2e-5, err_msg=f"{name}.{part}"
                )
        elif isinstance(expected, CallLog):
            # in which call values were not finite is not known where readings stay on the GPU
            assert value.first_nonfinite in (None, expected.first_nonfinite)
            np.testing.assert_equal(vars(value), vars(expected) | {"first_nonfinite": value.first_nonfinite})
        elif name != "mismatch":
            assert value == expected, name


@pytest.mark.parametrize("histograms", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_a_record_is_that_of_the_cpu(kind, histograms, waits, monkeypatch):
    """Fails if readings that stay are lost, added twice, or added under the wrong map; for every kind of norm."""
    norm, passes = NORMS[kind](), images(3, 1, 4, 2)
    passes[2][1, 0, 2, 2], passes[3][:, 1] = torch.nan, torch.inf
    found = record_of(copy.deepcopy(norm), passes, DEVICE, histograms=histograms)
    assert waits
    monkeypatch.setitem(reductions.ENGINES, "cpu", reductions.compiled)
    assert_same_records(found, record_of(norm, passes, "cpu", histograms=histograms))


@pytest.mark.parametrize("kind", STAYING)
def test_only_the_first_call_and_the_recording_wait(kind, waits):
    """Fails if a call looks at a reading: between the first call and the recording nothing is fetched."""
    norm = NORMS[kind]().to(DEVICE)
    with bnprobe.attach(norm) as probe, torch.no_grad():
        norm(images(3)[0].to(DEVICE))
        waits.clear()
        for x in images(2, 3, 1):
            norm(x.to(DEVICE))
        assert waits == []
        assert probe.recording.layers[0].n_images == 9
        assert len(waits) == (1 if kind == "batch norm" else 2)  # the output has a reading of its own
        waits.clear()
        assert probe.recording.layers[0].n_images == 9
        assert waits == []


@pytest.mark.parametrize("histograms", [True, False])
def test_a_map_that_changes_brings_the_calls_home(histograms, waits, monkeypatch):
    """Fails if calls under a new gamma, or new statistics, join those under the old.

    Without histograms, because with them no call stays under a map that does not turn the input's.
    """

    def watched(norm: nn.Module, device: str) -> LayerRecord:
        norm = norm.to(device)
        with bnprobe.attach(norm, histograms=histograms) as probe, torch.no_grad():
            for i, x in enumerate(images(3, 2, 2, 4, 1, 2)):
                norm(x.to(device))
                if i == 2:
                    norm.weight.mul_(-2)
                if i == 4:
                    norm.running_mean.add_(1)
        return probe.recording.layers[0]

    found = watched(a_batch_norm(), DEVICE)
    monkeypatch.setitem(reductions.ENGINES, "cpu", reductions.compiled)
    assert_same_records(found, watched(a_batch_norm(), "cpu"))


def test_a_snapshot_is_not_changed_by_later_calls(waits):
    """Fails if what came home is still the sum to which later calls are added."""
    norm = a_batch_norm().to(DEVICE)
    with bnprobe.attach(norm) as probe, torch.no_grad():
        for x in images(3, 2):
            norm(x.to(DEVICE))
        first = probe.recording.layers[0]
        mean = first.pre.mean.copy()
        for x in images(4, 4):
            norm(x.to(DEVICE))
        assert first.pre.n[0] == 5 * 25
        np.testing.assert_array_equal(first.pre.mean, mean)
        assert probe.recording.layers[0].pre.n[0] == 13 * 25


def test_a_pass_that_fails_leaves_no_trace(waits):
    """Fails if a reading is added on the device before its pass has ended well."""

    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fail = a_batch_norm(), False

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            if self.fail:
                raise RuntimeError("in the middle")
            return y

    model, (first, second) = Fails().eval().to(DEVICE), images(3, 2)
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(first.to(DEVICE))
        model.fail = True
        with pytest.raises(RuntimeError, match="in the middle"):
            model(second.to(DEVICE))
        model.fail = False
        model(first.to(DEVICE))
    assert probe.recording.layers[0].pre.n[0] == 6 * 25


def test_writes_are_counted_where_bytes_would_have_to_be_waited_for():
    """Fails if a parameter on a GPU that was written in place counts as unchanged, or one at rest as changed."""
    parameter = nn.Parameter(torch.ones(3, device=DEVICE))
    now = _Version(parameter)
    was = bytes(now)
    assert now == was
    with torch.no_grad():
        parameter.mul_(2)
    assert now != was
