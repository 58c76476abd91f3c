"""Records made by hand from rows (N, C, P): every field by the slow reference of oracles.py, none by a probe."""

from __future__ import annotations

from typing import Any

import numpy as np
from support import oracles

from bnprobe.measures import output_moments, scale, shift
from bnprobe.measures.standard_errors import adjust
from bnprobe.recording import About, CallLog, GradientRecord, LayerRecord, Recording
from bnprobe.stats import Histogram, ImageMoments, Moments
from bnprobe.stats.fields import SUMS

POOLS = {
    "batch_norm": "batch",
    "instance_norm": "instance",
    "group_norm": "group",
    "layer_norm": "channels",
    "rms_norm": "channels",
}


def some_rows(n: int = 5, n_channels: int = 3, n_positions: int = 14, seed: int = 9) -> np.ndarray:
    """Skewed values, channels at different places and scales, every image at a place of its own."""
    rng = np.random.default_rng(seed)
    rows = rng.gamma(0.7, size=(n, n_channels, n_positions)) + rng.normal(size=(n, n_channels, 1))
    channel = np.arange(n_channels)[:, None]
    return rows * 10.0 ** (channel % 3 - 1) + 5 * channel


def running_stats_of(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Running statistics that agree exactly with the rows, but for the eps 0 that goes with them."""
    return {"running_mean": rows.mean((0, 2)), "running_var": rows.var((0, 2))}


memory_of = running_stats_of
"""Its former name, for tests of other packages."""


def site(rows: np.ndarray, layer: str = "bn", kind: str = "batch_norm", **changes: Any) -> LayerRecord:
    """One call of a norm on `rows`, as a probe would have recorded it; `changes` replace fields.

    A norm with running statistics uses them, any other its own. `histograms=False` leaves those out.
    """
    n, c, _ = rows.shape
    fields: dict[str, Any] = {"gamma": None, "beta": None, "running_mean": None, "running_var": None}
    fields.update({name: changes.pop(name) for name in fields if name in changes})
    fields = {k: None if v is None else np.broadcast_to(np.float64(v), c).copy() for k, v in fields.items()}
    eps, with_histograms = changes.get("eps", 1e-5), changes.pop("histograms", True)
    stored = fields["running_mean"] is not None and fields["running_var"] is not None
    with np.errstate(all="ignore"):
        y = _output(rows, kind, stored, fields, eps)
    pre, post = Moments(**oracles.channel_moments(rows)), Moments(**oracles.channel_moments(y))
    centre = fields["running_mean"] if stored else pre.mean
    centre = np.where(np.isfinite(centre), centre, 0.0)
    itself = POOLS.get(kind, "batch") != "batch" and not stored
    own = _own(rows, kind, eps) if itself else (None, None)
    record: dict[str, Any] = {
        "layer": layer,
        "call": 0,
        "kind": kind,
        "class_name": "".join(part.title() for part in kind.split("_")),
        "pools": POOLS.get(kind, "batch"),
        "eps": eps,
        "momentum": 0.1 if stored else None,
        "n_batches_tracked": 40 if stored else None,
        **fields,
        "parameters_moved": False,
        "buffers_moved": False,
        "n_calls": 1,
        "n_calls_training": 0,
        "n_calls_running": int(stored),
        "n_images": n,
        "output": "derived" if POOLS.get(kind) != "channels" else "read",
        "mismatch": 0.0,
        "pre": pre,
        "pre_images": ImageMoments(origin=centre, **oracles.images([rows], centre)),
        "pre_histogram": _histogram(rows, centre) if with_histograms else None,
        "post": post,
        "post_histogram": _histogram(y, _places(fields["beta"], 0.0, c)) if with_histograms else None,
        **oracles.sums_of(SUMS, {"pre": rows, "post": y, "gate": y}),
        "own_mean": own[0],
        "own_log_var": own[1],
    }
    return LayerRecord(**{**record, **changes})


def alone(record: LayerRecord) -> dict[str, Any]:
    """What is judged of one site, with q as where it is the only one."""
    columns = {}
    for family in (shift, scale, output_moments):
        columns |= family.channel_columns(record)
    adjust([columns])
    return columns


def _places(vector: np.ndarray | None, otherwise: float, c: int) -> np.ndarray:
    values = np.full(c, otherwise) if vector is None else vector
    return np.where(np.isfinite(values), values, otherwise)


def _histogram(rows: np.ndarray, centre: np.ndarray) -> Histogram:
    scale = np.ones_like(centre)
    return Histogram(centre[None], scale[None], oracles.histogram(rows, centre, scale)[None])


def _output(rows: np.ndarray, kind: str, stored: bool, fields: dict[str, Any], eps: float) -> np.ndarray:
    affine = fields["gamma"], fields["beta"], eps
    if stored:
        divisor = np.sqrt(fields["running_var"] + eps)[:, None]
        y = (rows - fields["running_mean"][:, None]) / divisor
        gamma, beta = fields["gamma"], fields["beta"]
        return y * (1.0 if gamma is None else gamma[:, None]) + (0.0 if beta is None else beta[:, None])
    if kind == "instance_norm":
        return oracles.group_norm(rows, rows.shape[1], *affine)
    if kind == "group_norm":
        return oracles.group_norm(rows, 1, *affine)
    if kind == "layer_norm":
        return oracles.layer_norm(rows, *affine)
    if kind == "rms_norm":
        return oracles.rms_norm(rows, *affine)
    return oracles.batch_norm(rows, *affine)


def _own(rows: np.ndarray, kind: str, eps: float) -> tuple[Moments, Moments]:
    means, logs = oracles.own_statistics([rows], POOLS[kind], eps, centred=kind != "rms_norm")
    return Moments(**oracles.moments(means)), Moments(**oracles.moments(logs))


def gradient(dy: np.ndarray, **changes: Any) -> GradientRecord:
    """Backward passes of one site whose output received the gradients `dy` (N, C, P); gamma and beta in step."""
    passes = np.array([[1.0], [1.1], [0.9]]) * np.ones((1, dy.shape[1]))
    fields: dict[str, Any] = {
        "n_passes": 3,
        "n_passes_dx": 3,
        "dy": Moments(**oracles.channel_moments(dy)),
        "dy_nonfinite": oracles.n_nonfinite(dy).astype(float),
        "dx": Moments(**oracles.channel_moments(dy)),
        "gamma": Moments(**oracles.moments(passes)),
        "beta": Moments(**oracles.moments(passes)),
        "importance": Moments(**oracles.moments(passes)),
        "energy": (dy**2).sum((0, 2)),
        "gap_centre": np.zeros(dy.shape[1]),
        "gap_map": np.full(dy.shape[1], np.nan),
        "producer": None,
    }
    return GradientRecord(**{**fields, **changes})


def call_log(**changes: Any) -> CallLog:
    """The circumstances of one call in a plain evaluation; `changes` replace fields."""
    nothing = dict.fromkeys(
        (
            "fewest_values",
            "fewest_call",
            "fewest_images",
            "n_updates",
            "running_mean_after",
            "running_var_after",
        )
    )
    fields = {"n_calls_learning": 0, "n_calls_model_training": 0, "n_ranks": 1}
    learns = {"gamma_learns": True, "beta_learns": True}
    return CallLog(**{**nothing, **fields, **learns, **changes})


def recording(*layers: LayerRecord, **about: Any) -> Recording:
    """A recording of these sites in one forward pass; what is missing can be named in `about`."""
    names = {name: about.pop(name, ()) for name in ("never_called", "not_understood", "folded")}
    facts = {
        "model": "Net",
        "device": "cpu",
        "versions": "bnprobe 0, torch 0",
        "started": "2024-02-29T00:00:00+00:00",
        "n_parameters": 10,
        "n_forwards": 1,
        "n_images": max((record.n_images for record in layers), default=0),
        "seconds": 0.5,
    }
    return Recording(About(**{**facts, **about}), tuple(layers), **names)
