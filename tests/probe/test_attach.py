"""The probe against an independent witness, for every kind, in both modes, over the menagerie."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recording.test_recording import assert_same_recordings
from support import oracles
from support.models import (
    BATCHES,
    BY_NAME,
    CASES,
    EVAL_ONLY,
    BatchNormAct2d,
    C,
    Case,
    Checkpointed,
    Failing,
    Mixed,
    StrangeNorm,
)
from support.witness import Witness, assert_recording_true
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers
from bnprobe.recording import Recording

BOTH_MODES = [(case, False) for case in CASES + EVAL_ONLY] + [(case, True) for case in CASES]


def _name(value: object) -> str:
    return value.name if isinstance(value, Case) else ("train" if value else "eval")


def recorded(model: nn.Module, *batches: Tensor) -> Recording:
    with bnprobe.attach(model) as probe:
        for x in batches:
            model(x)
    return probe.recording


# Every number


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=_name)
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


def test_in_place_relu_does_not_reach_the_output():
    """Fails if the output is read after the next layer changed it: its minimum would be 0."""
    case = BY_NAME["in-place ReLU"]
    record = recorded(case.model(), *case.batches()).layers[0]
    assert record.post.low.min() < -0.1


def test_formula_is_checked_and_a_misfit_is_said():
    """Fails if the first call is not compared: a fused activation would be reported as the norm's output."""
    plain, fused = BY_NAME["subclass"], BY_NAME["fused activation"]
    honest = recorded(plain.model(), *plain.batches()).layers[0]
    assert honest.mismatch < 1e-9
    clipped = recorded(fused.model(), *fused.batches()).layers[0]
    assert clipped.mismatch > 0.01
    assert clipped.post.low.min() == 0


def test_fused_activation_does_not_change_what_normalized():
    """Fails if, where no plan fits, the nearest is taken: clipped outputs lie nearer to the batch's map.

    Stored statistics 0 and 1, values from -10 to 1: ReLU takes away up to 10, the batch's map differs by 3.
    """
    model = nn.Sequential(BatchNormAct2d(C)).eval()
    x = 1 - torch.linspace(0, 11, 2 * C * 35).reshape(2, C, 5, 7) ** 1.0
    record = recorded(model, x).layers[0]
    assert (record.output, record.normalized_by) == ("read", "running")


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


# Nothing of the model changes


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything that a probe could have left behind, bit for bit."""
    state: dict[str, Any] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": pickle.dumps(np.random.get_state()),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
    }
    for path, module in model.named_modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
                continue
            state[f"{path}/{name}"] = (tensor.dtype, tensor.detach().numpy().tobytes(), tensor.requires_grad)
            grad = tensor.grad
            state[f"{path}/{name}.grad"] = None if grad is None else grad.numpy().tobytes()
            state[f"{path}/{name} hooks"] = str(tensor._backward_hooks)
        state[f"{path} mode"] = module.training
        state[f"{path} keys"] = list(vars(module))
        for name in [key for key in vars(module) if "hook" in key]:
            hooks = vars(module)[name]
            state[f"{path} {name}"] = list(hooks) if isinstance(hooks, dict) else hooks
    return state


def bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return (
        (value.dtype, value.shape, value.detach().numpy().tobytes()) if isinstance(value, Tensor) else value
    )


def loss_of(output: Any) -> Tensor:
    return (output["features"] if isinstance(output, dict) else output).square().sum()


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=_name)
def test_nothing_changes_on_success(case: Case, training: bool):
    """Fails if the probe moves one bit of outputs, inputs, buffers, gradients, modes, hooks or random state."""
    plain, probed = case.model(training), case.model(training)
    results = []
    for model, with_probe in ((plain, False), (probed, True)):
        torch.manual_seed(7)
        batches = [x.requires_grad_() for x in case.batches()]
        probe = bnprobe.attach(model) if with_probe else None
        outputs = []
        for x in batches:
            outputs.append(case.call(model, x))
            loss_of(outputs[-1]).backward()
        if probe is not None:
            probe.detach()
            assert probe.recording.layers
        results.append(
            (fingerprint(model), [bits(x) for x in batches], [bits(x.grad) for x in batches], outputs)
        )
    (state, inputs, grads, outputs), (state2, inputs2, grads2, outputs2) = results
    assert state == state2
    assert inputs == inputs2
    assert grads == grads2
    assert [bits(y) for y in outputs] == [bits(y) for y in outputs2]
    # the graph, too: a detach or a clone in a hook would show
    assert [str(y.grad_fn)[:20] for y in outputs if isinstance(y, Tensor)] == [
        str(y.grad_fn)[:20] for y in outputs2 if isinstance(y, Tensor)
    ]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "error", [ValueError("in the middle"), KeyboardInterrupt()], ids=["error", "interrupt"]
)
def test_nothing_changes_when_the_model_raises(training: bool, error: BaseException):
    """Fails if hooks, modes or buffers are restored on success only, or the error is swallowed or replaced."""
    states = []
    for with_probe in (False, True):
        torch.manual_seed(7)
        model = BY_NAME["batch norm"].model()
        model = Failing().double().train(training)
        model.fails = error
        probe = bnprobe.attach(model) if with_probe else None
        with pytest.raises(type(error)) as caught:
            model(BY_NAME["batch norm"].batches()[0])
        assert caught.value is error
        if probe is not None:
            probe.detach()
        states.append(fingerprint(model))
    assert states[0] == states[1]


@pytest.mark.parametrize(
    "error", [ValueError("in the middle"), KeyboardInterrupt()], ids=["error", "interrupt"]
)
@pytest.mark.parametrize("n_before", [0, 1])
def test_a_failed_batch_counts_nowhere(error: BaseException, n_before: int):
    """Fails if the norms before the failure keep the batch (fault: pending), or if later passes go unseen."""
    batches = BY_NAME["batch norm"].batches()
    model = Failing().double().eval()
    good = batches[:1] if n_before == 0 else batches[:2]
    expected = recorded(model, *good)
    with bnprobe.attach(model) as probe:
        for x in good[:n_before]:
            model(x)
        model.fails = error
        for _ in range(2):
            with pytest.raises(type(error)):
                model(batches[2])
        model.fails = None
        for x in good[n_before:]:
            model(x)
    assert_same_recordings(probe.recording, expected, 1e-15)
    assert probe.recording.about.n_forwards == len(good)
    assert probe.recording.about.n_images == sum(len(x) for x in good)


def test_an_error_that_the_model_handles_is_no_error():
    """Fails if a caught exception inside the forward pass throws the batch away, or leaves a call open."""

    class Falls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Failing(), nn.BatchNorm2d(C)
            self.first.fails = ValueError("handled")

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.first(x)
            except ValueError:
                return self.second(x)
            raise AssertionError("must fail")

    model = Falls().double().eval()
    recording = recorded(model, *BY_NAME["batch norm"].batches())
    assert {record.layer: record.n_calls for record in recording.layers} == {"first.first": 3, "second": 3}
    assert recording.never_called == ("first.second",)


def test_a_forward_pass_inside_an_except_block_counts():
    """Fails if an exception that was there before the pass is taken for the pass's own."""
    model, (x, *_) = BY_NAME["batch norm"].model(), BY_NAME["batch norm"].batches()
    with bnprobe.attach(model) as probe:
        try:
            raise ValueError("before")
        except ValueError:
            model(x)
        model(x)
    assert probe.recording.layers[0].n_calls == 2


def test_gradients_are_not_recorded_and_not_needed():
    """Fails if the probe works only with, or only without, a graph."""
    case = BY_NAME["mixed"]
    model = case.model()
    with torch.inference_mode():
        inference = recorded(model, *case.batches())
    learning = recorded(model, *case.batches())
    assert {layer.call_log.n_calls_learning for layer in inference.layers} == {0}
    assert all(layer.call_log.n_calls_learning == layer.n_calls for layer in learning.layers)
    of_inference = {layer.site: layer.call_log for layer in inference.layers}
    same = tuple(replace(layer, call_log=of_inference[layer.site]) for layer in learning.layers)
    assert_same_recordings(inference, replace(learning, layers=same), 1e-15)


# Counting


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputation_is_not_counted_twice(use_reentrant: bool):
    """Fails if the second run of a checkpointed part, during backward, joins the record."""
    model = Checkpointed(use_reentrant).double().train()
    with bnprobe.attach(model) as probe:
        for x in BY_NAME["batch norm"].batches():
            model(x.requires_grad_()).square().sum().backward()
    recording = probe.recording
    assert {r.layer: (r.call, r.n_calls, r.n_images) for r in recording.layers} == {
        "before": (0, 3, 9),
        "middle.1": (0, 3, 9),
        "after": (0, 3, 9),
    }
    assert (recording.about.n_forwards, recording.about.n_images) == (3, 9)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputation_of_the_whole_model_is_not_counted_twice(use_reentrant: bool):
    """Fails if the pass of the model itself, run again during backward, adds its images a second time."""
    model = BY_NAME["in-place ReLU"].model(training=True)
    with bnprobe.attach(model) as probe:
        for x in BY_NAME["batch norm"].batches():
            checkpoint(model, x.requires_grad_(), use_reentrant=use_reentrant).square().sum().backward()
    assert probe.recording.layers[0].n_calls == 3
    assert (probe.recording.about.n_forwards, probe.recording.about.n_images) == (3, 9)


def test_a_model_that_calls_itself_is_one_pass():
    """Fails if the inner call is taken for a pass of its own: call numbers would start again."""

    class Recursive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(C)

        def forward(self, x: Tensor, again: int = 1) -> Tensor:
            x = self.bn(x)
            return self(x, again - 1) if again else x

    recording = recorded(Recursive().double().eval(), *BY_NAME["batch norm"].batches())
    assert [(r.layer, r.call, r.n_calls) for r in recording.layers] == [("bn", 0, 3), ("bn", 1, 3)]
    assert recording.about.n_forwards == 3


def test_a_part_of_the_model_may_be_called_alone():
    """Fails if calls outside a pass of the whole model wait for an end that never comes."""
    model, (x, *_) = BY_NAME["mixed"].model(), BY_NAME["mixed"].batches()
    with bnprobe.attach(model) as probe:
        for _ in range(3):
            model.bn(model.conv(x))
    (record,) = probe.recording.layers
    assert (record.layer, record.call, record.n_calls) == ("bn", 0, 3)
    assert probe.recording.never_called == ("gn", "ln", "rms")


def test_threads_do_not_mix_their_passes():
    """Fails if calls of two forward passes at once share a counter: there would be a second call."""
    model, (x, *_) = BY_NAME["mixed"].model(), BY_NAME["mixed"].batches()
    barrier = threading.Barrier(2)

    def work() -> None:
        barrier.wait()
        for _ in range(10):
            model(x)

    with bnprobe.attach(model) as probe:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {r.layer: (r.call, r.n_calls) for r in probe.recording.layers} == dict.fromkeys(
        ("bn", "gn", "ln", "rms"), (0, 20)
    )
    assert probe.recording.about.n_images == 40


def test_first_calls_at_the_same_time_keep_their_own_scale():
    """Fails if a thread's counts, made against its own first batch, are added to those of another scale."""
    barrier = threading.Barrier(2)

    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gn = nn.GroupNorm(1, C)

        def forward(self, x: Tensor) -> Tensor:
            x = self.gn(x)
            barrier.wait(timeout=10)  # neither pass is over when the other's first call is
            return x

    model, batches = Waits().double().eval(), BY_NAME["batch norm"].batches()[:2]
    with bnprobe.attach(model) as probe:
        threads = [threading.Thread(target=model, args=(x,)) for x in batches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (record,) = probe.recording.layers
    assert record.n_calls == 2
    sheets = record.pre_histogram
    assert sheets.counts.shape == (2, C, 96)
    for x in batches:
        rows = x.flatten(2).numpy()
        mean = rows.mean((0, 2))
        own = int(np.abs(sheets.centre - mean).sum(axis=1).argmin())
        np.testing.assert_allclose(sheets.centre[own], mean)
        expected = oracles.histogram(rows, sheets.centre[own], sheets.scale[own])
        np.testing.assert_array_equal(sheets.counts[own], expected)


# The life of a probe


def test_detach_may_be_called_twice_and_ends_the_recording():
    """Fails if hooks stay, or if removing them again raises."""
    case = BY_NAME["mixed"]
    model, (x, *_) = case.model(), case.batches()
    before = fingerprint(model)
    with bnprobe.attach(model) as probe:
        model(x)
        probe.detach()
        probe.detach()
        model(x)
    assert probe.recording.layers[0].n_calls == 1
    assert fingerprint(model) == before
    assert repr(probe) == "Probe(Mixed: 4 norms detached, 1 forward pass)"


def test_leaving_the_block_by_an_exception_detaches():
    """Fails if only a clean exit takes the hooks out, or the exception is swallowed."""
    model = BY_NAME["mixed"].model()
    before = fingerprint(model)
    with pytest.raises(ValueError, match="mine"), bnprobe.attach(model):
        raise ValueError("mine")
    assert fingerprint(model) == before


def test_hooks_of_others_stay_where_they_are():
    """Fails if detaching clears a module's hooks instead of removing its own."""
    case = BY_NAME["batch norm"]
    model, (x, *_) = case.model(), case.batches()
    seen: list[str] = []
    model[0].register_forward_hook(lambda *_: seen.append("before"))
    probe = bnprobe.attach(model)
    model[0].register_forward_hook(lambda *_: seen.append("after"))
    probe.detach()
    model(x)
    assert seen == ["before", "after"]


def test_recording_is_a_snapshot(tmp_path):
    """Fails if a later pass changes what was handed out, through a shared array."""
    case = BY_NAME["mixed"]
    model, (x, y, _) = case.model(training=True), case.batches()
    with bnprobe.attach(model) as probe:
        model(x)
        early = probe.recording
        then = bnprobe.load(early.save(tmp_path / "early"))
        model(y)
    assert_same_recordings(early, then, 1e-15)
    assert (early.layers[0].n_calls, probe.recording.layers[0].n_calls) == (1, 2)


def test_recording_does_not_change_after_detach():
    """Fails if fields are filled from the living model whenever someone asks (training went on)."""
    case = BY_NAME["batch norm"]
    model, (x, y, _) = case.model(training=True), case.batches()
    with bnprobe.attach(model) as probe:
        model(x)
    early = probe.recording.layers[0]
    model(y)
    with torch.no_grad():
        model[0].weight += 1
    late = probe.recording.layers[0]
    assert late.n_batches_tracked == early.n_batches_tracked == 1
    assert late.parameters_moved == early.parameters_moved is False


def test_what_moved_is_said():
    """Fails if an optimizer's step or a momentum update between batches goes unnoticed, or is imagined."""
    case = BY_NAME["batch norm"]
    batches = case.batches()
    resting = recorded(case.model(), *batches).layers[0]
    assert (resting.parameters_moved, resting.buffers_moved) == (False, False)
    model = case.model(training=True)
    with bnprobe.attach(model) as probe:
        model(batches[0])
        assert (probe.recording.layers[0].parameters_moved, probe.recording.layers[0].buffers_moved) == (
            False,
            True,
        )
        with torch.no_grad():
            model[0].bias += 0.5
        model(batches[1])
    moved = probe.recording.layers[0]
    assert (moved.parameters_moved, moved.buffers_moved) == (True, True)
    np.testing.assert_array_equal(moved.beta, model[0].bias.detach().numpy())
    assert moved.n_batches_tracked == 2


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


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_a_copy_carries_no_probe(copied: Callable[[nn.Module], nn.Module]):
    """Fails if a copy made while probing records into the original's probe, or drags its recording along."""
    case = BY_NAME["mixed"]
    model, (x, *_) = case.model(), case.batches()
    with bnprobe.attach(model) as probe:
        expected = model(x)
        other = copied(model)
        assert bits(other(x)) == bits(expected)
        assert probe.recording.about.n_forwards == 1
        assert not any(isinstance(v, bnprobe.Probe) for v in _held_by(other))
        model(x)
    assert probe.recording.layers[0].n_calls == 2
    assert recorded(other, x).layers[0].n_calls == 1


def _held_by(model: nn.Module) -> list[object]:
    hooks = [h for m in model.modules() for k, v in vars(m).items() if "hook" in k and v for h in v.values()]
    return [value for hook in hooks if hasattr(hook, "__dict__") for value in vars(hook).values()]


def test_two_probes_at_once_are_one_probe_twice():
    """Fails if probes disturb one another; each may cover other layers and leave at another time."""
    case = BY_NAME["mixed"]
    model, (x, y, z) = case.model(), case.batches()
    alone = recorded(model, x, y, z)
    with bnprobe.attach(model) as one:
        model(x)
        with bnprobe.attach(model, layers="gn") as other:
            model(y)
        model(z)
    assert_same_recordings(one.recording, alone, 1e-15)
    assert [(r.layer, r.n_images) for r in other.recording.layers] == [("gn", 3)]


def all_tensors() -> list[Tensor]:
    gc.collect()
    # not isinstance: asking some lazy modules for their class imports what is deprecated
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]


def tensors_alive() -> int:
    return len(all_tensors())


def test_no_tensor_is_kept():
    """Fails if an activation, or a view of one, outlives its forward pass: memory would grow with the data."""
    case = BY_NAME["mixed"]
    model, batches = case.model(training=True), case.batches()
    with bnprobe.attach(model) as probe:
        model(batches[0])
        before = tensors_alive()
        x = batches[1].clone().requires_grad_()
        y = model(x)
        gone = [weakref.ref(x), weakref.ref(y)]
        y.sum().backward()
        model.zero_grad()
        del x, y
        assert tensors_alive() == before
        assert [ref() for ref in gone] == [None, None]
    assert probe.recording.layers[0].n_calls == 2


def test_no_tensor_is_kept_after_a_failure():
    """Fails if the copy made for the first call's check waits for a next pass that never comes."""

    class FailsInside(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("in the norm itself")

    model, x = nn.Sequential(FailsInside(C)).double(), BY_NAME["batch norm"].batches()[0]
    before = sum(t.numel() == x.numel() for t in all_tensors())
    with bnprobe.attach(model):
        alive = []
        for _ in range(3):  # what is known of the layer itself is there from the first call on
            with pytest.raises(ValueError, match="in the norm itself") as caught:
                model(x)
            caught.value.__traceback__ = None  # its frames hold tensors, too
            del caught
            alive.append(tensors_alive())
            assert sum(t.numel() == x.numel() for t in all_tensors()) == before
        assert alive[0] == alive[1] == alive[2]


# What is chosen


def test_layers_narrow_by_path():
    """Fails if a pattern is ignored, or matched somewhere inside the path."""
    case = BY_NAME["mixed"]
    model, (x, *_) = case.model(), case.batches()
    for pattern, expected in (("?n", ["bn", "gn", "ln"]), (["rms", "b*"], ["bn", "rms"])):
        with bnprobe.attach(model, layers=pattern) as probe:
            model(x)
        assert [r.layer for r in probe.recording.layers] == expected
        assert probe.recording.never_called == ()


def test_histograms_may_be_left_out():
    """Fails if they are made all the same, or if anything else depends on them."""
    case = BY_NAME["mixed"]
    model, batches = case.model(), case.batches()
    with bnprobe.attach(model, histograms=False) as probe:
        for x in batches:
            model(x)
    full = recorded(model, *batches)
    for lean, record in zip(probe.recording.layers, full.layers, strict=True):
        assert lean.pre_histogram is lean.post_histogram is None
        np.testing.assert_array_equal(lean.n_positive, record.n_positive)
        np.testing.assert_array_equal(lean.post.m4, record.post.m4)


def test_about_says_what_was_probed():
    """Fails if the parameters of the head are left out, or the images of one batch."""
    model = BY_NAME["mixed"].model()
    about = recorded(model, *BY_NAME["mixed"].batches()).about
    assert about.model == "Mixed"
    assert about.n_parameters == sum(p.numel() for p in model.parameters())
    assert (about.n_forwards, about.n_images) == (3, 9)
    assert about.seconds > 0
    assert "cpu" in about.device
    assert torch.__version__ in about.versions


def test_attach_wants_a_module():
    """Fails if a state dict or a class is hooked, or refused without saying what to pass."""
    with pytest.raises(BnprobeError, match="Pass the model itself"):
        bnprobe.attach({"weight": torch.ones(3)})  # type: ignore[arg-type]


def test_no_norms_says_what_to_do():
    """Fails if a model without norms is probed in silence, or the advice is missing."""
    with pytest.raises(NoNormLayers, match=r"Check that Conv\+BN were not fused"):
        bnprobe.attach(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()))


def test_unknown_norms_are_named_with_the_way_to_teach_them():
    """Fails if the closest class is not named, or the call that teaches it."""
    with pytest.raises(
        NoNormLayers, match=r"Teach me with bnprobe.register_norm\(StrangeNorm, describe\)"
    ) as caught:
        bnprobe.attach(nn.Sequential(StrangeNorm(), StrangeNorm()))
    assert "2 modules" in str(caught.value)


def test_no_match_shows_real_paths():
    """Fails if a pattern without a match records nothing in silence."""
    with pytest.raises(NoNormLayers, match="have paths like bn, gn, ln"):
        bnprobe.attach(Mixed(), layers="layer4.*")


def test_input_that_cannot_be_read_is_noted():
    """Fails if a call with no floating tensor of known shape vanishes without a word, or raises."""

    class Odd(nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            return x if isinstance(x, str) else super().forward(x)

    model = nn.Sequential(Odd(C)).double().eval()
    with bnprobe.attach(model) as probe:
        assert model("hello") == "hello"
        model(BY_NAME["batch norm"].batches()[0])
    assert probe.recording.layers[0].n_calls == 1
    assert probe.recording.about.notes[0].startswith("1 calls of norm layers")


def test_a_compiled_model_runs_as_it_was_written():
    """Fails if a compiler traces through the hooks into the compiled loops (that ends the process), or past them."""
    model = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), nn.ReLU()).eval()
    x = torch.randn(2, 3, 9, 8)
    expected = model(x)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), bnprobe.attach(compiled) as probe:
        np.testing.assert_array_equal(compiled(x).numpy(), expected.detach().numpy())
    assert probe.recording.about.n_forwards == 1
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(x)
    assert probe.recording.about.n_forwards == 1


def test_parts_called_alone_are_said():
    """Fails if the report of a part called outside the model's forward speaks of 0 images, and does not say why."""
    model = nn.Module()
    model.part = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C)).eval()
    with bnprobe.attach(model) as probe:
        model.part(torch.randn(5, 3, 9, 8))
    about = probe.recording.about
    assert about.n_images == 5
    assert any("outside its own forward" in note for note in about.notes)


@pytest.mark.parametrize(
    ("layers", "word"), [(3, "not a path"), ([3], "not a path"), ([], "empty"), ((), "empty")]
)
def test_layers_that_name_nothing_are_refused(layers, word):
    """Fails if a slip in `layers` ends in a TypeError, or in a probe of nothing."""
    with pytest.raises(BnprobeError, match=word):
        bnprobe.attach(nn.Sequential(nn.BatchNorm2d(C)), layers=layers)


def test_transforms_of_torch_func_run_as_without_the_probe():
    """Fails if the probe looks for the memory of a tensor that stands for others."""
    model = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.ReLU()).eval()
    parameters, x = dict(model.named_parameters()), torch.randn(3, C, 5, 5)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (x,)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    expected = per_sample(parameters, x[:, None])
    with bnprobe.attach(model) as probe:
        found = per_sample(parameters, x[:, None])
        assert not probe.recording.layers
        assert "torch.func" in " ".join(probe.recording.about.notes)
        model(x)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert probe.recording.layers[0].neighbours.follows == "relu"
