"""One site: a norm layer at one call of the forward pass, and everything seen there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from bnprobe.errors import BnprobeError, CannotMerge
from bnprobe.recording import training_batch
from bnprobe.recording.call_log import CallLog
from bnprobe.recording.gradient_record import GradientRecord, parts_of
from bnprobe.recording.merge import merge_optional
from bnprobe.recording.names import BATCH, POOLS, UNKNOWN, VECTORS, WEIGHTS_ONLY, site_name, spelled
from bnprobe.recording.neighbours import Neighbours
from bnprobe.recording.output_check import OutputCheck
from bnprobe.recording.rank_gap import RankGap
from bnprobe.stats import ClassMoments, Exemplars, Folds, Histogram, ImageMoments, Moments
from bnprobe.stats.fields import RECORDED
from bnprobe.stats.moments import Array
from bnprobe.stats.timesteps import TimestepStats
from bnprobe.stats.tokens import TokenStats

SORTED = 0.1
"""Share of batches of one class, beyond what chance makes of classes as frequent, from which on data are sorted by class."""


@dataclass(frozen=True)
class LayerRecord:
    """One site, that is one norm layer at one call of the forward pass: (layer path, call number).

    Shapes: C channels, G groups of the norm's own statistics. Arrays are float64. `gamma` and
    `beta` are as of the last recorded call; `running_mean` and `running_var` as of the first, which
    is what the norm had stored before this run. `output` says whether the statistics after the norm
    were "derived" from those before it, or "read" because the map is not one affine map per row.
    `mismatch` is the largest difference at the first call between the real output and the formula
    of the kind, in units of the largest output; NaN where it was not checked. `neighbours` is what was found
    around the layer when it was first called, or None. `classes` are the images by class, as far as labels
    were given, or None. `call_log` holds the circumstances of the calls, or None where nobody kept it. `output_check`
    is what the first call showed of the formula, None where it was not checked; `parameter_dtype` is that of
    gamma, or of beta without one, empty where it is not known. `pre_folds` are the batches of the input, dealt to folds,
    None in files that did not keep them. `training_batch` is the number of samples per batch and
    device in training, as the user says, None where it is not known. `n_masked` values per channel were left out by a
    mask, as padding; statistics of the input and the output are without them, `own_mean` and `own_log_var` of norms over
    positions are what the norm computed with them. `tokens` is what norms over channels do to each
    token, None for others. `gamma_offset` is what the layer adds to the weight that it
    stores, so that their sum is gamma. `exemplars` are the samples with the highest and lowest outputs, by their places in
    `Recording.samples`, None where nobody asked for them, or no output belongs to one sample. `ranks` is how far ranks were
    apart that were merged, None where none were. `timesteps` is what the norm met by timestep, None where the model was
    given none. Without a single call every statistic is empty: such a record holds the vectors of a checkpoint, where an
    unknown `momentum` is NaN, and `eps_assumed` says that eps, which a file of weights does not hold, is only the usual one.
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
    neighbours: Neighbours | None = None
    classes: ClassMoments | None = None
    call_log: CallLog | None = None
    eps_assumed: bool = False
    output_check: OutputCheck | None = None
    parameter_dtype: str = ""
    pre_folds: Folds | None = None
    training_batch: int | None = None
    n_masked: int = 0
    tokens: TokenStats | None = None
    exemplars: Exemplars | None = None
    gamma_offset: float = 0.0
    ranks: RankGap | None = None
    timesteps: TimestepStats | None = None

    def __repr__(self) -> str:
        calls = f"{self.n_calls:,} call{'s' * (self.n_calls != 1)}"
        return f"LayerRecord({self.site}: {self.kind}, {self.n_channels:,} channels, {calls}, {self.mode})"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", spelled(self.layer))
        c = self.pre.shape
        if len(c) != 1:
            raise BnprobeError(f"{self.site}: expected one entry per channel, got shape {c}.")
        for name in (*RECORDED, *VECTORS):
            value = getattr(self, name)
            if value is not None and value.shape != c:
                raise BnprobeError(f"{self.site} / {name}: expected shape {c}, found {value.shape}.")
        for name, shape in (("post", self.post.shape), ("pre_images", self.pre_images.n.shape)):
            if shape != c:
                raise BnprobeError(f"{self.site} / {name}: expected shape {c}, found {shape}.")
        if self.pre_folds is not None and self.pre_folds.origin.shape != c:
            found = self.pre_folds.origin.shape
            raise BnprobeError(f"{self.site} / pre_folds: expected shape {c}, found {found}.")
        for name, part in parts_of(self.gradient, f"{self.site} / gradient") if self.gradient else ():
            if part.shape != c:
                raise BnprobeError(f"{name}: expected shape {c}, found {part.shape}.")
        if self.tokens is not None and self.tokens.z_sum.shape != c:
            raise BnprobeError(f"{self.site} / tokens: expected shape {c}, found {self.tokens.z_sum.shape}.")
        if self.timesteps is not None and self.timesteps.n_channels not in (None, c[0]):
            n = self.timesteps.n_channels
            raise BnprobeError(f"{self.site} / timesteps: expected {c[0]} channels, found {n}.")
        if self.exemplars is not None and self.exemplars.value.shape[1:2] != c:
            found = self.exemplars.value.shape
            raise BnprobeError(f"{self.site} / exemplars: expected shape (2, {c[0]}, K), found {found}.")
        if self.classes is not None and self.classes.within.shape != c:
            found = self.classes.within.shape
            raise BnprobeError(f"{self.site} / classes: expected shape {c}, found {found}.")
        for name in ("running_mean_after", "running_var_after") if self.call_log is not None else ():
            after = getattr(self.call_log, name)
            if after is not None and after.shape != c:
                raise BnprobeError(f"{self.site} / {name}: expected shape {c}, found {after.shape}.")
        training_batch.checked(self.training_batch)
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
    def stores(self) -> tuple[str, ...]:
        """The vectors that the layer has, as sentences call them."""
        return tuple(said for name, said in VECTORS.items() if getattr(self, name) is not None)

    @property
    def has_running(self) -> bool:
        """Whether the layer stores running statistics."""
        return self.running_mean is not None and self.running_var is not None

    @property
    def gain_alone(self) -> bool:
        """Whether it learns a scale and nothing else, and multiplies by it as it is stored."""
        return self.gamma is not None and self.beta is None and not self.gamma_offset

    @property
    def is_sorted_by_class(self) -> bool:
        """Whether more batches hold a single one of several classes than chance allows; False without labels."""
        classes, log = self.classes, self.call_log
        if classes is None or log is None or not log.n_calls_labeled or len(classes.n) < 2:
            return False
        by_chance = ((classes.n / classes.n_images) ** (classes.n_images / log.n_calls_labeled)).sum()
        return bool((log.n_calls_one_class or 0) / log.n_calls_labeled > SORTED + by_chance)

    def merge(self, other: Self) -> Self:
        """Both parts of the recording of one site; CannotMerge when the weights differ."""
        self._demand_same_layer(other)
        added: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        added |= {name: _sum_of(getattr(self, name), getattr(other, name)) for name in RECORDED}
        merged: dict[str, Any] = {
            name: merge_optional(getattr(self, name), getattr(other, name), name in _OWN) for name in _MERGED
        }
        return replace(
            self,
            **added,
            **merged,
            parameters_moved=self.parameters_moved or other.parameters_moved,
            buffers_moved=self.buffers_moved or other.buffers_moved,
            output="read" if "read" in (self.output, other.output) else "derived",
            mismatch=float(np.fmax(self.mismatch, other.mismatch)),
            training_batch=training_batch.merged(self.training_batch, other.training_batch),
            neighbours=other.neighbours
            if self.neighbours is None or self.neighbours.follows == "unknown"
            else self.neighbours,
        )

    def check_sane(self) -> Self:
        """Raise unless every statistic obeys the inequalities that real samples obey."""
        for name, moments in self.moments():
            moments.check_sane(name)
        return self.check_counts()

    def moments(self) -> Iterator[tuple[str, Moments]]:
        """All its moments of values, by their names."""
        for name in ("pre", "post", "own_mean", "own_log_var"):
            moments = getattr(self, name)
            if moments is not None:
                yield f"{self.site} / {name}", moments
        for name, part in parts_of(self.gradient, f"{self.site} / gradient") if self.gradient else ():
            if isinstance(part, Moments):
                yield name, part

    def check_counts(self) -> Self:
        """Raise unless what is no moments of values obeys its laws."""
        if self.classes is not None:
            self.classes.check_sane(f"{self.site} / classes")
        if self.tokens is not None:
            self.tokens.check_sane(f"{self.site} / tokens")
        if self.timesteps is not None:
            self.timesteps.check_sane(f"{self.site} / timesteps")
        if self.exemplars is not None:
            self.exemplars.check_sane(f"{self.site} / exemplars")
        if self.pre_folds is not None:
            self.pre_folds.check_sane(f"{self.site} / pre_folds")
            if self.pre_folds.n_batches > self.n_calls:
                raise BnprobeError(f"{self.site} / pre_folds: more batches than calls.")
        if self.call_log is not None:
            for name in ("n_calls_learning", "n_calls_model_training"):
                if not 0 <= getattr(self.call_log, name) <= self.n_calls:
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
        for name in VECTORS:
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


_COUNTS = ("n_calls", "n_calls_training", "n_calls_running", "n_images", "n_masked")


_OWN = (
    "own_mean",
    "own_log_var",
    "gradient",
    "classes",
    "call_log",
    "output_check",
    "tokens",
    "ranks",
    "timesteps",
)


_MERGED = ("pre", "pre_images", "pre_folds", "pre_histogram", "post", "post_histogram", "exemplars", *_OWN)


HISTOGRAMS_LOST = (
    "Histograms are missing: a part of the whole was recorded without them. Record every part with them."
)

EXEMPLARS_LOST = "Exemplars are missing: a part of the whole was recorded without them. Record every part with exemplars=K."


def _sum_of(mine: Array | None, theirs: Array | None) -> Array | None:
    """Both parts of a sum of `stats.fields`; a part that did not look leaves the whole without."""
    return None if mine is None or theirs is None else mine + theirs


def loses_histograms(mine: LayerRecord, theirs: LayerRecord) -> bool:
    """Whether only one of two parts of a site has a histogram, so that the whole has none."""
    return (mine.pre_histogram is None) != (theirs.pre_histogram is None)


def loses_exemplars(mine: LayerRecord, theirs: LayerRecord) -> bool:
    """Whether only one of two parts of a site has exemplars, so that the whole has none."""
    return (mine.exemplars is None) != (theirs.exemplars is None)


def _largest_gap(mine: Array | None, theirs: Array | None) -> float:
    """Largest absolute difference; infinite where one is missing, or not finite where the other is."""
    if mine is None or theirs is None:
        return 0.0 if mine is theirs else float("inf")
    if mine.shape != theirs.shape:
        return float("inf")
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    gaps = np.abs(mine[~same] - theirs[~same])
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps), initial=0.0))
