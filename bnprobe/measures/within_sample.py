"""How alike the values of one image are: of one row of the layer's input, where it has several for a sample."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column, Columns
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

COLUMNS = (
    Column(
        "design_effect",
        "Values of one image that count as one for the mean, because they are alike: 1 if independent.",
        "values per image · variance of an image's mean / pre_var",
        "values",
        "Kish 1965, Survey Sampling",
    ),
    Column(
        "icc",
        "Correlation of two values of one image: 0 if images do not differ, 1 if each image is constant.",
        "(design_effect − 1) / (values per image − 1)",
        "",
        "intraclass correlation: Fisher 1925",
    ),
    Column(
        "design_effect_median",
        "Typical number of values of one image that count as one.",
        "median design_effect",
        "values",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Design effect and correlation inside an image, shape (C,) each; NaN where undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        per_image = record.pre.n / record.pre_images.n
        effect = per_image * record.pre_images.var_between / record.pre.var_population
        icc = np.where(per_image > 1, (effect - 1) / (per_image - 1), np.nan)
    return {"design_effect": effect, "icc": icc}


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float]:
    """The typical design effect; NaN where fewer than two images were seen."""
    return {"design_effect_median": median((channels or channel_columns(record))["design_effect"])}
