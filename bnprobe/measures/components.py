"""What a channel's variance is made of: differences between classes, between samples of a class, inside a sample.

The law of total variance, every sample counting alike: the mean over samples of the variance inside a sample, and the
variance of a sample's mean, divisor n - 1, so that few samples do not seem to differ less than many. They add up to the
variance of all values of many such samples. Digits are lost where inputs lie a million standard deviations from the
running mean.
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column, Columns, Paint
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array, ratio

_LAW = "law of total variance"
_SHARES = ("share_class", "share_image", "share_within")
COLUMNS = (
    Column(
        "share_class",
        "Share of the variance that is between classes: how much the channel says about the label.",
        "share of the variance between samples explained by class, minus chance, · (1 − share_within); may fall below 0",
        "0 to 1",
        "epsilon squared: Kelley 1935",
        rank=5,
        paint=Paint("shape and classes", "share of the variance between classes", "mako", "share"),
    ),
    *(
        Column(
            f"share_class_{end}",
            f"{which} end of the 95% interval of share_class, if samples are independent.",
            f"share_class with F / F({quantile}; K − 1, n − K) for F, the mean square between classes over that within",
            "0 to 1",
            "classes as drawn from many: Searle 1971",
        )
        for end, which, quantile in (("low", "Lower", 0.975), ("high", "Upper", 0.025))
    ),
    Column(
        "share_image",
        "Share of the variance that is between samples of one class; between all samples where no labels are known.",
        "1 − share_within − share_class",
        "0 to 1",
        _LAW,
        rank=8,
        paint=Paint("shape and classes", "share of the variance between samples", "mako", "share"),
    ),
    Column(
        "share_within",
        "Share of the variance that is inside a sample, from position to position; what instance norm would keep.",
        "mean over samples of a sample's variance / (it + the variance of a sample's mean, divisor n − 1)",
        "0 to 1",
        _LAW,
        rank=5,
        paint=Paint("shape and classes", "share of the variance within a sample", "mako", "share"),
    ),
    Column(
        "share_class_median",
        "Typical share of the variance between classes.",
        "median share_class",
        "0 to 1",
        table="layers",
    ),
    Column(
        "share_image_median",
        "Typical share of the variance between samples of one class, or between all where no labels are known.",
        "median share_image",
        "0 to 1",
        table="layers",
    ),
    Column(
        "share_within_median",
        "Typical share of the variance inside a sample.",
        "median share_within",
        "0 to 1",
        table="layers",
    ),
    Column(
        "class_of_between_median",
        "Typical share of the variance between samples that their labels explain, minus chance.",
        "median share_class / (share_class + share_image)",
        "0 to 1",
        "epsilon squared: Kelley 1935",
        "layers",
    ),
    Column("n_classes", "Number of classes among the labels given.", table="layers"),
    Column("n_labeled", "Number of samples with a label.", table="layers"),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The three shares, which add up to 1, and the interval of the first, shape (C,) each.

    NaN for a constant channel or nothing seen.

    Without labels `share_class` is NaN, and `share_image` is everything between samples; where only some
    samples had a label, theirs stand for all.
    """
    between = _between(record)
    unknown = np.full(record.n_channels, np.nan)
    explained = [unknown] * 3 if record.classes is None else [record.classes.share, *record.classes.interval]
    # samples that do not differ at all differ by nothing between classes
    flat = (between == 0) & (record.classes is not None)
    of_class, low, high = (np.where(flat, 0.0, share) * between for share in explained)
    return {
        "share_class": of_class,
        "share_class_low": low,
        "share_class_high": high,
        "share_image": between - np.where(np.isnan(of_class), 0.0, of_class),
        "share_within": 1 - between,
    }


def _between(record: LayerRecord) -> Array:
    """Variance of a sample's mean over the variance of all values of many samples that count alike; shape (C,)."""
    images = record.pre_images
    # one sample differs from no other
    between = np.where(images.n > 1, images.var_between, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        inside = images.b - images.a**2 - ratio(images.aa, images.n)
        total = between + np.maximum(inside, 0.0)
    return ratio(between, np.where(record.pre.m2 > 0, total, 0.0))


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float]:
    """Medians over channels, which need not add up to 1, and what was labeled."""
    columns, classes = channels or channel_columns(record), record.classes
    return {
        **{f"{name}_median": median(columns[name]) for name in _SHARES},
        "class_of_between_median": float("nan") if classes is None else median(classes.share),
        "n_classes": 0 if classes is None else len(classes.labels),
        "n_labeled": 0 if classes is None else int(classes.n_images),
    }
