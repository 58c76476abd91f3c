"""When a mistake of preprocessing is called the cause: every number of that decision, and the constants that are tried."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnprobe.measures.preprocessing import IN_USE, Mistake, _badness, _cleans, _constants, _is_certain, _scale
from bnprobe.recording import Normalize
from measures.first_norms import CONSTANTS, PIXELS, inputs_of, stem_norm
from measures.sites import site, some_rows


def row(**changes: Any) -> dict[str, Any]:
    found = {
        "mistake": "a",
        "shift": 1.0,
        "left_over": 0.0,
        "scale": 1.0,
        "scale_predicted": 1.0,
        "constants": "given",
    }
    return {**found, **changes}


OTHER = row(mistake="b", left_over=0.5)


@pytest.mark.parametrize(
    ("one", "others", "certain"),
    [
        (row(), [], True),
        (row(), [OTHER], True),
        (row(constants="guessed"), [OTHER], True),
        (row(constants="none"), [OTHER], False),
        (row(), [row(mistake="b", left_over=0.1)], True),
        (row(), [row(mistake="b", left_over=0.0999)], False),
        (row(), [row(left_over=0.01)], True),
        (row(scale=1.24), [], True),
        (row(scale=1 / 1.24), [], True),
        (row(scale=1.26), [], False),
        (row(scale=1 / 1.26), [], False),
        (row(scale=9.0, scale_predicted=0.0499), [], True),
        (row(scale=9.0, scale_predicted=0.05), [], False),
    ],
)
def test_a_mistake_is_certain(one: dict[str, Any], others: list[dict[str, Any]], certain: bool) -> None:
    """Fails if another mistake may do nearly as well, the scale may be off by a quarter, or constants may be unknown."""
    assert _is_certain(one, [one, *others]) is certain


def test_an_explanation_is_bad_by_what_it_leaves_and_by_its_scale() -> None:
    """Fails if a scale twice as large and one half as large are not equally far off, or the shift is no unit."""
    assert _badness(row()) == 0
    assert _badness(row(left_over=0.3, shift=2.0)) == pytest.approx(0.15)
    assert _badness(row(scale=2.0)) == pytest.approx(math.log(2))
    assert _badness(row(scale=0.5)) == pytest.approx(math.log(2))
    assert _badness(row(scale=3.0, scale_predicted=6.0, left_over=0.1)) == pytest.approx(0.1 + math.log(2))


def test_a_mistake_as_a_map() -> None:
    """Fails if channels are not exchanged before gain and offset."""
    mean = np.array([1.0, 2.0, 3.0])
    gain, offset = np.array([2.0, 3.0, 4.0]), np.array([0.5, 0.0, -1.0])
    np.testing.assert_array_equal(Mistake("", "", gain, offset).on(mean), [2.5, 6.0, 11.0])
    np.testing.assert_array_equal(Mistake("", "", gain, offset, exchanged=True).on(mean), [6.5, 6.0, 3.0])


def test_the_mean_without_the_black_that_was_added() -> None:
    """Fails if black is another value than that of a black pixel, or shares do not go from none to 30%."""
    clear = np.array([0.7, -0.1, 0.2])
    black = (0 - np.array(CONSTANTS.mean)) / np.array(CONSTANTS.std)
    for i, share in ((0, 0.0), (10, 0.1), (30, 0.3)):
        found = _cleans(CONSTANTS, (1 - share) * clear + share * black)
        assert found.shape == (31, 3)
        np.testing.assert_allclose(found[i], clear, rtol=1e-9)


def test_the_typical_deviation_in_running_ones() -> None:
    """Fails if channels without a variance, or with one that eps hides, are counted, or the mean is typical."""
    rows = np.tile([-1.0, 1.0], (4, 5, 8)) * np.array([2.0, 3.0, 9.0, 0.0, 5.0])[None, :, None]
    record = site(rows, running_mean=0.0, running_var=[1.0, 1.0, 1.0, 1.0, 1e-3], eps=1e-3)
    assert _scale(record) == 3.0
    assert np.isnan(_scale(replace(record, running_var=np.full(5, 1e-3))))


def constants_of(mean: tuple[float, ...], given: Normalize | None) -> list[Normalize]:
    recording = stem_norm(inputs_of(PIXELS))
    about = replace(recording.about, normalize=given)
    return [one for one, _ in _constants(replace(recording, about=about), np.array(mean))]


def test_constants_under_which_the_mean_is_a_colour() -> None:
    """Fails if constants are tried under which a pixel would be below 0 or above 1, or of another number of channels."""
    imagenet, halves, cifar, mnist, half = IN_USE
    assert constants_of((0.0, 0.0, 0.0), None) == [imagenet, halves, cifar]
    assert constants_of((0.0,), None) == [mnist, half]
    assert constants_of((0.0, 0.0), None) == []
    # 0.5 ± 0.5 · 1 are the ends themselves
    assert constants_of((1.0, -1.0, 0.0), None) == [imagenet, halves, cifar]
    assert halves not in constants_of((1.01, 0.0, 0.0), None)
    assert halves not in constants_of((0.0, -1.01, 0.0), None)
    assert constants_of((9.0, 9.0, 9.0), CONSTANTS) == [CONSTANTS]
    assert constants_of((0.0,), CONSTANTS) == []


def test_the_constants_in_use_are_those_of_the_data_sets() -> None:
    """Fails if a digit of a published constant changes: torchvision's own presets, and the usual ones of CIFAR and MNIST."""
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(crop_size=8)
    assert IN_USE[0] == Normalize(tuple(preset.mean), tuple(preset.std))
    assert IN_USE[1] == Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert IN_USE[2] == Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert IN_USE[3:] == (Normalize((0.1307,), (0.3081,)), Normalize((0.5,), (0.5,)))


def test_rows_of_nothing_have_no_scale() -> None:
    """Fails if a norm that saw nothing has a scale, or warns."""
    record = site(some_rows() * np.nan, running_mean=0.0, running_var=1.0)
    assert np.isnan(_scale(record))
