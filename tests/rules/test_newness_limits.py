"""How near to its initial values a network is new, at and beside each limit; rows and channels by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bnprobe.rules import newness
from bnprobe.rules.newness import FIRST_STEPS_COUNTED
from bnprobe.rules.thresholds import Limits
from rules.edited import frame

NAN = np.nan


def site(
    gamma: Any = (1.0, 1.0),
    beta: Any = (0.0, 0.0),
    mean: Any = (0.2, -0.1),
    var: Any = (0.7, 0.8),
    **row: Any,
):
    """A norm with these vectors, after five batches and no others during the recording; `row` replaces cells."""
    cells = {"n_batches_tracked": 5, "n_updates": 0, "memory_moved": 0.0, **row}
    return pd.Series(cells), frame(gamma=gamma, beta=beta, running_mean=mean, running_var=var)


STORED_NOTHING = {"mean": (NAN, NAN), "var": (NAN, NAN)}


@pytest.mark.parametrize(
    ("sites", "is_new"),
    [
        ([], False),
        ([site()], True),
        # within a tenth of 1, or of 0 as a whole, where batches are counted
        ([site(gamma=(0.901, 1.099))], True),
        ([site(gamma=(1.0, 1.1001))], False),
        ([site(gamma=(0.8999, 1.0))], False),
        ([site(gamma=(0.099, -0.099))], True),
        ([site(gamma=(0.0, 0.1001))], False),
        ([site(gamma=(0.0, 1.0))], False),
        ([site(beta=(0.099, -0.099))], True),
        ([site(beta=(0.0, -0.1001))], False),
        # a fiftieth without statistics that are stored, a tenth if no β has moved
        ([site(gamma=(1.019, 1.0), beta=(0.019, 0.0), **STORED_NOTHING)], True),
        ([site(gamma=(1.021, 1.0), beta=(0.019, 0.0), **STORED_NOTHING)], False),
        ([site(gamma=(1.0, 1.0), beta=(-0.021, 0.0), **STORED_NOTHING)], False),
        ([site(gamma=(1.09, 1.0), **STORED_NOTHING)], True),
        ([site(gamma=(1.09, 1.0), beta=(NAN, NAN), **STORED_NOTHING)], False),
        # nothing is known of what stores nothing
        ([site(gamma=(NAN, NAN), beta=(NAN, NAN), **STORED_NOTHING)], False),
        # 22 batches where nothing has moved, 100 where something has
        ([site(n_batches_tracked=22)], True),
        ([site(n_batches_tracked=23)], False),
        ([site(gamma=(1.0, 1.01), n_batches_tracked=100)], True),
        ([site(gamma=(1.0, 1.01), n_batches_tracked=101)], False),
        ([site(), site(gamma=(1.0, 1.01), n_batches_tracked=100)], True),
        # what was updated during the recording counts, too; what nobody counted is known by its values
        ([site(gamma=(1.0, 1.01), n_updates=101)], False),
        ([site(gamma=(1.0, 1.01), n_updates=100)], True),
        ([site(n_batches_tracked=0, mean=(0.0, 0.0), var=(1.0, 1.0))], True),
        ([site(n_batches_tracked=0)], False),
        ([site(n_batches_tracked=1)], True),
        ([site(n_batches_tracked=NAN)], False),
        ([site(n_batches_tracked=NAN, mean=(0.0, 0.0), var=(1.0, 1.0), n_updates=NAN)], True),
        (
            [site(n_batches_tracked=0, mean=(0.0, 0.0), var=(1.0, 1.0), n_updates=101, gamma=(1.0, 1.01))],
            False,
        ),
        # a channel that is missing says nothing of the others
        ([site(gamma=(NAN, 1.05), mean=(NAN, 0.2), var=(NAN, 0.7))], True),
        ([site(gamma=(NAN, 1.05), beta=(NAN, 0.0), **STORED_NOTHING)], True),
        ([site(gamma=(NAN, NAN), beta=(NAN, NAN))], True),
        ([site(gamma=(NAN, NAN), beta=(NAN, NAN), n_batches_tracked=23)], False),
        ([site(gamma=(1.0, 1.01), mean=(NAN, 0.2), var=(NAN, 0.7), n_batches_tracked=101)], False),
        # one norm that is trained is enough
        ([site(), site(gamma=(1.5, 1.0))], False),
        ([site(), site(n_batches_tracked=500)], False),
    ],
)
def test_a_network_is_new_near_its_initial_values(sites: list[Any], is_new: bool) -> None:
    """Fails if a limit is elsewhere, of another vector or sign, or one norm decides for all."""
    assert newness.network_is_new(sites) is is_new


@pytest.mark.parametrize(
    ("gamma", "beta", "beyond"),
    [
        ((1.0, 0.0), (0.0, 0.0), False),
        ((1.099, 0.901), (0.099, -0.099), False),
        ((0.099, -0.099), (0.0, 0.0), False),
        ((1.101, 1.0), (0.0, 0.0), True),
        ((1.0, 0.899), (0.0, 0.0), True),
        ((1.0, -0.101), (0.0, 0.0), True),
        ((1.0, 0.101), (0.0, 0.0), True),
        ((1.0, 1.0), (0.0, -0.101), True),
        ((1.0, 1.0), (0.1, 0.0), True),
        ((NAN, NAN), (NAN, NAN), False),
        ((NAN, NAN), (NAN, 0.5), True),
        ((NAN, 0.5), (NAN, NAN), True),
    ],
)
def test_beyond_the_first_steps_is_a_tenth_from_where_a_vector_began(
    gamma: Any, beta: Any, beyond: bool
) -> None:
    """Fails if a sign counts, a vector is missed, or all channels must be so far."""
    assert newness.beyond_first_steps(frame(gamma=gamma, beta=beta)) is beyond


@pytest.mark.parametrize(
    ("mean", "var", "moved", "expected"),
    [
        ((0.0, 0.0), (1.0, 1.0), 0.0, (True, True)),
        ((0.0, 0.0), (1.0, 1.0), 1e-9, (True, False)),
        ((0.0, 0.0), (1.0, 1.0), NAN, (True, True)),
        ((0.0, 0.1), (1.0, 1.0), 0.0, (False, False)),
        ((0.0, 0.0), (1.0, 1.1), 0.0, (False, False)),
        ((NAN, NAN), (NAN, NAN), NAN, (False, False)),
    ],
)
def test_statistics_are_fresh_that_are_initial_and_stay_so(
    mean: Any, var: Any, moved: float, expected: tuple[bool, bool]
) -> None:
    """Fails if one channel is enough, one of the two vectors is, or an update during the recording is overlooked."""
    row, channels = site(mean=mean, var=var, memory_moved=moved)
    assert (newness.at_start(row, channels), newness.fresh(row, channels)) == expected
    assert newness.updated_meanwhile(row) is (moved > 0)


def test_all_sites_at_once_are_those_one_by_one() -> None:
    """Fails if a channel counts for the norm beside it, or a mean set by hand counts where batches were counted."""
    sites = [
        site(mean=mean, var=var, n_batches_tracked=n)
        for mean in ((0.0, 0.0), (0.0, 0.1), (NAN, NAN))
        for var in ((1.1, 1.0), (1.0, 1.0), (1.0, 1.1))
        for n in (0, 5, NAN)
    ]
    layers = pd.DataFrame([row for row, _ in sites], index=range(3, 3 + len(sites)))
    channels = pd.concat([of_site.assign(channel=range(2)) for _, of_site in sites], ignore_index=True)
    found = newness.each_at_start(layers, channels)
    assert found.tolist() == [newness.at_start(*one) for one in sites]
    assert found.tolist().count(True) == 5
    assert list(found.index) == list(layers.index)
    ones = [False] * 3 + [True] * 3 + [False] * 3
    assert newness.every(channels, channels["running_var"] == 1).tolist() == ones * 3
    nothing = channels.head(0)
    assert newness.every(nothing, nothing["running_var"] == 1).tolist() == []


@pytest.mark.parametrize(
    ("gamma", "beta", "expected"),
    [
        ((1.0, 1.0), (0.0, 0.0), True),
        ((0.0, 0.0), (0.0, 0.0), True),
        ((0.0, 1.0), (0.0, 0.0), False),
        ((1.0, 1.0), (0.0, 1e-9), False),
        ((1.0, 1.01), (0.0, 0.0), False),
        ((NAN, NAN), (NAN, NAN), True),
        ((NAN, NAN), (0.1, 0.0), False),
        ((2.0, 2.0), (NAN, NAN), False),
    ],
)
def test_gamma_and_beta_are_at_their_start_exactly(gamma: Any, beta: Any, expected: bool) -> None:
    """Fails if a mixture of 0 and 1 is a start, one channel decides, or a vector that is missing has moved."""
    assert newness.affine_at_start(frame(gamma=gamma, beta=beta)) is expected


@pytest.mark.parametrize(
    ("before", "shift", "normalized_by", "jumps"),
    [
        (0.1, 3.1, "running", True),
        (0.1, 3.0, "running", False),
        (0.49, 3.1, "running", True),
        (0.5, 3.1, "running", False),
        (NAN, 3.1, "running", False),
        (0.1, 9.0, "batch", False),
    ],
)
def test_a_jump_of_a_new_network(before: float, shift: float, normalized_by: str, jumps: bool) -> None:
    """Fails if a shift that grew from norm to norm counts, or one of up to 3 running σ, beside the rest of the initial 0."""
    channels = frame(
        running_mean=(0.0, 0.0), running_var=(1.0, 1.0), pre_mean=(shift, -shift), shift=(shift, -shift)
    )
    row = {"eps": 0.0, "initial_weight": 0.05, "normalized_by": normalized_by}
    sites = [(pd.Series({"shift_rms": before}), channels), (pd.Series(row), channels)]
    assert newness.breaks(sites, 1, Limits()) == jumps
    assert not newness.breaks(sites[1:], 0, Limits())


@pytest.mark.parametrize(
    ("left", "nearer"),
    [
        # of the means 3 and 6 three quarters were taken in: 4 and 8 would be there without the initial 0
        (0.25, [1.5, 1.0]),
        # where nothing is left, or it is not known, they count as they are
        (0.0, [2.0, 1.0]),
        (1.0, [2.0, 1.0]),
        (NAN, [2.0, 1.0]),
    ],
)
def test_how_far_means_are_off_beyond_their_start(left: float, nearer: list[float]) -> None:
    """Fails if eps is taken off, a variance is a standard deviation, or what is nearer by itself is moved away."""
    row = pd.Series({"initial_weight": left, "eps": 1.0})
    channels = frame(running_mean=[3.0, 6.0], running_var=[3.0, 8.0], pre_mean=[7.0, 2.0], shift=[9.0, -1.0])
    assert newness.beyond_start(row, channels).tolist() == pytest.approx(nearer)


@pytest.mark.parametrize(
    ("sites", "is_new"),
    [
        ([site(beta=(FIRST_STEPS_COUNTED, 0.0))], False),
        ([site(gamma=(FIRST_STEPS_COUNTED, 0.0))], False),
        # batches that are counted in one of the norms tell of all
        ([site(gamma=(1.05, 1.0), beta=(0.05, 0.0)), site(gamma=(1.05, 1.0), **STORED_NOTHING)], True),
        ([site(gamma=(1.05, 1.0), beta=(0.05, 0.0), **STORED_NOTHING)], False),
    ],
)
def test_the_first_steps_end_at_a_tenth(sites: list[Any], is_new: bool) -> None:
    """Fails if a tenth itself is covered in the first steps, or every norm must count its batches."""
    assert newness.network_is_new(sites) is is_new
