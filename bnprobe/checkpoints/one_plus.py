"""Norms that store w and multiply by 1 + w, as the Gemma family does: recognized by config.json, or by values around 0.

The weights alone do not say which convention they follow. Scales that are 0 in every norm, or of both signs around it,
would let nothing or the mirrored input through, which no network does in all of its norms.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnprobe.recording import LayerRecord
from bnprobe.stats.around_zero import around_zero

FAMILY = ("gemma", "gemma2", "gemma3", "gemma3_text", "paligemma", "recurrent_gemma", "t5gemma", "qwen3_next")
"""Model types whose code multiplies by 1 + w."""

CONVERTED = 0.75
"""Typical w from which a file of the family was converted to store the scale itself."""

NOTE = (
    "The norms without β store values around 0, so they are taken to multiply by 1 + w, as the Gemma family does: "
    "γ here is 1 + w."
)
BY_CONFIG = "By {} this is a {}, whose norms multiply by 1 + w: γ here is 1 + w."


def with_one_added(
    layers: tuple[LayerRecord, ...], model_type: str = "", source: str = "config.json"
) -> tuple[tuple[LayerRecord, ...], str]:
    """The norms with 1 + w for their scale, and a note that says so; as they are, and no note, elsewhere."""
    scales = [layer.gamma for layer in layers if _may_add(layer) and layer.gamma is not None]
    named = model_type in FAMILY and scales and float(np.median(np.concatenate(scales))) < CONVERTED
    if not named and not around_zero(scales):
        return layers, ""
    added = (
        replace(layer, gamma=1 + layer.gamma, gamma_offset=1.0)
        if _may_add(layer) and layer.gamma is not None
        else layer
        for layer in layers
    )
    return tuple(added), BY_CONFIG.format(source, model_type) if named else NOTE


def _may_add(layer: LayerRecord) -> bool:
    """Layer norm and batch norm store the scale itself."""
    return layer.kind in ("unknown_norm", "rms_norm") and layer.gain_alone
