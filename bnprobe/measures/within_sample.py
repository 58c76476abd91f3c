"""How alike the values of one sample are: of one row of the layer's input, where it has several for a sample."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column, Columns
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

COLUMNS = (
    Column(
        "design_effect",
        "Number of values of one sample that count as one independent value for the mean: 1 if all are independent.",
        "values per sample · variance of a sample's mean / pre_var",
        "values",
        "Kish 1965, Survey Sampling",
    ),
    Column(
        "icc",
        "Correlation of two values of one sample: 0 if samples do not differ, 1 if each sample is constant.",
        "(design_effect − 1) / (values per sample − 1)",
        "",
        "intraclass correlation: Fisher 1925",
    ),
    Column(
        "design_effect_median",
        "Typical number of values of one sample that count as one.",
        "median design_effect",
        "values",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Design effect and correlation inside a sample, shape (C,) each; NaN where undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        per_image = record.pre.n / record.pre_images.n
        effect = per_image * record.pre_images.var_between / record.pre.var_population
        icc = np.where(per_image > 1, (effect - 1) / (per_image - 1), np.nan)
    return {"design_effect": effect, "icc": icc}


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float]:
    """The typical design effect; NaN where fewer than two samples were seen."""
    return {"design_effect_median": median((channels or channel_columns(record))["design_effect"])}
