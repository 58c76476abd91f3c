"""Where in depth a shift is reported: once, where it enters, with advice for where it stands."""

from __future__ import annotations

import numpy as np
from measures.sites import site, some_rows

from rules.firing import fired
from rules.test_running_stats import LEARNED, SHIFTED, moved

ROWS = some_rows(40)
MANY = np.random.default_rng(5).normal(size=(400, 3, 14))


def test_a_shift_is_reported_where_it_enters():
    """Fails if one shift makes a finding per norm, or those behind, and the worst of them, are not counted."""
    found = fired(
        SHIFTED,
        *(site(ROWS, name, **LEARNED, **moved(by)) for name, by in zip("abc", (1, 3, 2), strict=True)),
    )
    assert found["layer"].tolist() == ["a"]
    assert "2 following norms are affected too, with a shift of up to 3.00 σ at b." in found["because"][0]
    assert "Check the preprocessing first" in found["do"][0]


def test_a_shift_after_norms_that_match_is_not_of_the_inputs():
    """Fails if the preprocessing is blamed although the inputs of the first norm match."""
    sites = [
        site(MANY, "first", **LEARNED, **moved(0, rows=MANY)),
        site(MANY, "deep", **LEARNED, **moved(1, rows=MANY)),
        site(MANY, "mended", **LEARNED, **moved(0, rows=MANY)),
        site(MANY, "again", **LEARNED, **moved(1, rows=MANY)),
    ]
    found = fired(SHIFTED, *sites)
    assert found["layer"].tolist() == ["deep", "again"]
    assert "between first and this norm" in found["do"][0]
    assert "between mended and this norm" in found["do"][1]
    assert not found["do"].str.contains("preprocessing").any()
    assert "affected too" not in found["because"][0]


def test_norms_without_usable_statistics_stand_outside():
    """Fails if a layer norm, or one that was never updated, counts as one that agrees."""
    silent = [site(ROWS, "ln", "layer_norm"), site(ROWS, "new", **LEARNED, running_mean=0, running_var=1)]
    found = fired(
        SHIFTED,
        *silent,
        site(ROWS, "a", **LEARNED, **moved(1)),
        site(ROWS, "ln2", "layer_norm"),
        site(ROWS, "b", **LEARNED, **moved(1)),
    )
    assert found["layer"].tolist() == ["a"]
    assert "Check the preprocessing first" in found["do"][0]
