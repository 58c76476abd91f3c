"""What no run can have written is named, with its place; what a run may have written is not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measures.sites import gradient, memory_of, recording, site, some_rows

from bnprobe.recording import Recording
from bnprobe.recording.validation import MOST, violations

ROWS = some_rows(4, 3, 5)


def healthy() -> Recording:
    return recording(site(ROWS, "stem.bn", **memory_of(ROWS), gradient=gradient(ROWS)))


def said_of(whole: Recording) -> list[str]:
    """What is named in a recording."""
    return list(violations(whole.about, whole.layers))


def with_layer(**changes: Any) -> Recording:
    whole = healthy()
    return replace(whole, layers=(replace(whole.layers[0], **changes),))


def with_about(**changes: Any) -> Recording:
    whole = healthy()
    return replace(whole, about=replace(whole.about, **changes))


def test_what_a_run_writes_is_sane():
    """Fails if a healthy recording, or the NaN and infinity of a diverged network, would be refused."""
    assert said_of(healthy()) == []
    assert said_of(with_layer(gamma=np.array([np.nan, np.inf, -np.inf]), momentum=None)) == []


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (with_about(seconds=-1.0), "about / seconds: a run cannot take -1.0 s."),
        (with_about(seconds=math.nan), "about / seconds: a run cannot take nan s."),
        (with_about(n_images=-1), "about / n_images: expected a count, found a number below 0."),
        (with_about(n_images=MOST + 1), "about / n_images: expected a count, found a number of astronomical size."),
        (with_layer(eps=-1e-5), "stem.bn / eps: expected a number that is not negative, found -1e-05."),
        (with_layer(eps=math.inf), "stem.bn / eps: expected a number that is not negative, found inf."),
        (with_layer(momentum=-math.inf), "stem.bn / momentum: expected a finite number, found -inf."),
        (with_layer(output="guessed"), "stem.bn / output: expected derived or read, found 'guessed'."),
    ],
)  # fmt: skip
def test_a_field_that_no_run_writes(odd, said):
    """Fails if it is believed, or its place is not told."""
    assert said_of(odd) == [said]


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan, np.inf, 2.0**54])
def test_counts_are_counts(value):
    """Fails if half an image, or a count that is not a number, is believed."""
    (said,) = said_of(with_layer(pre_nonfinite=np.array([0.0, value, 0.0])))
    assert (
        said
        == "stem.bn / pre_nonfinite: expected counts, found numbers that are negative, broken or too large."
    )


def test_sums_of_squares_are_not_negative():
    """Fails if an energy below zero is believed."""
    odd = replace(gradient(ROWS), energy=np.array([1.0, -1.0, 1.0]))
    (said,) = said_of(with_layer(gradient=odd))
    assert said == "stem.bn / gradient / energy: sums of squares are not negative."
