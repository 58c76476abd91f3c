"""A reference probe: plain hooks that keep every tensor, and what a record must then say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.recording import LayerRecord, Recording
from bnprobe.stats.fields import RECORDED, SUMS
from support import oracles
from support.models import Case, Norm

Vectors = dict[str, np.ndarray | None]
ROUNDING = 1e-15
VECTORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Call:
    """One call of one norm: its input before, its output after, and its vectors before it ran."""

    x: np.ndarray
    y: np.ndarray
    training: bool
    vectors: Vectors
    precision: float
    """The relative spacing of numbers in the output's dtype."""


class ReferenceProbe:
    """Keeps the calls of some modules of `model`, per (path, call number within one forward pass).

    `inside` names the module in which a functional norm stands; its child `like` holds the norm's vectors.
    """

    def __init__(self, model: nn.Module, paths: list[str], inside: Mapping[str, str] | None = None) -> None:
        self.calls: dict[tuple[str, int], list[Call]] = {}
        self._watching = False
        self._count: dict[str, int] = {}
        self._open: dict[str, tuple[np.ndarray, bool, Vectors]] = {}
        modules = dict(model.named_modules())
        for path in paths:
            module = modules.get((inside or {}).get(path, path), model)
            module.register_forward_pre_hook(self._before(path), with_kwargs=True)
            module.register_forward_hook(self._after(path))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """One forward pass; what a backward pass runs again is not watched."""
        self._count, self._watching = {}, True
        try:
            yield
        finally:
            self._watching = False

    def _before(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._watching:
                x = args[0] if args else kwargs["input"]
                holder = getattr(module, "like", module)
                vectors = {name: _vector(getattr(holder, name, None)) for name in VECTORS}
                self._open[path] = (_copy(x), module.training, vectors)

        return hook

    def _after(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self._watching:
                x, training, vectors = self._open.pop(path)
                number = self._count.get(path, 0)
                self._count[path] = number + 1
                precision = torch.finfo(output.dtype).eps
                self.calls.setdefault((path, number), []).append(
                    Call(x, _copy(output), training, vectors, precision)
                )

        return hook


def _copy(x: Tensor) -> np.ndarray:
    return np.array(x.detach().double().cpu().numpy())


def _vector(value: Any) -> np.ndarray | None:
    return _copy(value).reshape(-1) if isinstance(value, Tensor) else None


def assert_recording_true(
    recording: Recording, case: Case, reference: ReferenceProbe, rtol: float = 1e-9
) -> None:
    """Everything in `recording` agrees with the oracles, computed from the kept tensors."""
    found = [(record.layer, record.call) for record in recording.layers]
    expected = [(path, call) for path, norm in case.norms.items() for call in range(norm.calls)]
    assert sorted(found) == sorted(expected)
    assert set(reference.calls) == set(expected), "the reference probe itself must have seen every site"
    assert recording.never_called == case.never_called
    assert recording.not_understood == case.not_understood
    for record in recording.layers:
        norm = case.norms[record.layer]
        calls = reference.calls[record.layer, record.call]
        # the running statistics of the layer before this run, also where this call is its second in each pass
        initial = reference.calls[record.layer, record.call if norm.function else 0][0].vectors
        assert_facts_true(record, norm, calls, initial)
        assert_statistics_true(record, norm, calls, initial, rtol)
        assert_histograms_true(record, norm, calls, initial)
    recording.check_sane()


def assert_facts_true(record: LayerRecord, norm: Norm, calls: list[Call], initial: Vectors) -> None:
    """What kind of layer it is, how it ran, and its vectors."""
    last = calls[-1].vectors
    assert (record.kind, record.pools) == (norm.kind, norm.pools)
    assert record.output == norm.output
    assert record.n_calls == len(calls)
    # a frozen norm is not training, whatever its flag
    assert record.n_calls_training == sum(call.training and not norm.frozen for call in calls)
    assert record.n_calls_running == sum(
        norm.running and (norm.frozen or not call.training) for call in calls
    )
    assert record.n_images == sum(len(norm.rows(call.x)) for call in calls)
    gamma = last["weight"] if last["weight"] is None else last["weight"] + norm.weight_offset
    expected = {
        "gamma": gamma,
        "beta": last["bias"],
        "running_mean": initial["running_mean"],
        "running_var": initial["running_var"],
    }
    for name, vector in expected.items():
        real = getattr(record, name)
        assert (real is None) == (vector is None), name
        if vector is not None:
            np.testing.assert_array_equal(real, vector, err_msg=name)


def assert_statistics_true(
    record: LayerRecord, norm: Norm, calls: list[Call], initial: Vectors, rtol: float
) -> None:
    """Moments and counts before and after, the spread over images, and the norm's own statistics."""
    x = [norm.rows(call.x) for call in calls]
    y = [norm.rows(call.y) for call in calls]
    oracles.assert_same_moments(record.pre, _together(x), rtol)
    oracles.assert_same_moments(record.post, _together(y), rtol)
    parts = [oracles.sums_of(SUMS, {"pre": one, "post": other}) for one, other in zip(x, y, strict=True)]
    for name in parts[0]:
        expected, digits = sum(part[name] for part in parts), 0 if RECORDED[name].whole else rtol
        np.testing.assert_allclose(getattr(record, name), expected, rtol=digits, err_msg=name)
    assert_positive_true(record, calls, y)
    origin, _ = reference_of(record, initial, x)
    np.testing.assert_allclose(record.pre_images.origin, origin, rtol=1e-12, atol=1e-12)
    oracles.assert_same_images(record.pre_images, oracles.images(x, record.pre_images.origin), rtol)
    origin = record.pre_folds.origin
    np.testing.assert_array_equal(origin, record.pre_images.origin)
    oracles.assert_same_folds(record.pre_folds, oracles.folds(x, origin), rtol)
    assert_own_statistics_true(record, norm, calls, x, rtol)


def rounding(record: LayerRecord, calls: list[Call]) -> float:
    """How far the layer's own arithmetic may put an output that is zero from zero."""
    largest = max(float(np.abs(call.x[np.isfinite(call.x)]).max(initial=0.0)) for call in calls)
    gain = 1.0 if record.gamma is None else float(np.abs(record.gamma).max())
    shift = 0.0 if record.beta is None else float(np.abs(record.beta).max())
    spacing = max(call.precision for call in calls)
    return 8 * spacing * (gain * largest / np.sqrt(max(record.eps, 1e-30)) + shift)


def assert_positive_true(record: LayerRecord, calls: list[Call], y: list[np.ndarray]) -> None:
    """The count of positive outputs, exactly; an output that is zero but for the layer's rounding counts either way.

    Values that are all equal, as behind a dead ReLU, lie on their own mean: the layer's own arithmetic then
    leaves zeros of a random sign, which the record, computed in float64 from the input, need not share.
    """
    noise = rounding(record, calls)
    least, most = (sum(oracles.n_positive(rows - sign * noise) for rows in y) for sign in (1, -1))
    assert np.all(record.n_positive >= least), (record.n_positive, least)
    assert np.all(record.n_positive <= most), (record.n_positive, most)


def _together(batches: list[np.ndarray]) -> dict[str, np.ndarray]:
    flat = [np.moveaxis(rows, 1, 2).reshape(-1, rows.shape[1]) for rows in batches]
    return oracles.moments(np.concatenate(flat))


def assert_own_statistics_true(
    record: LayerRecord, norm: Norm, calls: list[Call], x: list[np.ndarray], rtol: float
) -> None:
    """Of the calls that the norm normalized with the sample's own statistics."""
    used = [
        rows
        for rows, call in zip(x, calls, strict=True)
        if norm.pools != "batch" and not (norm.running and not call.training)
    ]
    if not used:
        assert record.own_mean is None
        assert record.own_log_var is None
        return
    means, logs = oracles.own_statistics(used, norm.pools, record.eps, norm.n_groups, norm.centred)
    # both are sums over x, and cannot be better than its last digits: of inputs that were centred before, the
    # means are rounding errors and no more
    largest = max(float(np.abs(rows[np.isfinite(rows)]).max(initial=0.0)) for rows in used)
    with np.errstate(all="ignore"):
        of_logs = ROUNDING * (1 + largest**2 / np.exp(np.nanmin(logs, axis=0)))
    oracles.assert_same_moments(record.own_mean, oracles.moments(means), rtol, ROUNDING * largest)
    oracles.assert_same_moments(record.own_log_var, oracles.moments(logs), rtol, of_logs)


def reference_of(record: LayerRecord, initial: Vectors, x: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where the input's counts are placed: by the stored statistics, else by the first batch."""
    if initial["running_mean"] is not None:
        return initial["running_mean"], np.sqrt(initial["running_var"] + record.eps)
    first = oracles.channel_moments(x[0])
    return first["mean"], np.sqrt(first["m2"] / np.maximum(first["n"], 1) + record.eps)


def assert_histograms_true(record: LayerRecord, norm: Norm, calls: list[Call], initial: Vectors) -> None:
    """Counts of input and output, each bin of each channel, on the scale that the first call sets."""
    x = [norm.rows(call.x) for call in calls]
    y = [norm.rows(call.y) for call in calls]
    centre, scale = reference_of(record, initial, x)
    first = calls[0].vectors
    ones = np.ones(record.n_channels)
    gamma = ones if first["weight"] is None else first["weight"] + norm.weight_offset
    beta = 0 * ones if first["bias"] is None else first["bias"]
    _assert_histogram(record.pre_histogram, x, centre, scale)
    _assert_histogram(record.post_histogram, y, beta, np.where(gamma == 0, 1.0, np.abs(gamma)))


def _assert_histogram(found: Any, batches: list[np.ndarray], centre: np.ndarray, scale: np.ndarray) -> None:
    assert found.counts.shape == (1, len(centre), 96)
    np.testing.assert_allclose(found.centre[0], centre, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.scale[0], scale, rtol=1e-12)
    # counted on the scale that is stored, so that the last digit of the scale moves no count
    expected = sum(oracles.histogram(rows, found.centre[0], found.scale[0]) for rows in batches)
    np.testing.assert_array_equal(found.counts[0], expected)
