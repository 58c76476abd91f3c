"""Every column again, from raw values, by loops and textbook formulas; nothing imported from bnprobe.

`rows` is all values of one site as (N images, C, P); `y` the same after the norm.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from support import oracles

NAN = float("nan")


def channel_columns(rows: np.ndarray, y: np.ndarray, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """What `report.channels` must hold of one site, column by column."""
    columns: dict[str, list[float]] = {}
    for c in range(rows.shape[1]):
        one: dict[str, float] = {"n_values": 0.0}
        for side, values in (("pre", rows[:, c]), ("post", y[:, c])):
            one.update({f"{side}_{name}": v for name, v in six(values.ravel()).items()})
        finite = [v for v in y[:, c].ravel() if math.isfinite(v)]
        one["n_values"] = sum(math.isfinite(v) for v in rows[:, c].ravel())
        one["n_nonfinite"] = rows[:, c].size - one["n_values"]
        one["fires"] = sum(v > 0 for v in finite) / len(finite) if finite else NAN
        for name in ("gamma", "beta", "running_mean", "running_var"):
            one[name] = NAN if facts[name] is None else facts[name][c]
        one.update(shift_of(rows[:, c], one, facts))
        one.update(scale_of(rows[:, c], one, facts))
        one.update(targets_of(y[:, c], one))
        one.update(shares_of(rows[:, c]))
        for name, value in one.items():
            columns.setdefault(name, []).append(value)
    found = {name: np.array(values) for name, values in columns.items()}
    n_images = [images_of(rows[:, c]) for c in range(rows.shape[1])]
    found["shift_p"] = np.array(
        [
            two_sided(z, n - 1) if math.isfinite(z) else NAN
            for z, n in zip(found["shift_z"], n_images, strict=True)
        ]
    )
    return found


def six(values: np.ndarray) -> dict[str, float]:
    """Mean, variance (divisor n), skewness, excess kurtosis, extremes; NaN where not defined."""
    x = [float(v) for v in values if math.isfinite(v)]
    if not x:
        return dict.fromkeys(("mean", "var", "skew", "kurtosis", "min", "max"), NAN)
    n, mean = len(x), math.fsum(x) / len(x)
    var, third, fourth = (math.fsum((v - mean) ** k for v in x) / n for k in (2, 3, 4))
    flat = var == 0
    return {
        "mean": mean,
        "var": var,
        "skew": NAN if flat else third / var**1.5,
        "kurtosis": NAN if flat else fourth / var**2 - 3,
        "min": min(x),
        "max": max(x),
    }


def images_of(values: np.ndarray) -> int:
    """Images with a finite value in this channel; `values` is (N, P)."""
    return sum(any(math.isfinite(v) for v in image) for image in values)


def shift_of(values: np.ndarray, one: dict[str, float], facts: dict[str, Any]) -> dict[str, float]:
    """Shift, its certainty, scale and distance of one channel; NaN without running statistics."""
    names = ("shift", "scale_ratio", "kl", "w2", "shift_se", "shift_z")
    if facts["running_mean"] is None or facts["running_var"] is None:
        return dict.fromkeys(names, NAN)
    variance = one["running_var"] + facts["eps"]
    if not variance > 0 or not math.isfinite(one["running_mean"]) or math.isnan(one["pre_mean"]):
        return dict.fromkeys(names, NAN)
    sigma = math.sqrt(variance)
    d = (one["pre_mean"] - one["running_mean"]) / sigma
    r = math.sqrt(var_like_running(values, one["pre_var"], facts)) / sigma
    kl = math.inf if r == 0 else 0.5 * (r * r + d * d - 1) - math.log(r)
    means = [float(np.mean([v for v in i if math.isfinite(v)])) for i in values if np.isfinite(i).any()]
    if len(means) < 2:
        se = NAN
    else:
        between = float(np.var(means, ddof=1))
        in_training = between
        if 0 < (r * sigma) ** 2 < one["running_var"]:
            in_training *= one["running_var"] / (r * sigma) ** 2
        se = math.sqrt(between / len(means) + in_training / running_images(facts)) / sigma
    w2 = math.sqrt(d * d + (r - 1) ** 2)
    z = d / se if se > 0 else NAN
    return {"shift": d, "scale_ratio": r, "kl": kl, "w2": w2, "shift_se": se, "shift_z": z}


def var_like_running(values: np.ndarray, var: float, facts: dict[str, Any]) -> float:
    """The variance that a running one should equal: an instance norm averages that within each image."""
    if facts["pools"] != "instance":
        return var
    return float(
        np.mean([np.var([v for v in i if math.isfinite(v)]) for i in values if np.isfinite(i).any()])
    )


def scale_of(values: np.ndarray, one: dict[str, float], facts: dict[str, Any]) -> dict[str, float]:
    """Certainty of the scale of one channel (N, P), all of it finite; NaN without running statistics."""
    names = ("scale_se", "scale_z")
    var, mean, (n, p) = one["pre_var"], one["pre_mean"], values.shape
    if facts["running_mean"] is None or facts["running_var"] is None or n < 2 or not var > 0:
        return dict.fromkeys(names, NAN)
    squares = [math.fsum((v - mean) ** 2 for v in image) / p for image in values.tolist()]
    of_means = [math.fsum(image) / p for image in values.tolist()]
    spread, between = float(np.var(squares, ddof=1)), float(np.var(of_means, ddof=1))
    of_log = math.sqrt(spread / n + spread / running_images(facts)) / (2 * var)
    seen = var + between / n
    batch = 32 * p
    # a batch of 32 images: v (1 - V / v / 32), with divisor n - 1
    stored = one["running_var"] / (1 - between / seen / 32) * (batch - 1) / batch
    within = var_like_running(values, var, facts)
    if facts["pools"] == "instance":
        seen, stored = within, one["running_var"]
    log = 0.5 * math.log((seen + facts["eps"]) / (stored + facts["eps"]))
    ratio = math.sqrt(within / (one["running_var"] + facts["eps"]))
    return {"scale_se": ratio * of_log, "scale_z": log / of_log if of_log > 0 else NAN}


def targets_of(outputs: np.ndarray, one: dict[str, float]) -> dict[str, float]:
    """The outputs' mean and std against beta and |gamma|, which are 0 and 1 where there are none."""
    beta = 0.0 if math.isnan(one["beta"]) else one["beta"]
    gamma = 1.0 if math.isnan(one["gamma"]) else abs(one["gamma"])
    if gamma == 0:
        return {"beta_error": NAN, "gamma_ratio": NAN}
    return {
        "beta_error": (one["post_mean"] - beta) / gamma,
        "gamma_ratio": math.sqrt(one["post_var"]) / gamma,
    }


def shares_of(values: np.ndarray) -> dict[str, float]:
    """What lies between images and inside them, by loops; all images have the same number of values."""
    inside = math.fsum(float(np.var(image)) for image in values) / len(values)
    means = [float(np.mean(image)) for image in values]
    between = float(np.var(means, ddof=1)) if len(means) > 1 else 0.0
    total = inside + between
    shares = (between / total, inside / total) if total > 0 else (NAN, NAN)
    none = dict.fromkeys(("share_class", "share_class_low", "share_class_high"), NAN)
    return {**none, "share_image": shares[0], "share_within": shares[1]}


def running_images(facts: dict[str, Any]) -> float:
    """Images that the running mean is worth, 32 to a batch."""
    if facts["momentum"] is None:
        return 32.0 * (facts["tracked"] or 19)
    # an average with weight m has the variance m / (2 - m) of one batch's mean
    m = facts["momentum"]
    return 32.0 / (m / (2 - m)) if m > 0 else math.inf


def adjusted(p: np.ndarray) -> np.ndarray:
    """Benjamini & Hochberg 1995, by its definition: the smallest p_(j) m / j over ranks j >= i."""
    ranked = sorted((c for c in range(len(p)) if math.isfinite(p[c])), key=lambda c: p[c])
    q = np.full(len(p), NAN)
    for i, channel in enumerate(ranked):
        rest = [float(p[other]) * len(ranked) / (j + 1) for j, other in enumerate(ranked) if j >= i]
        q[channel] = min(1.0, *rest, 1.0)
    return q


def two_sided(z: float, degrees: int) -> float:
    """Chance of a Student's t as far out as z, by integrating its density over an angle.

    t = sqrt(v) tan(a) turns the density into cos(a)^(v - 1) on (-pi/2, pi/2): smooth, and nothing is cut off.
    """
    nodes, weights = np.polynomial.legendre.leggauss(200)
    start = math.atan(abs(z) / math.sqrt(degrees))

    def area(low: float, high: float) -> float:
        total = 0.0
        for left, right in pairwise(np.linspace(low, high, 9)):  # in pieces, so that a peak is met
            a = (right - left) / 2 * nodes + (right + left) / 2
            total += float(((right - left) / 2 * weights * np.cos(a) ** (degrees - 1)).sum())
        return total

    return area(start, math.pi / 2) / area(0.0, math.pi / 2)


def layer_columns(columns: dict[str, np.ndarray], q: np.ndarray, facts: dict[str, Any]) -> dict[str, float]:
    """What `report.layers` must hold of one site, from its channel columns; `q` is that of the shifts."""
    gamma, beta, shift = facts["gamma"], facts["beta"], columns["shift"]
    return {
        "gamma_abs_median": NAN if gamma is None else middle([abs(g) for g in gamma]),
        "gamma_negative": NAN if gamma is None else sum(g < 0 for g in gamma) / len(gamma),
        "beta_negative": NAN if beta is None else sum(b < 0 for b in beta) / len(beta),
        "pre_skew_median": middle(np.abs(columns["pre_skew"])),
        "pre_kurtosis_median": middle(columns["pre_kurtosis"]),
        "pre_sd_median": middle(np.sqrt(columns["pre_var"])),
        "post_sd_median": middle(np.sqrt(columns["post_var"])),
        "fires_median": middle(columns["fires"]),
        "never_positive": sum(f == 0 for f in columns["fires"]),
        "shift_rms": root_mean_square([s for s in shift if math.isfinite(s)]),
        "var_ratio_median": middle(_variance_ratios(columns, facts)),
        "kl_median": middle(columns["kl"]),
        "shifted_share": share_below(q[~np.isnan(q)], 0.01),
    }


def _variance_ratios(columns: dict[str, np.ndarray], facts: dict[str, Any]) -> list[float]:
    """What the norm divides by now, against what it would by its running statistics: eps is in both."""
    if facts["running_var"] is None:
        return []
    eps, ratio = facts["eps"], columns["scale_ratio"]
    like = [r * r * (v + eps) for r, v in zip(ratio, facts["running_var"], strict=True)]
    return [(v + eps) / (r + eps) for v, r in zip(like, facts["running_var"], strict=True)]


def own_columns(
    rows: np.ndarray, pools: str, eps: float, n_groups: int = 1, centred: bool = True
) -> dict[str, float]:
    """What a norm computes itself: medians over its groups of statistics over samples."""
    means, logs = oracles.own_statistics([rows], pools, eps, n_groups, centred)
    groups = [(means[:, g], logs[:, g]) for g in range(means.shape[1])]
    return {
        "own_mean": middle([float(m.mean()) for m, _ in groups]),
        "own_mean_sd": middle([float(m.std()) for m, _ in groups]),
        "own_sd": math.exp(middle([float(v.mean()) for _, v in groups]) / 2),
        "own_log_var_sd": middle([float(v.std()) for _, v in groups]),
    }


def middle(values: Any) -> float:
    """The middle of the sorted values that are there; of two middle ones, their mean."""
    there = sorted(float(v) for v in values if not math.isnan(v))
    if not there:
        return NAN
    half = len(there) // 2
    if len(there) % 2 or there[half - 1] == there[half]:
        return there[half]
    return (there[half - 1] + there[half]) / 2


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(math.fsum(v * v for v in values) / len(values)) if values else NAN


def share_below(values: np.ndarray, limit: float) -> float:
    return sum(v < limit for v in values) / len(values) if len(values) else NAN
