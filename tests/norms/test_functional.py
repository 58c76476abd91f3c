"""Functions of torch that normalize: replaced while a probe listens, put back, and recorded as modules are."""

from __future__ import annotations

import copy
import gc
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from support.models import BY_NAME, C, H, W
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import layer_norm as imported_by_name
from torch.overrides import TorchFunctionMode

import bnprobe

NAMES = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


BATCHES = BY_NAME["batch norm"].batches()


class Functions(nn.Module):
    """Each functional norm once, on the same input; the modules hold the same vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.gn = nn.BatchNorm2d(C), nn.GroupNorm(1, C)
        self.inn, self.ln, self.rms = nn.InstanceNorm2d(C, affine=True), nn.LayerNorm(W), nn.RMSNorm((H, W))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        bn = self.bn
        return (
            F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, self.training, 0.1, bn.eps),
            F.group_norm(x, 1, self.gn.weight, self.gn.bias),
            F.instance_norm(x, weight=self.inn.weight, bias=self.inn.bias),
            imported_by_name(x, (W,), self.ln.weight, self.ln.bias),
            F.rms_norm(x, (H, W), self.rms.weight),
        )


class Modules(Functions):
    """The same as modules."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.bn(x), self.gn(x), self.inn(x), self.ln(x), self.rms(x)


def pair(training: bool) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    functions = Functions().double().train(training)
    for p in functions.parameters():
        nn.init.normal_(p)
    modules = Modules().double().train(training)
    modules.load_state_dict(functions.state_dict())
    return functions, modules


def recorded(model: nn.Module, backward: bool = True) -> bnprobe.Recording:
    with bnprobe.attach(model) as probe:
        for x in BATCHES:
            out = model(x.clone().requires_grad_())
            if backward:
                sum(y.square().sum() * (i + 1) for i, y in enumerate(out)).backward()
    return probe.recording


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_functional_norms_are_recorded_as_their_modules_are(training: bool):
    """Fails if any number of a functional site differs from the module that does the same."""
    functions, modules = pair(training)
    found, expected = recorded(functions), recorded(modules)
    assert len(found.layers) == len(expected.layers) == 5
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert (one.kind, one.pools, one.mode, one.eps) == (other.kind, other.pools, other.mode, other.eps)
        assert (one.normalized_by, one.output) == (other.normalized_by, other.output)
        for name in ("pre", "post", "own_mean", "own_log_var"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_array_equal(mine.mean, theirs.mean)
                np.testing.assert_array_equal(mine.m2, theirs.m2)
        np.testing.assert_array_equal(one.gamma, other.gamma)
        np.testing.assert_array_equal(one.pre_histogram.counts, other.pre_histogram.counts)
        np.testing.assert_array_equal(one.gradient.dy.m2, other.gradient.dy.m2)
        np.testing.assert_array_equal(one.gradient.dx.m2, other.gradient.dx.m2)
        np.testing.assert_array_equal(one.gradient.gamma.mean, other.gradient.gamma.mean)


def test_nothing_is_left_of_the_replaced_functions():
    """Fails if torch's functions are not what they were, after success, after a failure, or between two probes."""
    before = {name: getattr(F, name) for name in NAMES}
    codes = {name: function.__code__ for name, function in before.items()}
    functions, _ = pair(False)
    one, two = bnprobe.attach(functions), bnprobe.attach(functions)
    assert all(getattr(F, name) is before[name] for name in NAMES)
    assert all(getattr(F, name).__code__ is not codes[name] for name in NAMES)
    one.detach()
    assert all(getattr(F, name).__code__ is not codes[name] for name in NAMES)
    two.detach()
    assert all(getattr(F, name).__code__ is codes[name] for name in NAMES)
    with pytest.raises(ValueError, match="mine"), bnprobe.attach(functions):
        raise ValueError("mine")
    assert all(getattr(F, name).__code__ is codes[name] for name in NAMES)
    with pytest.raises(bnprobe.NoNormLayers):
        bnprobe.attach(nn.Linear(2, 3))
    assert all(getattr(F, name).__code__ is codes[name] for name in NAMES)


def test_outputs_and_gradients_are_bit_identical():
    """Fails if the way round through our code changes a bit, or an argument is passed on in another place."""
    functions, _ = pair(True)
    other = copy.deepcopy(functions)
    results = []
    for model, probed in ((functions, False), (other, True)):
        x = BATCHES[0].clone().requires_grad_()
        probe = bnprobe.attach(model) if probed else None
        out = model(x)
        sum(y.square().sum() for y in out).backward()
        if probe:
            probe.detach()
        results.append([*out, x.grad, *(p.grad for p in model.parameters()), *model.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_errors_of_torch_are_torchs():
    """Fails if arguments that torch refuses fail in our code first, or leave a call open."""
    model = nn.Sequential(nn.BatchNorm2d(C)).double().eval()

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for call in (
                lambda: F.group_norm(x, 2),
                lambda: F.layer_norm(x, (99,)),
                lambda: F.batch_norm(x, None, None),
            ):
                with pytest.raises((RuntimeError, ValueError)) as caught:
                    call()
                assert not isinstance(caught.value, bnprobe.BnprobeError)
            return x

    model.append(Wrong())
    with bnprobe.attach(model) as probe:
        model(BATCHES[0])
    assert [(r.layer, r.n_calls) for r in probe.recording.layers] == [("0", 1)]


class Asks(TorchFunctionMode):
    """Which functions does it see?"""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_a_function_mode_of_the_user_sees_the_same_functions():
    """Fails if the function has another identity while we listen, or is recorded twice because the mode calls it."""
    model = pair(False)[0]
    seen = []
    for probed in (False, True):
        probe = bnprobe.attach(model) if probed else None
        with Asks() as mode:
            model(BATCHES[0])
        if probe:
            probe.detach()
            assert [r.n_calls for r in probe.recording.layers] == [1] * 5
        seen.append([func for func in mode.seen if getattr(func, "__name__", "") in NAMES])
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 5


def test_scripting_and_tracing_meanwhile():
    """Fails if TorchScript or torch.fx meets our code instead of torch's while a probe is attached."""
    module, x = nn.LayerNorm(W).double(), BATCHES[0]
    with bnprobe.attach(pair(False)[0]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            scripted = torch.jit.script(module)
            traced = torch.jit.trace(module, x)
        graph = torch.fx.symbolic_trace(Normalized())
    assert torch.equal(scripted(x), module(x))
    assert torch.equal(traced(x), module(x))
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"] == [F.layer_norm]


class Normalized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (W,))


class AnySize(nn.Module):
    """Layer norm over whole samples, which may be of any size."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:])


def test_a_dropped_probe_listens_no_longer():
    """Fails if a probe that was never detached is told of functional norms for the rest of the process."""
    before = F.layer_norm.__code__
    model = AnySize()
    probe = bnprobe.attach(model)
    assert F.layer_norm.__code__ is not before
    del probe, model
    gc.collect()
    assert F.layer_norm.__code__ is before
