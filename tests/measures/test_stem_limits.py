"""The first norm's reading at its limits, of records made by hand: enough equations, black, and the order of colors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures.stem import PHOTOGRAPHS, color_order, stem
from bnprobe.recording import LayerRecord, Recording
from bnprobe.recording.neighbours import Stem
from measures.first_norms import CONSTANTS, MATRIX, MEAN, N_CHANNELS, PIXELS, STD, inputs_of, stem_norm


def changed(whole: Recording, **changes: object) -> Recording:
    (first,) = whole.layers
    return replace(whole, layers=(replace(first, **changes),))


def with_stem(first: LayerRecord, matrix: np.ndarray) -> object:
    assert first.neighbours is not None
    return replace(first.neighbours, stem=Stem(matrix, None))


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_black_pixels_are_minus_mean_over_std(share: float) -> None:
    """Fails if black is another input than what the preprocessing makes of a pixel of 0."""
    whole = stem_norm(inputs_of(PIXELS))
    clean, black = (MATRIX @ inputs_of(pixels).mean((0, 2)) for pixels in (PIXELS, 0 * PIXELS))
    found = stem(changed(whole, running_mean=(1 - share) * clean + share * black))
    assert found.trusted, found.why
    assert found.padding_share == pytest.approx(share, abs=1e-9)
    assert found.padding.pixels is None
    assert found.mean_pixels == pytest.approx((1 - share) * PIXELS.mean((0, 2)), rel=1e-6)
    assert found.seen_pixels == pytest.approx(PIXELS.mean((0, 2)), rel=1e-6)
    assert found.mean_input == pytest.approx(((1 - share) * PIXELS.mean((0, 2)) - MEAN) / STD, rel=1e-6)
    assert (found.n_equations, found.n_unknowns) == (N_CHANNELS, 3)


@pytest.mark.parametrize(("n", "enough"), [(5, False), (6, True)])
def test_three_equations_more_than_unknowns_are_enough(n: int, enough: bool) -> None:
    """Fails if residuals of two degrees of freedom are believed, or three are not enough."""
    whole = stem_norm(inputs_of(PIXELS))
    running_mean = whole.layers[0].running_mean.copy()
    running_mean[n:] = np.nan
    found = stem(changed(whole, running_mean=running_mean))
    assert found.trusted is enough
    assert ("too few for 3 input channels" in found.why) is not enough
    assert (found.n_equations, found.n_unknowns) == (n, 3)


def test_an_input_that_no_filter_sees_has_no_condition() -> None:
    """Fails if a division by 0 is a condition number, or warns."""
    whole = stem_norm(inputs_of(PIXELS))
    blind = changed(whole, neighbours=with_stem(whole.layers[0], MATRIX * [1.0, 1.0, 0.0]))
    found = stem(blind)
    assert found.condition == math.inf
    assert not found.trusted
    assert "condition number inf" in found.why


def test_the_condition_is_that_of_the_weighted_equations() -> None:
    """Fails if the largest singular value is multiplied, or channels are not weighed by their σ."""
    whole = stem_norm(inputs_of(PIXELS))
    var = whole.layers[0].running_var
    weighed = MATRIX / np.sqrt(var + 1e-5)[:, None]
    values = np.sqrt(np.linalg.eigvalsh(weighed.T @ weighed))
    assert stem(whole).condition == pytest.approx(values[-1] / values[0], rel=1e-9)


def test_constants_of_other_channels_give_no_pixels() -> None:
    """Fails if three means are read with one constant, or a colour is told without."""
    whole = stem_norm(inputs_of(PIXELS))
    grey = replace(whole, about=replace(whole.about, normalize=type(CONSTANTS)((0.5,), (0.2,))))
    found = stem(grey)
    assert found.trusted
    assert found.mean_pixels is found.seen_pixels is found.padding is None
    assert "normalize=(mean, std)" in found.why


# √2 a from ordinary photographs in one order, √2 (0.079 + a) in the other: red and blue of theirs lie 0.079 apart


@pytest.mark.parametrize(
    ("a", "clear"),
    [
        (0.157, True),  # 0.236 is 1.503 times as much
        (0.159, False),  # 0.238 is 1.497 times as much
        (0.0, True),
        (-0.0288, True),  # 0.0502 and 0.0288 differ by 0.0303 with the √2
        (-0.0290, False),  # 0.0500 and 0.0290 by 0.0297
    ],
)
def test_the_order_of_colours_is_told_where_it_is_clear(a: float, clear: bool) -> None:
    """Fails if one and a half times as near, and by 0.03, is not what is clear."""
    pixels = PHOTOGRAPHS + np.array([a, 0.0, -a])
    assert color_order(pixels) == ("RGB" if clear else "")
    assert color_order(pixels[::-1]) == ("BGR" if clear else "")


def test_one_unknown_is_one_input_channel() -> None:
    """Fails if the sentence counts one channel as several, or three equations are enough for one unknown."""
    whole = stem_norm(inputs_of(PIXELS))
    first = whole.layers[0]
    running_mean = first.running_mean.copy()
    running_mean[3:] = np.nan
    grey = changed(whole, running_mean=running_mean, neighbours=with_stem(first, MATRIX[:, :1]))
    assert stem(grey).why == (
        "Not identifiable here: 3 running means of bn1 are too few for 1 input channel."
    )
