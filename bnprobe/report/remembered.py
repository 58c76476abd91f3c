"""Sentences on what the norms' memory is made of: the data set in the stem, the layers before, the affine map."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import Fit, StemReading
from bnprobe.measures.shape import median
from bnprobe.report.words import count, number, share, shorten


def stem_words(stem: StemReading) -> str:
    """What the first norm knows of the training images, or why it cannot be told."""
    if not stem.trusted or stem.mean_input is None:
        return stem.why
    mean = stem.mean_pixels or stem.mean_input
    unit = "in pixels of 0 to 1" if stem.mean_pixels else "in units of the model's input"
    text = f"The training images had a mean of {_listed(mean)} ({unit}), as {stem.layer} remembers it"
    seen = stem.seen_pixels or stem.seen_input
    text += f"; those of this run have {_listed(seen)}. " if seen else ". "
    return text + " ".join(filter(None, [_padding_words(stem), stem.why]))


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(number(value, 3) for value in values)


def _padding_words(stem: StemReading) -> str:
    padding = stem.padding
    if padding is None:
        return ""
    if padding.pixels is not None:
        return (
            f"They were random crops with {count(padding.pixels, 'pixel')} of black around the image: "
            f"{share(padding.share)} of what the network saw was black."
        )
    if padding.share < max(0.01, 2 * padding.share_se):
        return "There is no sign that black was added to them."
    return f"About {share(padding.share)} of what the network saw was black, as padding makes it."


def implied_words(fit: Fit) -> str:
    """How much of the remembered means the layers before imply; empty where nothing is known."""
    if not fit.n_channels or np.isnan(fit.r2):
        return ""
    controls = ", ".join(f"{number(fit.controls[name], 2)} {words}" for name, words in _CONTROLS.items())
    return (
        f"Of the means that {count(fit.n_layers, 'norm')} remember, {share(max(fit.r2, 0.0))} follows from the norms and "
        f"weights before them (R² {number(fit.r2, 3)}, typically {number(fit.rmse, 2)} remembered σ off, over "
        f"{count(fit.n_channels, 'channel')}). Controls that should do worse: {controls}."
    )


_CONTROLS = {
    "permuted": "with the channels before permuted",
    "constant": "with all of them at their mean",
    "signed": "with γ for |γ|",
    "unpadded": "with borders taken for interior",
}


def affine_words(layers: pd.DataFrame) -> str:
    """What folding the norms into the weights would cost one scale per layer; empty where nothing is known."""
    known = layers[layers["folded_spread"].notna()]
    if known.empty:
        return ""
    spread, eps = median(known["folded_spread"].to_numpy()), median(layers["eps_dominated"].to_numpy())
    text = (
        f"With the norms folded into the weights before them a channel's range is typically {share(spread)} of its "
        f"layer's widest"
    )
    lost = known["bits_lost_worst"].dropna()
    if len(lost):
        worst = known.loc[lost.idxmax()]
        text += (
            f"; one scale for the whole layer costs its worst channel {number(float(lost.max()), 2)} bits, "
            f"at {shorten(worst['layer'])}"
        )
    return f"{text}. In the typical layer eps shapes {share(eps)} of the channels."
