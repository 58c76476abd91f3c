"""What was seen, where, and from what: plain frozen data that adds up.

A `Recording` knows nothing of torch. Whatever is shown later is arithmetic on it, so a report can
be made on a laptop from a file, and the recordings of two machines can be merged first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from bnprobe.certificate import Certificate
from bnprobe.errors import BnprobeError, CannotMerge
from bnprobe.neighbours import Wiring
from bnprobe.stats import ClassMoments, Histogram, ImageMoments, Moments
from bnprobe.stats.moments import Array

BATCH, INSTANCE, GROUP, CHANNELS = POOLS = ("batch", "instance", "group", "channels")
"""What a norm pools over: the batch per channel; each sample's channel; each sample's group of
channels; or all channels at each position (layer and RMS norm)."""

UNKNOWN = "unknown"
"""In place of a pool: of a norm that was read from a file, without the module that would tell."""

WEIGHTS_ONLY = "weights only"
"""The mode of a norm that was not called: all that is known of it is what the weights around it say."""


def site_name(layer: str, call: int) -> str:
    """The name of a site in messages, sentences and tables: the path, and the call where it is not the first."""
    return f"{layer} (call {call + 1})" if call else layer


@dataclass(frozen=True)
class FeederRecord:
    """The weights before a norm, per output channel and over backward passes; shapes (C,).

    `norm` is |w|, `grad_norm` |dL/dw|, `angle` the angle in radians by which a step of learning rate 1
    along the gradient turns w (to first order), `gap` the largest violation of the identity that ties
    <w, dL/dw> to gamma's gradient, relative to |w| |dL/dw|; NaN where it was not checked.
    """

    norm: Moments
    grad_norm: Moments
    angle: Moments
    gap: Array

    def merge(self, other: Self) -> Self:
        """Both parts together."""
        return replace(
            self,
            norm=self.norm.merge(other.norm),
            grad_norm=self.grad_norm.merge(other.grad_norm),
            angle=self.angle.merge(other.angle),
            gap=np.fmax(self.gap, other.gap),
        )


@dataclass(frozen=True)
class GradientRecord:
    """What backward passes did at one site; shapes (C,).

    `dy` and `dx` are moments of the gradient at the norm's output and input over all values; `gamma`,
    `beta` moments over backward passes of dL/dgamma and dL/dbeta, `importance` of |gamma dgamma + beta
    dbeta|. `energy` is the sum of (dy gamma / sqrt(var + eps))^2: what the energy of dx would be if the
    norm's mean and variance were constants, over the `n_passes_dx` passes that have a dx. `gap_centre`
    and `gap_map` are the largest violations of sum dx = 0 and of dx = dy gamma / sqrt(running_var +
    eps), relative; NaN where they do not apply.
    None stands for gradients that autograd did not compute (a frozen parameter, an input without one).
    """

    n_passes: int
    n_passes_dx: int
    dy: Moments
    dy_nonfinite: Array
    dx: Moments | None
    gamma: Moments | None
    beta: Moments | None
    importance: Moments | None
    energy: Array
    gap_centre: Array
    gap_map: Array
    feeder: FeederRecord | None

    def merge(self, other: Self) -> Self:
        """Both parts together; a gradient that only one part has is kept from that part."""
        kept: dict[str, Any] = {
            name: _merge_optional(getattr(self, name), getattr(other, name), True)
            for name in ("dx", "gamma", "beta", "importance", "feeder")
        }
        return replace(
            self,
            **kept,
            n_passes=self.n_passes + other.n_passes,
            n_passes_dx=self.n_passes_dx + other.n_passes_dx,
            dy=self.dy.merge(other.dy),
            dy_nonfinite=self.dy_nonfinite + other.dy_nonfinite,
            energy=self.energy + other.energy,
            gap_centre=np.fmax(self.gap_centre, other.gap_centre),
            gap_map=np.fmax(self.gap_map, other.gap_map),
        )


def _parts(record: FeederRecord | GradientRecord, at: str) -> Iterator[tuple[str, Array | Moments]]:
    """The arrays and moments of a record of gradients, with their names."""
    for name, value in vars(record).items():
        if isinstance(value, FeederRecord):
            yield from _parts(value, f"{at} / {name}")
        elif value is not None and not isinstance(value, int):
            yield f"{at} / {name}", value


@dataclass(frozen=True)
class Ledger:
    """The circumstances of a site's calls, and what the layer held after the last one.

    `n_calls_learning` calls fell into passes that compute gradients, `n_calls_model_training` into passes of a
    model that was in train mode as a whole. `n_ranks` is the number of processes that train together, 1
    where there is one. `fewest_values` are the values behind one mean and variance in the smallest call that the
    norm normalized by its own statistics, `fewest_call` which of the site's calls that was (from 0) and
    `fewest_images` its samples; None where there was no such call. `gamma_learns` and `beta_learns` say
    whether they require a gradient, None where they are missing. `n_updates` is by how much
    num_batches_tracked grew over all calls of the layer, None where it is not kept. The running statistics as
    they were after the recording have shape (C,), or are None.
    """

    n_calls_learning: int
    n_calls_model_training: int
    n_ranks: int
    fewest_values: float | None
    fewest_call: int | None
    fewest_images: int | None
    gamma_learns: bool | None
    beta_learns: bool | None
    n_updates: int | None
    running_mean_after: Array | None
    running_var_after: Array | None

    def merge(self, other: Self) -> Self:
        """Both parts together. Calls are numbered within their part; the later memory is taken from `other`."""
        smaller = min(self, other, key=Ledger._size)
        return replace(
            other,
            n_calls_learning=self.n_calls_learning + other.n_calls_learning,
            n_calls_model_training=self.n_calls_model_training + other.n_calls_model_training,
            n_ranks=max(self.n_ranks, other.n_ranks),
            fewest_values=smaller.fewest_values,
            fewest_call=smaller.fewest_call,
            fewest_images=smaller.fewest_images,
            n_updates=None
            if self.n_updates is None or other.n_updates is None
            else self.n_updates + other.n_updates,
        )

    def _size(self) -> tuple[float, float]:
        """What makes a call the smaller one: fewer values, then fewer samples."""
        values, images = self.fewest_values, self.fewest_images
        return inf if values is None else values, inf if images is None else images


@dataclass(frozen=True)
class LayerRecord:
    """One site, that is one norm layer at one call of the forward pass: (layer path, call number).

    Shapes: C channels, G groups of the norm's own statistics. Arrays are float64. `gamma` and
    `beta` are as of the last recorded call; `running_mean` and `running_var` as of the first, which
    is what the norm remembered before this run. `output` says whether the statistics after the norm
    were "derived" from those before it, or "read" because the map is not one affine map per row.
    `mismatch` is the largest difference at the first call between the real output and the formula
    of the kind, in units of the largest output; NaN where it was not checked. `wiring` is what was found
    around the layer when it was first called, or None. `classes` are the images by class, as far as labels
    were given, or None. `ledger` holds the circumstances of the calls, or None where nobody kept it. Without a
    single call every statistic is empty: such a record holds the vectors of a checkpoint, where an unknown
    `momentum` is NaN.
    """

    layer: str
    call: int
    kind: str
    class_name: str
    pools: str
    eps: float
    momentum: float | None
    n_batches_tracked: int | None
    gamma: Array | None
    beta: Array | None
    running_mean: Array | None
    running_var: Array | None
    parameters_moved: bool
    buffers_moved: bool
    n_calls: int
    n_calls_training: int
    n_calls_running: int
    n_images: int
    output: str
    mismatch: float
    pre: Moments
    pre_images: ImageMoments
    pre_nonfinite: Array
    pre_histogram: Histogram | None
    post: Moments
    post_nonfinite: Array
    post_histogram: Histogram | None
    n_positive: Array
    own_mean: Moments | None
    own_log_var: Moments | None
    gradient: GradientRecord | None = None
    wiring: Wiring | None = None
    classes: ClassMoments | None = None
    ledger: Ledger | None = None

    def __post_init__(self) -> None:
        c = self.pre.shape
        if len(c) != 1:
            raise BnprobeError(f"{self.site}: expected one entry per channel, got shape {c}.")
        for name in ("pre_nonfinite", "post_nonfinite", "n_positive", *_VECTORS):
            value = getattr(self, name)
            if value is not None and value.shape != c:
                raise BnprobeError(f"{self.site} / {name}: expected shape {c}, found {value.shape}.")
        for name, shape in (("post", self.post.shape), ("pre_images", self.pre_images.n.shape)):
            if shape != c:
                raise BnprobeError(f"{self.site} / {name}: expected shape {c}, found {shape}.")
        for name, part in _parts(self.gradient, f"{self.site} / gradient") if self.gradient else ():
            if part.shape != c:
                raise BnprobeError(f"{name}: expected shape {c}, found {part.shape}.")
        if self.classes is not None and self.classes.within.shape != c:
            found = self.classes.within.shape
            raise BnprobeError(f"{self.site} / classes: expected shape {c}, found {found}.")
        for name in ("running_mean_after", "running_var_after") if self.ledger is not None else ():
            after = getattr(self.ledger, name)
            if after is not None and after.shape != c:
                raise BnprobeError(f"{self.site} / {name}: expected shape {c}, found {after.shape}.")
        if self.pools not in (*POOLS, UNKNOWN):
            raise BnprobeError(
                f"{self.site} / pools: expected one of {', '.join(POOLS)}, found {self.pools!r}."
            )

    @property
    def site(self) -> str:
        """Its name, by `site_name`."""
        return site_name(self.layer, self.call)

    @property
    def n_channels(self) -> int:
        """Number of channels, C."""
        return self.pre.shape[0]

    @property
    def mode(self) -> str:
        """`train` or `eval` by the flag at every call (`eval` where stored statistics are used in spite of it), else
        `mixed`; `weights only` without a call."""
        if self.n_calls == 0:
            return WEIGHTS_ONLY
        if self.n_calls_training == 0:
            return "eval"
        return "train" if self.n_calls_training == self.n_calls else "mixed"

    @property
    def normalized_by(self) -> str:
        """Which statistics normalized: `running`, `batch`, `both`, the sample's own (`sample`), or `nothing` yet."""
        if self.n_calls == 0:
            return "nothing"
        if self.n_calls_running:
            return "running" if self.n_calls_running == self.n_calls else "both"
        return "batch" if self.pools == BATCH else "sample"

    @property
    def has_running(self) -> bool:
        """Whether the layer stores running statistics."""
        return self.running_mean is not None and self.running_var is not None

    def merge(self, other: Self) -> Self:
        """Both parts of the recording of one site; CannotMerge when the weights differ."""
        self._demand_same_layer(other)
        added: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _ADDED}
        merged: dict[str, Any] = {
            name: _merge_optional(getattr(self, name), getattr(other, name), name in _OWN) for name in _MERGED
        }
        return replace(
            self,
            **added,
            **merged,
            parameters_moved=self.parameters_moved or other.parameters_moved,
            buffers_moved=self.buffers_moved or other.buffers_moved,
            output="read" if "read" in (self.output, other.output) else "derived",
            mismatch=float(np.fmax(self.mismatch, other.mismatch)),
            wiring=other.wiring if self.wiring is None or self.wiring.follows == "unknown" else self.wiring,
        )

    def check_sane(self) -> Self:
        """Raise unless every statistic obeys the inequalities that real samples obey."""
        for name in ("pre", "post", "own_mean", "own_log_var"):
            moments = getattr(self, name)
            if moments is not None:
                moments.check_sane(f"{self.site} / {name}")
        for name, part in _parts(self.gradient, f"{self.site} / gradient") if self.gradient else ():
            if isinstance(part, Moments):
                part.check_sane(name)
        if self.classes is not None:
            self.classes.check_sane(f"{self.site} / classes")
        if self.ledger is not None:
            for name in ("n_calls_learning", "n_calls_model_training"):
                if not 0 <= getattr(self.ledger, name) <= self.n_calls:
                    raise BnprobeError(f"{self.site} / {name}: more of such calls than calls.")
        if np.any(self.n_positive > self.post.n + self.post_nonfinite) or np.any(self.n_positive < 0):
            raise BnprobeError(f"{self.site} / n_positive: more positive outputs than outputs.")
        return self

    def _demand_same_layer(self, other: Self) -> None:
        for name in ("layer", "call", "kind", "pools", "eps"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise CannotMerge(
                    f"{self.site}: {name} is {mine!r} in one recording and {theirs!r} in the other, so they "
                    "come from different models. Record both from the same checkpoint."
                )
        for name in _VECTORS:
            gap = _largest_gap(getattr(self, name), getattr(other, name))
            if gap != 0 and (self.buffers_moved or self.parameters_moved):
                raise CannotMerge(
                    f"{self.site}: {name} differs (largest gap {gap:.3g}): it was trained or updated while the first "
                    "part was recorded. Record all of it with one probe, or in eval mode."
                )
            if gap != 0:
                raise CannotMerge(
                    f"{self.site}: {name} differs (largest gap {gap:.3g}), so the two recordings come from "
                    "different weights. Record both shards from the same checkpoint."
                )


_VECTORS = ("gamma", "beta", "running_mean", "running_var")
_ADDED = (
    "n_calls",
    "n_calls_training",
    "n_calls_running",
    "n_images",
    "pre_nonfinite",
    "post_nonfinite",
    "n_positive",
)
_OWN = ("own_mean", "own_log_var", "gradient", "classes", "ledger")
_MERGED = ("pre", "pre_images", "pre_histogram", "post", "post_histogram", *_OWN)


_Statistic = TypeVar(
    "_Statistic", Moments, ImageMoments, Histogram, ClassMoments, FeederRecord, GradientRecord, Ledger
)


def _merge_optional(mine: _Statistic | None, theirs: _Statistic | None, keep: bool) -> _Statistic | None:
    """Merge where both have it.

    Otherwise the one that is there is kept where the other part had nothing to give (`keep`), and left
    out where it did not look: a part recorded without histograms leaves the whole without.
    """
    if mine is None or theirs is None:
        return (mine or theirs) if keep else None
    return mine.merge(theirs)


HISTOGRAMS_LOST = (
    "Histograms are missing: a part of the whole was recorded without them. Record every part with them."
)


def _loses_histograms(mine: LayerRecord, theirs: LayerRecord) -> bool:
    """Whether only one of two parts of a site has a histogram, so that the whole has none."""
    return (mine.pre_histogram is None) != (theirs.pre_histogram is None)


def _largest_gap(mine: Array | None, theirs: Array | None) -> float:
    """Largest absolute difference; infinite where one is missing, or not finite where the other is."""
    if mine is None or theirs is None:
        return 0.0 if mine is theirs else float("inf")
    if mine.shape != theirs.shape:
        return float("inf")
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    gaps = np.abs(mine[~same] - theirs[~same])
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))


@dataclass(frozen=True)
class Normalize:
    """How pixels in 0 to 1 became the model's inputs: (pixel - mean) / std, one entry per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(0 < s < inf for s in self.std):
            raise BnprobeError(
                f"normalize: mean {self.mean} and std {self.std} do not go together. Give one number of each "
                "per channel of the input, every std above zero."
            )


@dataclass(frozen=True)
class About:
    """What was probed, on what, and when: sentences for people, numbers where they add up.

    `seconds` is the time of forward passes, with what the probe does in them; `normalize` holds the constants
    of the preprocessing where they are known.
    """

    model: str
    weights: str = "not stated"
    data: str = "not stated"
    preprocessing: str = "not stated"
    device: str = "cpu"
    versions: str = ""
    started: str = ""
    n_parameters: int = 0
    n_forwards: int = 0
    n_images: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    normalize: Normalize | None = None

    def noting(self, note: str) -> Self:
        """The same with one note more; an empty one is none."""
        return replace(self, notes=tuple(sorted({*self.notes, note}))) if note else self

    def merge(self, other: Self) -> Self:
        """Numbers add; sentences that differ stand side by side."""
        words = ("model", "weights", "data", "preprocessing", "device", "versions")
        return replace(
            self,
            **{name: _side_by_side(getattr(self, name), getattr(other, name)) for name in words},
            started=min(self.started, other.started),
            n_parameters=max(self.n_parameters, other.n_parameters),
            n_forwards=self.n_forwards + other.n_forwards,
            n_images=self.n_images + other.n_images,
            seconds=self.seconds + other.seconds,
            notes=tuple(sorted({*self.notes, *other.notes})),
            # of inputs made in two ways, or in one that is not known, there is no one colour
            normalize=self.normalize if self.normalize == other.normalize else None,
        )


def _side_by_side(mine: str, theirs: str) -> str:
    return " + ".join(sorted({*mine.split(" + "), *theirs.split(" + ")}))


@dataclass(frozen=True)
class Recording:
    """Everything a probe saw, as plain data: a snapshot that stays usable after `detach()`.

    `layers` stand in the order in which they were first reached. `not_understood` names modules
    that look like norms but could not be read, `never_called` norms that no forward pass reached, `folded`
    places where a norm's name stands for nothing any more, behind a convolution that took the norm in.
    `certificate` says what of the model was not the same after the probe; None before `detach()`.
    """

    about: About
    layers: tuple[LayerRecord, ...]
    not_understood: tuple[str, ...] = ()
    never_called: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        seen = [(record.layer, record.call) for record in self.layers]
        if len(set(seen)) != len(seen):
            raise BnprobeError("A recording holds one record per site; this one holds a site twice.")

    @property
    def saw_nothing(self) -> bool:
        """Whether not one value reached a norm, as with batches of no images."""
        return not any(record.pre.n.any() or record.pre_nonfinite.any() for record in self.layers)

    @property
    def weights_only(self) -> bool:
        """Whether no norm was called: what a checkpoint says, without data."""
        return bool(self.layers) and all(record.n_calls == 0 for record in self.layers)

    def merge(self, other: Self) -> Self:
        """Both recordings together, as if made in one go; CannotMerge when the weights differ."""
        if not isinstance(other, Recording):
            raise CannotMerge(
                f"merge needs another Recording, got {type(other).__name__}. Take probe.recording, or "
                "bnprobe.load(path) for a file."
            )
        mine = {(record.layer, record.call): record for record in self.layers}
        theirs = {(record.layer, record.call): record for record in other.layers}
        if mine and theirs and not mine.keys() & theirs.keys():
            raise CannotMerge(
                f"{self.about.model} and {other.about.model} have no layer path in common. "
                "Merge recordings of one model; compare different ones instead."
            )
        both = {site: mine[site].merge(theirs[site]) for site in mine.keys() & theirs.keys()}
        layers = {**mine, **theirs, **both}
        lost = [site for site in both if _loses_histograms(mine[site], theirs[site])]
        reached = {layer for layer, _ in layers}
        return type(self)(
            about=self.about.merge(other.about).noting(HISTOGRAMS_LOST if lost else ""),
            layers=tuple(layers.values()),
            not_understood=tuple(sorted({*self.not_understood, *other.not_understood})),
            never_called=tuple(
                name for name in dict.fromkeys(self.never_called + other.never_called) if name not in reached
            ),
            folded=tuple(sorted({*self.folded, *other.folded})),
            certificate=None if self.certificate is None else self.certificate.merge(other.certificate),
        )

    def save(self, path: str | Path) -> Path:
        """Write the recording to one file without pickle (safetensors layout), atomically."""
        from bnprobe.files import save

        return save(self, Path(path))

    def check_sane(self) -> Self:
        """Raise unless every statistic obeys the inequalities that real samples obey."""
        for record in self.layers:
            record.check_sane()
        return self
