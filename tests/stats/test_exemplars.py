"""A top-k that adds up: every order and every split of the samples gives what sorting all of them gives."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from bnprobe.errors import BnprobeError
from bnprobe.stats import Exemplars
from bnprobe.stats.moments import Array

N, C = 23, 4


def values(rng: np.random.Generator) -> Array:
    """Of N samples and C channels: one with many ties, one constant, one where some samples have no value."""
    drawn = rng.normal(size=(N, C))
    drawn[:, 1] = np.round(drawn[:, 1])
    drawn[:, 2] = 7.0
    drawn[::3, 3] = np.nan
    return drawn


def of(drawn: Array, numbers: Array, k: int, positions: Array | None = None) -> Exemplars:
    """Those of samples with these numbers and values (M, C)."""
    both = np.broadcast_to(drawn.T, (2, *drawn.T.shape))
    sample = np.where(np.isnan(both), -1.0, numbers)
    places = np.full_like(both, np.nan) if positions is None else np.broadcast_to(positions, both.shape)
    return Exemplars.of(both, sample, np.where(np.isnan(both), np.nan, places), k)


def expected(drawn: Array, numbers: Array, k: int) -> list[list[list[tuple[float, float]]]]:
    """By Python's own sort: (value, number) of the best, by side and channel."""
    found = []
    for sign in (1.0, -1.0):
        side = []
        for channel in drawn.T:
            known = sorted((-sign * v, n) for v, n in zip(channel, numbers, strict=True) if not np.isnan(v))
            side.append([(-sign * v, n) for v, n in known[:k]])
        found.append(side)
    return found


def listed(kept: Exemplars) -> list[list[list[tuple[float, float]]]]:
    pairs = np.stack([kept.value, kept.sample], axis=-1)
    return [[[tuple(p) for p in channel if p[1] >= 0] for channel in side] for side in pairs.tolist()]


@pytest.mark.parametrize("k", [1, 3, 8, N, 40])
def test_any_order_and_split_is_the_full_sort(rng, k):
    """Fails if ties go by the order of arrival, a side is sorted the wrong way, or a part is cut too short."""
    drawn, numbers = values(rng), np.arange(N) * 10.0
    whole = expected(drawn, numbers, k)
    for _ in range(6):
        order = rng.permutation(N)
        cuts = np.sort(rng.integers(0, N + 1, size=4))
        parts = [of(drawn[part], numbers[part], k) for part in np.split(order, cuts)]
        shuffled = [parts[i] for i in rng.permutation(len(parts))]
        merged = reduce(Exemplars.merge, shuffled)
        assert listed(merged) == whole
        assert merged.value.shape == (2, C, k)
        assert (np.isnan(merged.value) == (merged.sample < 0)).all()
        merged.check_sane()


def test_the_smaller_k_is_kept(rng):
    """Fails if a merged part claims more than the part that kept fewer can know."""
    drawn, numbers = values(rng), np.arange(N) * 1.0
    merged = of(drawn[:9], numbers[:9], 5).merge(of(drawn[9:], numbers[9:], 2))
    assert merged.k == 2
    assert listed(merged) == expected(drawn, numbers, 2)


def test_a_sample_comes_once_on_a_side_by_its_best_value(rng):
    """Fails if a file that is seen in two parts takes two places, or its worse value is kept."""
    first, second = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    numbers = np.arange(6.0)
    for k in (2, 4, 9):
        merged = of(first, numbers, k).merge(of(second, numbers, k))
        high, low = (
            expected(np.fmax(first, second), numbers, k)[0],
            expected(np.fmin(first, second), numbers, k)[1],
        )
        assert listed(merged) == [high, low]
        again = of(second, numbers, k).merge(of(first, numbers, k))
        assert listed(again) == listed(merged)


def test_positions_go_with_their_values(rng):
    """Fails if positions stay where they were when values are sorted, or differ by order in equal values of a sample."""
    drawn, numbers = rng.normal(size=(8, 2)), np.arange(8.0)
    merged = of(drawn[4:], numbers[4:], 3, 10 + numbers[4:]).merge(
        of(drawn[:4], numbers[:4], 3, 10 + numbers[:4])
    )
    np.testing.assert_array_equal(merged.position, 10 + merged.sample)
    a, b = (of(drawn[:1], numbers[:1], 1, np.array([at])) for at in (5.0, 2.0))
    assert a.merge(b).position.tolist() == b.merge(a).position.tolist() == [[[2.0]] * 2] * 2


def test_nothing_is_the_identity(rng):
    """Fails if a part without a sample changes the whole."""
    kept = of(values(rng), np.arange(N) * 1.0, 3)
    nothing = of(np.zeros((0, C)), np.zeros(0), 3)
    for merged in (kept.merge(nothing), nothing.merge(kept)):
        for name, found in vars(merged).items():
            np.testing.assert_array_equal(found, getattr(kept, name))


def test_new_numbers_keep_their_places(rng):
    """Fails if what is no sample is numbered, too."""
    kept = of(values(rng)[:2], np.array([4.0, 9.0]), 3).renumbered(lambda sample: sample * 2)
    assert set(kept.sample.ravel().tolist()) == {8.0, 18.0, -1.0}


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.value[0, 0].sort(),
        lambda kept: kept.value[1, 0, :2].__setitem__(0, 99.0),
        lambda kept: kept.sample[0, 0].__setitem__(0, -1.0),
        lambda kept: kept.sample[0, 0].__setitem__(0, 1.5),
        lambda kept: kept.sample[0, 0].__setitem__(0, -2.0),
        lambda kept: kept.value[0, 0].__setitem__(0, np.inf),
        lambda kept: kept.position[0, 0].__setitem__(0, -3.0),
        lambda kept: kept.position[0, 0].__setitem__(0, 2.5),
    ],
    ids=[
        "high rises",
        "low falls",
        "a value of nobody",
        "half a sample",
        "below nobody",
        "infinite",
        "before all",
        "between two positions",
    ],
)
def test_what_cannot_be_is_refused(rng, change):
    """Fails if a file can hold a ranking that no samples have."""
    kept = of(values(rng), np.arange(N) * 1.0, 3)
    kept.check_sane()
    of(values(rng), np.arange(N) * 1.0, 3, np.arange(N) * 1.0).check_sane()
    change(kept)
    with pytest.raises(BnprobeError, match=r"do not go together|not in order"):
        kept.check_sane()


def test_shapes():
    """Fails if fields of unequal shapes are taken."""
    with pytest.raises(BnprobeError, match=r"shape \(2, C, K\)"):
        Exemplars(np.zeros((3, 4, 1)), np.zeros((3, 4, 1)), np.zeros((3, 4, 1)))
    with pytest.raises(BnprobeError, match="one number and one position"):
        Exemplars(np.zeros((2, 4, 1)), np.zeros((2, 4, 2)), np.zeros((2, 4, 1)))
    assert repr(Exemplars(*np.zeros((3, 2, 4, 1)))) == "Exemplars(1 on either side of 4 channels)"
