"""Sentences on what memory is made of: with the numbers at hand, and none where there are none."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from bnprobe.measures import Fit, StemReading
from bnprobe.measures.padding import Padding
from bnprobe.report.remembered import affine_words, implied_words, stem_words

PADDING = Padding(0.1341, 4, 0.131, 0.006, 0.008, 0.19, 0.998)
READING = StemReading(
    True,
    "They agree.",
    "bn1",
    (0.1, 0.2, 0.3),
    (0.431, 0.42, 0.388),
    (0.4, 0.5, 0.6),
    (0.495, 0.484, 0.448),
    PADDING,
)


def test_the_stem_is_told_in_its_numbers():
    """Fails if remembered and seen are swapped, or a padding is told that was not found."""
    words = stem_words(READING)
    assert "mean of 0.431, 0.420, 0.388 (in pixels of 0 to 1), as bn1 remembers it" in words
    assert "those of this run have 0.495, 0.484, 0.448" in words
    assert "random crops with 4 pixels of black around the image: 13" in words
    assert words.endswith("They agree.")


@pytest.mark.parametrize(
    ("padding", "says"),
    [
        (replace(PADDING, pixels=None, share=0.2), "About 20"),
        (replace(PADDING, pixels=None, share=0.005), "no sign that black was added"),
        (replace(PADDING, pixels=1), "1 pixel of black"),
        (None, "have 0.495, 0.484, 0.448. They agree."),
    ],
)
def test_padding_is_told_as_it_was_found(padding, says):
    """Fails if a share within its error is called augmentation."""
    assert says in stem_words(replace(READING, padding=padding))


def test_without_pixels_the_units_are_said():
    """Fails if units of the input pass for colours."""
    words = stem_words(replace(READING, mean_pixels=None, seen_pixels=None, padding=None))
    assert "0.100, 0.200, 0.300 (in units of the model's input)" in words


def test_what_is_not_trusted_is_not_told():
    """Fails if an untrusted mean is printed."""
    assert stem_words(replace(READING, trusted=False, why="Not to be trusted.")) == "Not to be trusted."


def test_what_was_implied_is_told_with_its_controls():
    """Fails if a control is another's, or a network without neighbours has a sentence."""
    fit = Fit(9, 336, 0.987, 0.0722, {"permuted": 0.76, "constant": 0.89, "signed": 0.93, "unpadded": 0.96})
    words = implied_words(fit)
    assert "R² 0.987, typically 0.072 remembered σ off, over 336 channels" in words
    assert "0.76 with the channels before permuted, 0.89 with all of them at their mean" in words
    assert implied_words(Fit(0, 0, math.nan, math.nan, {})) == ""


def test_folding_is_told_with_its_worst_layer():
    """Fails if the worst channel is another layer's."""
    layers = pd.DataFrame(
        {
            "layer": ["a", "b", "c"],
            "folded_spread": [0.5, 0.3, math.nan],
            "bits_lost_worst": [2.0, 5.5, math.nan],
            "eps_dominated": [0.0, 0.25, 0.5],
        }
    )
    words = affine_words(layers)
    assert "costs its worst channel 5.5 bits, at b." in words
    assert "eps shapes 25" in words
    assert affine_words(layers[2:]) == ""
