"""How a discrepancy runs through the network: a break at one norm, growth from norm to norm, variance that shrinks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bnprobe.rules.course import course_of, grown_by_a_sum, outgrows


def layers(discrepancies: list[float], ratios: list[float] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {"discrepancy": discrepancies, "var_ratio_median": ratios or [1.0] * len(discrepancies)}
    )


def test_drift_spread_over_many_norms_is_no_break():
    """Fails if weights that changed a little everywhere are searched for at one norm."""
    spread = list(np.linspace(0.05, 0.9, 13))
    assert course_of(layers(spread)).kind == "growing"
    assert course_of(layers([0.05, 0.35, 0.6, 0.8, 1.0, 1.2])).kind == "growing"
    assert course_of(layers([0.05, 0.06, 0.05, 0.9, 0.7, 0.8])).kind == "break"


@pytest.mark.parametrize(
    ("discrepancies", "kind"),
    [
        ([0.9, 0.5, 0.3, 0.2], "from the start"),
        ([0.31, 0.5, 0.6, 0.9], "from the start"),
        ([0.2, 0.5, 0.6, 0.9], "growing"),
        ([0.05, 0.5, 0.6, 0.9], "break"),
        ([0.05, 0.06], ""),
        ([0.0, 0.0, 0.0], ""),
        ([np.nan, 0.05, 0.06, 0.9], "break"),
    ],
)
def test_where_a_deviation_is(discrepancies, kind):
    """Fails if the first norm's share, or the step at one norm, is measured against something else."""
    assert course_of(layers(discrepancies)).kind == kind


def test_averaged_weights_shrink_the_variance_at_every_norm():
    """Fails if what no images do, a ratio that falls from norm to norm, is not seen."""
    assert course_of(layers([0.4, 0.8, 1.0, 1.4], [0.47, 0.25, 0.14, 0.07])).shrinks
    assert course_of(layers([0.05, 0.2, 0.4, 0.5, 0.8], [0.95, 0.8, 0.6, 0.62, 0.4])).shrinks is False


def test_less_contrast_does_not_shrink_from_norm_to_norm():
    """Fails if images of less contrast, whose ratio stays about the same, are taken for averaged weights."""
    assert not course_of(layers([0.7, 0.72, 0.75, 0.78], [0.25, 0.24, 0.22, 0.21])).shrinks
    assert not course_of(layers([0.7, 0.5, 0.3, 0.1], [0.25, 0.4, 0.6, 0.9])).shrinks


def test_ratios_that_are_unknown_or_none_are_passed_over():
    """Fails if a norm whose inputs are constant, or not finite, hides that the variance shrinks at all others."""
    ratios = [0.47, np.nan, 0.25, 0.0, 0.14, np.inf, 0.07]
    assert course_of(layers([0.4, 0.5, 0.8, 0.9, 1.0, 1.2, 1.4], ratios)).shrinks
    assert not course_of(layers([0.4, 0.5, 0.8, 0.9], [0.47, np.nan, 0.0, 0.07])).shrinks


@pytest.mark.parametrize(
    ("ratios", "shrinks"),
    [
        ([0.5, 0.4, 0.25], True),
        ([0.5, 0.4, 0.26], False),
        ([1.0, 0.5, 0.25], False),
        ([0.9, 0.7, 0.8, 0.6, 0.5, 0.4], True),
        ([0.9, 0.7, 0.8, 0.85, 0.5, 0.4], False),
        # a ratio that stays does not fall
        ([0.9, 0.7, 0.7, 0.6, 0.5, 0.4], True),
        ([0.9, 0.7, 0.7, 0.6, 0.6, 0.4], False),
    ],
)
def test_how_far_and_how_steadily_the_variance_must_fall(ratios, shrinks):
    """Fails if the last ratio need not be the first squared, one of five steps may not rise, or the first may be 1."""
    assert course_of(layers(list(np.linspace(0.4, 1.4, len(ratios))), ratios)).shrinks is shrinks


@pytest.mark.parametrize(
    ("discrepancy", "kind"),
    [
        ([0.1, 0.1], ""),
        ([0.0, 0.0, 0.0], ""),
        ([0.34, 0.5, 1.0], "from the start"),
        ([0.33, 0.33, 1.0], "break"),
        ([0.0, 0.33, 1.0], "break"),
        ([0.0, 0.34, 1.0], "growing"),
        ([0.0, 0.3, 0.6, 1.0], "growing"),
        ([0.0, 0.25, 0.75, 1.0], "break"),
        ([0.0, 0.26, 0.75, 1.0], "growing"),
        ([0.0, 1.0, 0.1, 0.1], "break"),
        ([0.0, np.nan, 1.0], ""),
        ([0.0, np.nan, 0.0, 1.0], "break"),
        # exactly a third is little, at the first norm and before the step
        ([1.0, 1.0, 3.0], "break"),
        ([1.0, 1.2, 3.0], "growing"),
    ],
)
def test_the_course_of_a_discrepancy_at_its_limits(discrepancy: list[float], kind: str) -> None:
    """Fails if a third at the first norm, half of the way in one step, or a third before that step change sides."""
    assert course_of(layers(discrepancy)).kind == kind


@pytest.mark.parametrize(
    ("discrepancies", "grows"),
    [
        ([0.7, 2.4, 3.5, 4.8], True),
        ([0.7, 1.4, 1.4], False),  # twice as much may be passed on
        ([0.7, 1.3, 1.6, 3.0], True),
        ([0.7, 0.6, 0.5, 3.0], False),
        ([0.7, np.nan, 2.4, 3.5], True),
        ([0.7, 2.4], False),
        ([], False),
    ],
)
def test_what_inputs_could_not_pass_on(discrepancies, grows):
    """Fails if one later norm decides, or two norms are a course."""
    assert outgrows(layers(discrepancies)) is grows


BRANCH = ["relu", "relu", "add, relu", "relu", "add, relu"]


@pytest.mark.parametrize(
    ("discrepancies", "ratios", "follows", "last"),
    [
        ([0.02, 0.04, 0.05, 0.3, 0.2], [1.0, 1.0, 1.0, 1.33, 0.98], BRANCH, "c"),
        # the branch itself is off, as by weights that changed
        ([0.02, 0.3, 0.4, 0.5, 0.5], [1.0, 1.3, 1.3, 1.3, 1.3], BRANCH, ""),
        ([0.02, 0.3, 0.4, 0.5, 0.5], [1.0, 1.3, 1.3, 1.3, 1.3], ["add", *BRANCH[1:]], ""),
        # less is added
        ([0.02, 0.04, 0.05, 0.3, 0.2], [1.0, 1.0, 1.0, 1.1, 0.98], BRANCH, ""),
        ([0.02, 0.04, 0.05, 0.3, 0.2], [1.0, 1.0, 1.0, 1.33, 0.98], ["relu"] * 5, ""),
        ([0.0] * 5, [1.0] * 5, BRANCH, ""),
    ],
)
def test_branches_that_add_more_than_in_training(discrepancies, ratios, follows, last):
    """Fails if a shift within the first branch, one without a sum, or less variance, is put down to dropped branches."""
    known = layers(discrepancies, ratios).assign(follows=follows, layer=list("abcde"))
    assert grown_by_a_sum(known) == last
