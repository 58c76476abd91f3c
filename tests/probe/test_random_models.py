"""Laws that hold for any model: random ones, of every kind of norm, layout, reuse and failure; and a long run."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measures.expected import assert_tables_true
from recording.test_recording import assert_same_recordings
from support import oracles
from support.models import Case, Norm, learn
from support.reference_probe import ReferenceProbe, assert_recording_true
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

import bnprobe
from bnprobe.recording import Recording

N_CHANNELS = 6
SIDE = 4
BN = Norm("batch_norm", "batch", running=True)

KINDS: dict[str, tuple[Callable[[], nn.Module], Norm]] = {
    "batch": (lambda: nn.BatchNorm2d(N_CHANNELS), BN),
    "batch, plain": (lambda: nn.BatchNorm2d(N_CHANNELS, affine=False, momentum=None), BN),
    "batch, no running statistics": (
        lambda: nn.BatchNorm2d(N_CHANNELS, track_running_stats=False),
        Norm("batch_norm", "batch"),
    ),
    "instance": (lambda: nn.InstanceNorm2d(N_CHANNELS, affine=True), Norm("instance_norm", "instance")),
    "instance, running statistics": (
        lambda: nn.InstanceNorm2d(N_CHANNELS, track_running_stats=True),
        Norm("instance_norm", "instance", running=True),
    ),
    "group": (lambda: nn.GroupNorm(2, N_CHANNELS), Norm("group_norm", "group", n_groups=2)),
    "groups of one": (
        lambda: nn.GroupNorm(N_CHANNELS, N_CHANNELS),
        Norm("group_norm", "group", n_groups=N_CHANNELS),
    ),
    "frozen": (
        lambda: FrozenBatchNorm2d(N_CHANNELS),
        Norm("batch_norm", "batch", running=True, frozen=True),
    ),
    "layer": (lambda: nn.LayerNorm(SIDE), Norm("layer_norm", "channels", last=1, output="read")),
    "layer over all": (
        lambda: nn.LayerNorm((N_CHANNELS, SIDE, SIDE)),
        Norm("layer_norm", "channels", last=3, output="read"),
    ),
    "rms": (
        lambda: nn.RMSNorm(SIDE, eps=1e-5),
        Norm("rms_norm", "channels", last=1, centred=False, output="read"),
    ),
}


def _batch_norm(x: Tensor, like: nn.Module, training: bool) -> Tensor:
    return F.batch_norm(x, like.running_mean, like.running_var, like.weight, like.bias, training)


def _instance_norm(x: Tensor, like: nn.Module, training: bool) -> Tensor:
    return F.instance_norm(x, None, None, like.weight, like.bias)


def _group_norm(x: Tensor, like: nn.Module, training: bool) -> Tensor:
    return F.group_norm(x, 2, like.weight, like.bias)


def _layer_norm(x: Tensor, like: nn.Module, training: bool) -> Tensor:
    return F.layer_norm(x, like.normalized_shape, like.weight, like.bias)


def _rms_norm(x: Tensor, like: nn.Module, training: bool) -> Tensor:
    return F.rms_norm(x, like.normalized_shape, like.weight, 1e-5)


FUNCTIONS: dict[str, tuple[Callable[[Tensor, nn.Module, bool], Tensor], str]] = {
    "F.batch_norm": (_batch_norm, "batch"),
    "F.instance_norm": (_instance_norm, "instance"),
    "F.group_norm": (_group_norm, "group"),
    "F.layer_norm": (_layer_norm, "layer over all"),
    "F.rms_norm": (_rms_norm, "rms"),
}
"""Functional norms, and the kind of module that holds their vectors."""


class Functional(nn.Module):
    """Calls a function; its child, which is never called, holds the vectors."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.function, like = FUNCTIONS[kind]
        self.like = KINDS[like][0]()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.like, self.training)


def site_of(i: int, kind: str) -> str:
    """Under which name the i-th norm is recorded: a function with the line on which it is called."""
    if kind not in FUNCTIONS:
        return f"norms.{i}"
    return f"norms.{i}.{kind.removeprefix('F.')}:{FUNCTIONS[kind][0].__code__.co_firstlineno + 1}"


def norm_of(kind: str, calls: int) -> Norm:
    """What is true of a norm of this kind."""
    norm = KINDS[FUNCTIONS[kind][1] if kind in FUNCTIONS else kind][1]
    return replace(norm, calls=calls, function=kind in FUNCTIONS)


BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "shift": lambda x: x * 3 + 2,
    "turn": lambda x: x.transpose(2, 3),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "without a graph": lambda x: x.detach(),
}


class Chain(nn.Module):
    """Norms one after the other, some of them more than once; fails before step `fails_at`."""

    def __init__(self, kinds: list[str], steps: list[tuple[int, str]]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            Functional(kind) if kind in FUNCTIONS else KINDS[kind][0]() for kind in kinds
        )
        self.steps = steps
        self.fails_at: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        for i, (which, between) in enumerate(self.steps):
            if i == self.fails_at:
                raise ZeroDivisionError("as ordered")
            x = BETWEEN[between](self.norms[which](x))
        return x


@dataclass(frozen=True)
class Drawn:
    """A random model and random batches for it."""

    kinds: list[str]
    steps: list[tuple[int, str]]
    sizes: list[int]
    training: bool
    seed: int

    @property
    def case(self) -> Case:
        """As the reference probe needs it."""
        counts = [sum(which == i for which, _ in self.steps) for i in range(len(self.kinds))]
        numbered = list(enumerate(zip(self.kinds, counts, strict=True)))
        return Case(
            "drawn",
            lambda: Chain(self.kinds, self.steps),
            {site_of(i, kind): norm_of(kind, n) for i, (kind, n) in numbered if n},
            shape=(N_CHANNELS, SIDE, SIDE),
            never_called=tuple(
                f"norms.{i}.like" if kind in FUNCTIONS else f"norms.{i}"
                for i, (kind, n) in numbered
                if kind in FUNCTIONS or not n
            ),
        )

    @property
    def inside(self) -> dict[str, str]:
        """The module in which each functional norm stands."""
        return {site_of(i, kind): f"norms.{i}" for i, kind in enumerate(self.kinds) if kind in FUNCTIONS}

    def batches(self) -> list[Tensor]:
        return self.case.batches(self.sizes, seed=self.seed)


@st.composite
def drawn(draw: st.DrawFn, training: bool | None = None) -> Drawn:
    kinds = draw(st.lists(st.sampled_from(sorted([*KINDS, *FUNCTIONS])), min_size=1, max_size=4))
    step = st.tuples(st.integers(0, len(kinds) - 1), st.sampled_from(sorted(BETWEEN)))
    return Drawn(
        kinds,
        draw(st.lists(step, min_size=1, max_size=6)),
        draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)),
        draw(st.booleans()) if training is None else training,
        draw(st.integers(0, 10**6)),
    )


examples = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def recorded(model: nn.Module, batches: list[Tensor]) -> Recording:
    with bnprobe.attach(model) as probe:
        for x in batches:
            model(x.clone())
    return probe.recording


@given(drawn())
@examples
def test_every_number_of_a_random_model_agrees_with_the_oracle(it: Drawn):
    """Fails if some combination of kind, layout, mode and reuse is read or measured wrongly."""
    model = it.case.model(it.training)
    reference = ReferenceProbe(model, list(it.case.norms), it.inside)
    with bnprobe.attach(model) as probe:
        for x in it.batches():
            with reference.watching():
                model(x)
    assert_recording_true(probe.recording, it.case, reference, rtol=1e-7)
    assert_tables_true(probe.recording, it.case.norms, reference, all_steady=False)


@given(drawn(training=False), st.randoms(use_true_random=False))
@examples
def test_parts_of_a_random_run_merge_in_any_order(it: Drawn, random: Any):
    """Fails if the order of batches, or where the run was split, changes what they add up to."""
    model, batches = it.case.model(), it.batches()
    whole = recorded(model, batches)
    order = list(range(len(batches)))
    random.shuffle(order)
    in_order = order == sorted(order)
    parts = [recorded(model, [batches[i]]) for i in order]
    assert_same_recordings(reduce(Recording.merge, parts), whole, 1e-7, in_order)
    assert_same_recordings(recorded(model, [batches[i] for i in order]), whole, 1e-7, in_order)


@given(drawn(), st.booleans())
@examples
def test_a_random_model_is_left_as_it_was(it: Drawn, backward: bool):
    """Fails if outputs, gradients or the state of the model differ by a bit from a run without the probe."""
    results = []
    for probed in (False, True):
        model = it.case.model(it.training)
        probe = bnprobe.attach(model) if probed else None
        outputs = []
        for x in it.batches():
            y = model(x.clone().requires_grad_())
            outputs.append(y.detach().clone())
            if backward and y.requires_grad:
                y.square().sum().backward()
        if probe:
            probe.detach()
            assert probe.recording.integrity.unexplained == ()
            assert it.training or backward or probe.recording.integrity.changes == ()
        gradients = [p.grad for p in model.parameters()]
        results.append((outputs, [*model.state_dict().values()], gradients))
    for one, other in zip(*results, strict=True):
        assert all(a is b if a is None else torch.equal(a, b) for a, b in zip(one, other, strict=True))


@given(drawn(training=False), st.data())
@examples
def test_a_random_failure_counts_nowhere(it: Drawn, data: st.DataObject):
    """Fails if a pass that ended in an exception, wherever it came, leaves anything in the totals."""
    model, batches = it.case.model(), it.batches()
    fails_at = data.draw(st.integers(0, len(it.steps) - 1))
    failing = data.draw(st.sets(st.integers(0, len(batches) - 1), max_size=len(batches) - 1))
    with bnprobe.attach(model) as probe:
        for i, x in enumerate(batches):
            model.fails_at = fails_at if i in failing else None
            if i in failing:
                with pytest.raises(ZeroDivisionError):
                    model(x.clone())
            else:
                model(x.clone())
    model.fails_at = None
    expected = recorded(model, [x for i, x in enumerate(batches) if i not in failing])
    assert_same_recordings(probe.recording, expected, 1e-12)
    assert probe.recording.about.n_images == expected.about.n_images


@pytest.mark.slow
def test_ten_thousand_batches():
    """Fails if RAM grows with the data, or sums drift from the oracle's after 10,000 batches."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.GroupNorm(1, 3), nn.Flatten(2), nn.LayerNorm(16))
    model = model.double().eval()
    learn(model)
    rng = np.random.default_rng(5)
    x = torch.tensor(rng.gamma(0.7, size=(20_000, 3, 4, 4)) + 1e3 * np.arange(3)[:, None, None])
    kept: dict[int, Tensor] = {}
    handles = [
        model[i].register_forward_pre_hook(lambda module, args, i=i: kept.update({i: args[0]}))
        for i in (0, 2, 4)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        for i, batch in enumerate(x.split(2)):
            model(batch)
            if i == 1000:
                gc.collect()
                blocks, resident = (
                    sys.getallocatedblocks(),
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                )
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 16 << 10, "KiB"
    assert probe.recording.integrity.changes == ()
    for record, (_, values) in zip(probe.recording.layers, sorted(kept.items()), strict=True):
        assert record.n_calls == 10_000
        rows = (values.flatten(2) if values.dim() == 4 else values.transpose(1, 2)).numpy()
        flat = np.moveaxis(rows, 1, 2).reshape(-1, rows.shape[1])
        oracles.assert_same_moments(record.pre, oracles.moments(flat), 1e-8)
        oracles.assert_same_images(record.pre_images, oracles.images([rows], record.pre_images.origin), 1e-8)
