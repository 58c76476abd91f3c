"""Norms that store w and multiply by 1 + w, as the Gemma family does: recognized by config.json, or by values around 0.

The weights alone do not say which convention they follow. Scales that are 0 in every norm, or of both signs around it,
would let nothing or the mirrored input through, which no network does in all of its norms.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnprobe.recording import LayerRecord

FEW = 2
"""Norms without β below which nothing is concluded from them."""

MOST = 0.5
"""Median of a norm's w up to which it lies around 0: scales of other conventions with negative entries lie around 1."""

SOME_NEGATIVE = 0.02
"""Share of negative entries, over all norms, that w has where it lies around 0; other scales have next to none."""

MOST_NORMS = 0.8
"""Share of the norms that must look like this."""

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
    if not named and not _around_zero(scales):
        return layers, ""
    added = (
        replace(layer, gamma=1 + layer.gamma, gamma_offset=1.0)
        if _may_add(layer) and layer.gamma is not None
        else layer
        for layer in layers
    )
    return tuple(added), BY_CONFIG.format(source, model_type) if named else NOTE


def _may_add(layer: LayerRecord) -> bool:
    """Norms with a scale and nothing else: layer norm and batch norm store the scale itself."""
    return layer.kind in ("unknown_norm", "rms_norm") and layer.beta is None


def _around_zero(scales: list[np.ndarray]) -> bool:
    if len(scales) < FEW:
        return False
    if not any(scale.any() for scale in scales):
        return True
    negative = float(np.mean(np.concatenate(scales) < 0))
    around = float(np.mean([abs(np.median(w)) < MOST and bool((w < 0).any()) for w in scales]))
    return negative >= SOME_NEGATIVE and around >= MOST_NORMS
