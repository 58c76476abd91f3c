"""What a vector of a norm can be replaced by, and which replacements make a study: of each layer, each stage, and all.

Every replacement keeps something of the vector and takes away the rest. A permutation keeps the distribution over channels
and takes away which channel has which value; the mean keeps the scale; 0 and 1 keep nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.experiments.feature_scales import Output, Scales, input_of, recentered
from bnprobe.experiments.held_vectors import VECTORS, HeldNorm, whole
from bnprobe.experiments.put_back import write
from bnprobe.stats.moments import Array

REPLACEMENTS = {
    "mean": ("data", "0", "implied"),
    "var": ("data", "1", "mean", "implied"),
    "weight": ("1", "mean", "permuted", "unsigned", "initial"),
    "bias": ("0", "mean", "permuted", "initial"),
}
COMPUTED = {
    "scale": ("constant", "two", "position", "loud"),
    "centering": ("removed", "added"),
}
"""Of what layer and RMS norms compute for each token."""

WHOLE = ""
"""The name of all layers together."""

Renewed = Callable[[Sequence[HeldNorm]], Mapping[str, Mapping[str, Tensor]]]
"""New statistics of several norms that are renewed together: by path, the tensors for "mean" and "var"."""


@dataclass(frozen=True, eq=False)
class Variant:
    """A vector replaced in one layer, or in all layers of a stage or of the network."""

    level: str
    """What is changed: a "layer", a "stage" or the "network"."""
    layer: str
    vector: str
    replacement: str
    members: tuple[HeldNorm, ...]
    new: Callable[[], Mapping[str, Tensor]] = dict
    """The tensors to write, by path; of members for which there is a replacement."""
    outputs: Mapping[str, Output] = field(default_factory=dict)
    """What stands in place of the output of members, by path, where no tensor holds what is replaced."""

    @cached_property
    def changes(self) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """The tensors that change: each with a copy of what it holds, and what it gets."""
        new = self.new()
        found = []
        for norm in self.members:
            if norm.path not in new:
                continue
            own = norm.tensors[self.vector].detach()
            if not _same_bits(own, new[norm.path]):
                found.append((norm.tensors[self.vector], own.clone(), new[norm.path]))
        return tuple(found)

    @property
    def changes_nothing(self) -> bool:
        """Whether the model with the replacement is the model as it is."""
        return not (self.changes or self.outputs)

    @contextmanager
    def written(self) -> Iterator[None]:
        """Inside, the model holds the replacement."""
        with ExitStack() as hooks:
            for norm in self.members:
                if norm.path in self.outputs:
                    hook = _in_place_of(norm, self.outputs[norm.path])
                    hooks.callback(norm.module.register_forward_hook(hook, with_kwargs=True).remove)
            with self._tensors_written():
                yield

    @contextmanager
    def _tensors_written(self) -> Iterator[None]:
        try:
            for tensor, _, new in self.changes:
                write(tensor, new)
            yield
        finally:
            for tensor, old, _ in self.changes:
                write(tensor, old)


def variants(
    norms: Mapping[str, HeldNorm],
    vectors: Sequence[str],
    initial: Mapping[str, Tensor],
    renewed: Renewed,
    seed: int,
) -> list[Variant]:
    """All replacements there are: of the whole network first, then of its stages, then of each layer.

    `renewed` gives the statistics of norms that are renewed together, for "data" of several layers.
    """
    found = []
    for level, name, members in grouped(tuple(norms.values())):
        for vector in (v for v in VECTORS if v in vectors):
            holders = tuple(norm for norm in members if vector in norm.tensors)
            for replacement in REPLACEMENTS[vector]:
                able = tuple(norm for norm in holders if _exists(norm, vector, replacement, initial))
                if able:
                    new = _maker(able, vector, replacement, initial, renewed, seed)
                    found.append(Variant(level, name, vector, replacement, able, new))
    return found


def scale_variants(norms: Mapping[str, HeldNorm], vectors: Sequence[str], scales: Scales) -> list[Variant]:
    """All replacements of what layer and RMS norms compute for each token: its scale, and the mean that is subtracted."""
    every = tuple(norm for norm in norms.values() if norm.path in scales.seen)
    found = []
    for level, name, members in grouped(every):
        for vector in (v for v in COMPUTED if v in vectors):
            for replacement in COMPUTED[vector]:
                outputs = {n.path: made for n in members if (made := _computed(n, replacement, scales))}
                if outputs:
                    able = tuple(norm for norm in members if norm.path in outputs)
                    found.append(Variant(level, name, vector, replacement, able, outputs=outputs))
    return found


def _computed(norm: HeldNorm, replacement: str, scales: Scales) -> Output | None:
    """The output of a norm with a replacement; None where it has none."""
    if replacement in ("removed", "added"):
        return recentered(norm.layer) if norm.layer.centred == (replacement == "removed") else None
    return scales.frozen(norm.path, replacement) if replacement in scales.replacements(norm.path) else None


def _in_place_of(norm: HeldNorm, output: Output) -> Callable[..., Tensor | None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, y: Any) -> Tensor | None:
        x = input_of(norm.layer, args, kwargs)
        return output(x, y) if x is not None and isinstance(y, Tensor) and y.shape == x.shape else None

    return hook


def grouped(every: tuple[HeldNorm, ...]) -> list[tuple[str, str, tuple[HeldNorm, ...]]]:
    """Level, name and norms: of the whole network first, then of its stages, then of each layer."""
    return [
        ("network", WHOLE, every),
        *(("stage", name, members) for name, members in stages(every).items()),
        *(("layer", norm.path, (norm,)) for norm in every),
    ]


def stages(norms: Sequence[HeldNorm]) -> dict[str, tuple[HeldNorm, ...]]:
    """Norms by the first part of their path in which paths differ; without stages of one norm, and without one of all."""
    paths = [norm.path.split(".") for norm in norms]
    depth = 0
    while (
        all(len(path) > depth + 1 for path in paths)
        and len({tuple(path[: depth + 1]) for path in paths}) == 1
    ):
        depth += 1
    found: dict[str, tuple[HeldNorm, ...]] = {}
    for norm, path in zip(norms, paths, strict=True):
        name = ".".join(path[: depth + 1])
        found[name] = (*found.get(name, ()), norm)
    return {name: members for name, members in found.items() if 1 < len(members) < len(norms)}


def _maker(
    members: tuple[HeldNorm, ...],
    vector: str,
    replacement: str,
    initial: Mapping[str, Tensor],
    renewed: Renewed,
    seed: int,
) -> Callable[[], Mapping[str, Tensor]]:
    def new() -> Mapping[str, Tensor]:
        if replacement == "data" and len(members) > 1:
            together = renewed(members)
            return {path: tensors[vector] for path, tensors in together.items()}
        return {
            norm.path: norm.as_tensor(vector, replaced(norm, vector, replacement, initial, seed))
            for norm in members
        }

    return new


def replaced(
    norm: HeldNorm, vector: str, replacement: str, initial: Mapping[str, Tensor], seed: int = 0
) -> Array:
    """The values that one norm's vector gets, shape (C,), float64."""
    old = norm.values[vector]
    if replacement in ("0", "1"):
        return np.full_like(old, float(replacement))
    if replacement == "data":
        new = norm.seen.mean if vector == "mean" else norm.seen.var
        return np.where(np.isnan(new), old, new)
    if replacement == "implied":
        return _implied(norm, vector)
    if replacement == "mean":
        return np.sign(old) * np.abs(old).mean() if vector == "weight" else np.full_like(old, old.mean())
    if replacement == "permuted":
        # by name, so that a layer's order does not depend on which others are studied
        order = np.random.default_rng([seed, crc32(f"{norm.path} {vector}".encode())]).permutation(len(old))
        return old[order]
    if replacement == "unsigned":
        return np.abs(old)
    return initial[_key(norm, vector)].detach().double().cpu().numpy().reshape(-1) + norm.offset(vector)


def _exists(norm: HeldNorm, vector: str, replacement: str, initial: Mapping[str, Tensor]) -> bool:
    """Whether one norm has this replacement; some need what the norms before, or another checkpoint, say."""
    if replacement == "implied":
        return bool(np.isfinite(_implied(norm, vector)).all())
    if replacement == "initial":
        key = _key(norm, vector)
        return key in initial and initial[key].numel() == norm.tensors[vector].numel()
    return True


def _implied(norm: HeldNorm, vector: str) -> Array:
    """What the layers before imply; NaN where that is not known, or differs between calls."""
    neighbours = norm.records[0].neighbours
    if len(norm.records) > 1 or neighbours is None or neighbours.implied is None:
        return np.full(norm.layer.n_channels, np.nan)
    return neighbours.implied.mean if vector == "mean" else neighbours.implied.var


def _key(norm: HeldNorm, vector: str) -> str:
    """The name of a vector's tensor in a state dict."""
    return f"{norm.path}.{norm.names[vector]}"


def _same_bits(a: Tensor, b: Tensor) -> bool:
    one, other = whole(a), whole(b)
    return bool(torch.equal(one, other) or ((one == other) | (one.isnan() & other.isnan())).all())
