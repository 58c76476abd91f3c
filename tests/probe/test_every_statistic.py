"""Every statistic of a recording against the reference probe, for every kind of norm, in both modes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.models import BATCHES, BY_NAME, Case
from support.runs import BOTH_MODES, case_and_mode, recorded
from support.witness import Witness, assert_recording_true
from torch import Tensor

import bnprobe


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=case_and_mode)
def test_every_statistic_agrees_with_the_witness(case: Case, training: bool):
    """Fails if any number of a record is not what two passes over the real tensors give.

    In float64, so that "derived" and "read" must agree to 1e-9; batches of 2, 3 and 4 images.
    """
    model = case.model(training)
    witness = Witness(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x in case.batches():
            with witness.watching():
                case.call(model, x)
    assert_recording_true(probe.recording, case, witness)
    for record in probe.recording.layers:
        frozen = case.norms[record.layer].frozen
        assert record.mode == ("train" if training and not frozen else "eval")
    assert probe.recording.about.n_forwards == len(BATCHES)


def _nan(x: Tensor) -> None:
    x[0, 1, 2] = torch.nan


def _infinite(x: Tensor) -> None:
    x[1, 0, 0], x[0, 2, 1] = torch.inf, -torch.inf


def _one_position_of_all(x: Tensor) -> None:
    """As a masked position: the same number of values is missing everywhere."""
    x[..., 1] = torch.nan


def _nothing_left(x: Tensor) -> None:
    x[:, 1] = torch.nan


def _constant(x: Tensor) -> None:
    x[:, 1] = 4.0


def _zero(x: Tensor) -> None:
    x.zero_()


def _far_away(x: Tensor) -> None:
    x += 1e6


AWKWARD = [
    "batch norm",
    "instance norm",
    "instance norm with statistics",
    "group norm",
    "layer norm",
    "RMS norm",
]


@pytest.mark.parametrize(
    "spoil", [_nan, _infinite, _one_position_of_all, _nothing_left, _constant, _zero, _far_away]
)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_values(name: str, training: bool, spoil: Callable[[Tensor], None]):
    """Fails if a NaN, an infinity, a constant channel or data at 1e6 make derived and real outputs differ.

    The second of three batches is spoilt, so that a healthy first call cannot hide behind its check.
    """
    case = BY_NAME[name]
    model, batches = case.model(training), case.batches()
    spoil(batches[1])
    witness = Witness(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x in batches:
            with witness.watching():
                case.call(model, x)
    assert_recording_true(probe.recording, case, witness, rtol=1e-7)


@pytest.mark.parametrize("name", AWKWARD)
def test_a_spoilt_first_batch(name: str):
    """Fails if what a site settles at its first call cannot stand a batch with a masked position."""
    case = BY_NAME[name]
    model, batches = case.model(), case.batches()
    _one_position_of_all(batches[0])
    witness = Witness(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x in batches:
            with witness.watching():
                case.call(model, x)
    assert_recording_true(probe.recording, case, witness, rtol=1e-7)


# torch itself refuses an empty batch for instance norm with stored statistics
@pytest.mark.parametrize("name", [name for name in AWKWARD if "statistics" not in name])
def test_an_empty_batch_changes_nothing(name: str):
    """Fails if a batch of no images is 0/0, or sets the scale of the counts."""
    case = BY_NAME[name]
    model, batches = case.model(), case.batches()
    empty = recorded(model, batches[0], batches[1][:0], batches[2])
    assert empty.layers[0].n_calls == 3
    assert empty.layers[0].n_images == 2 + 4
    full = recorded(model, batches[0], batches[2])
    np.testing.assert_array_equal(empty.layers[0].post.n, full.layers[0].post.n)
    np.testing.assert_allclose(empty.layers[0].post.mean, full.layers[0].post.mean, rtol=1e-12)
    empty.check_sane()


@pytest.mark.parametrize("name", ["batch norm", "layer norm"])
def test_images_without_positions_change_nothing(name: str):
    """Fails if an input of images of height 0 (all of a sequence masked away) raises in a hook."""
    case = BY_NAME[name]
    model, batches = case.model(), case.batches()
    gone = batches[1][:, :, :0] if name == "batch norm" else batches[1][:, :0]
    found = recorded(model, gone, batches[0])
    assert found.layers[0].n_calls == 2
    np.testing.assert_array_equal(found.layers[0].pre.n, recorded(model, batches[0]).layers[0].pre.n)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)], ids=str
)
@pytest.mark.parametrize("name", [*AWKWARD, "frozen", "RMS norm of 1 + w", "torchvision's LayerNorm2d"])
def test_smaller_types(name: str, dtype: torch.dtype, rtol: float):
    """Fails if sums run in the type of the input (pre would be off), or if rounding is taken for a misfit.

    Before the norm every number is exact but for float32 lanes; after it, up to the rounding of the output.
    """
    case = BY_NAME[name]
    model = case.model(dtype=dtype)
    witness = Witness(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x in case.batches(dtype=dtype):
            with witness.watching():
                case.call(model, x)
    (record,), ((path, norm),) = probe.recording.layers, case.norms.items()
    calls = witness.calls[path, 0]
    x = np.concatenate([norm.rows(call.x) for call in calls])
    y = np.concatenate([norm.rows(call.y) for call in calls])
    assert (record.kind, record.output) == (norm.kind, norm.output)
    np.testing.assert_allclose(record.pre.mean, x.mean((0, 2)), atol=1e-6 * x.std())
    np.testing.assert_allclose(record.pre.var_population, x.var((0, 2)), rtol=1e-6)
    np.testing.assert_array_equal(record.post.n, np.full(x.shape[1], x[:, 0].size))
    np.testing.assert_allclose(record.post.mean, y.mean((0, 2)), atol=rtol * np.abs(y).max())
    np.testing.assert_allclose(record.post.var_population, y.var((0, 2)), rtol=10 * rtol, atol=rtol**2)
    wrong_side = np.abs(record.n_positive - (y > 0).sum((0, 2)))
    assert wrong_side.max() <= rtol * x[:, 0].size


@pytest.mark.parametrize("name", ["batch norm", "subclass", "frozen", "frozen its own way"])
@pytest.mark.parametrize("first", [False, True], ids=["eval first", "train first"])
def test_mode_may_change_between_batches(name: str, first: bool):
    """Fails if what normalized is settled once: by the first call, or by the layer's own flag."""
    case = BY_NAME[name]
    model = case.model()
    witness = Witness(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x, training in zip(case.batches(), (first, not first, first), strict=True):
            model.train(training)
            with witness.watching():
                case.call(model, x)
    record = probe.recording.layers[0]
    frozen = case.norms["0"].frozen
    assert record.mode == ("eval" if frozen else "mixed")
    assert record.normalized_by == ("running" if frozen else "both")
    assert_recording_true(probe.recording, case, witness)


def test_statistics_follow_weights_that_move():
    """Fails if the output is derived with the vectors of the first call, or its counts are turned with them."""
    case = BY_NAME["batch norm"]
    model, batches = case.model(), case.batches()
    witness = Witness(model, ["0"])
    with bnprobe.attach(model) as probe:
        for x in batches:
            with witness.watching():
                model(x)
            with torch.no_grad():
                model[0].weight *= -1.7
                model[0].bias += 0.3
    assert_recording_true(probe.recording, case, witness)
