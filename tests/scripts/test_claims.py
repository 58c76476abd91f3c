"""Whether a claim about a rate holds, by what draws find."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.rule_benchmark.claims import AT_LEAST, AT_MOST, Claim, Trial, rows


@pytest.mark.parametrize(
    ("holds", "nominal", "fine"),
    [
        (AT_MOST, 0.33, True),
        (AT_MOST, 0.1, False),
        (AT_LEAST, 0.34, True),
        (AT_LEAST, 0.6, False),
        ("", 0.1, True),
    ],
)
def test_a_claim_fails_beyond_three_simulation_errors(holds, nominal, fine):
    """Fails if the wrong side of a rate counts, or its error is not that of a mean over draws: 400 draws of a third."""
    trial = Trial("words", 7, (Claim("rate", nominal, holds, float),), lambda rng: (rng.uniform() < 1 / 3,))
    (row,) = rows(trial, 400)
    assert row["found"] == pytest.approx(1 / 3, abs=0.08)
    assert row["error"] == pytest.approx(np.sqrt(2 / 9 / 400), rel=0.1)
    assert row["fine"] is fine


def test_a_rate_that_never_came_is_not_known_exactly():
    """Fails if none of 24 draws proves a rate of 0: the next one may be the first."""
    never = Trial(
        "words",
        7,
        (Claim("rate", 0.9, AT_LEAST, float), Claim("rate", 0.05, AT_LEAST, float)),
        lambda rng: (0.0,),
    )
    far, near = rows(never, 24)
    assert far["error"] > 0
    assert (far["fine"], near["fine"]) == (False, True)
