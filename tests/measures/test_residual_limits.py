"""Branch against skip at its limits: small variances, none at all, a layer scale, and several ways."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.measures import residual
from bnprobe.recording.neighbours import Neighbours
from measures.sites import site, some_rows

ROWS = some_rows(5, 2)


@pytest.mark.parametrize(
    ("branch", "skip", "share"), [(0.1, 0.3, 1 / 4), (0.0, 2.0, 0.0), (0.0, 0.0, math.nan)]
)
def test_the_share_of_a_scaled_branch(branch: float, skip: float, share: float) -> None:
    """Fails if both variances together must be more than 1, or nothing of nothing is a share."""
    neighbours = Neighbours("mul", skip="other", scale="gamma_1", scaled_var=branch, scaled_skip_var=skip)
    found = residual.layer_columns(site(ROWS, neighbours=neighbours))
    assert (found["skip"], found["layer_scale"]) == ("other", "gamma_1")
    assert (found["branch_var"], found["skip_var"]) == (branch, skip)
    assert found["branch_share"] == pytest.approx(share, nan_ok=True)
    assert math.isnan(found["branch_share_initial"])


@pytest.mark.parametrize(
    ("gamma", "skip", "initial", "shares"),
    [
        ([0.1, 0.3], [0.05, 0.15], [0.0, 0.0], (0.05 / 0.15, 1.0)),
        ([0.1, 0.3], [0.05, np.nan], [0.25, np.nan], (0.05 / 0.1, 0.8)),
        ([0.0, 0.0], [0.0, 0.0], [0.5, 0.1], (math.nan, 1 / 1.3)),
        (None, [3.0, 3.0], [3.0, 3.0], (1 / 4, 1 / 4)),
    ],
)
def test_the_share_of_a_branch_by_parameters(
    gamma: list[float] | None, skip: list[float], initial: list[float], shares: tuple[float, float]
) -> None:
    """Fails if small variances are none, a channel that is not known spoils the others, or γ is needed."""
    neighbours = Neighbours(
        "relu | add", skip="other", skip_var=np.array(skip), skip_var_initial=np.array(initial)
    )
    made = site(ROWS, gamma=gamma, neighbours=neighbours)
    found = residual.layer_columns(made)
    assert (found["branch_share"], found["branch_share_initial"]) == pytest.approx(shares, nan_ok=True)
    assert found["branch_var"] == pytest.approx(made.post.var_population.mean())


@pytest.mark.parametrize(
    ("skip", "initial"), [(None, None), (np.ones(2), None), (None, np.ones(2))], ids=["both", "now", "then"]
)
def test_a_sum_with_something_else_than_norms_has_no_share(
    skip: np.ndarray | None, initial: np.ndarray | None
) -> None:
    """Fails if one of the two is enough."""
    found = residual.layer_columns(
        site(ROWS, neighbours=Neighbours("add", skip_var=skip, skip_var_initial=initial))
    )
    assert not math.isnan(found["branch_var"])
    assert all(math.isnan(found[name]) for name in ("skip_var", "branch_share", "branch_share_initial"))
