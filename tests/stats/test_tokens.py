"""Sums over tokens: what adds up, what is kept of the loudest, and what no tokens have."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import reduce
from typing import Any

import numpy as np
import pytest

from bnprobe.errors import BnprobeError
from bnprobe.stats.tokens import ADDED, N_BUCKETS, N_LOUD, N_SCALES, SCALES, TokenStats

C = 3


def some(seed: int, n_sequences: float = 2.0, loud: list[list[float]] | None = None) -> TokenStats:
    """Sums that tokens could have, a few of the loudest among them."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(N_SCALES)
    counts[100:104] = rng.integers(3, 9, size=4)
    n = np.zeros(N_BUCKETS)
    n[:3] = [2, 1, 3]
    return TokenStats(
        n=n,
        log_sum=rng.normal(size=N_BUCKETS),
        log_square=rng.normal(size=N_BUCKETS) ** 2,
        scales=counts,
        z_sum=rng.normal(size=C),
        z_square=rng.normal(size=C) ** 2,
        mean_share=np.array([0.5]),
        n_sequences=np.array([n_sequences]),
        pairs=np.array([4.0, 7.5]),
        centred_pairs=np.array([2.0, 1.5]),
        branch=np.array([3.0, -1.0, 2.0, 0.5]),
        loudest=np.array(
            loud if loud is not None else [[9.0, 1, 5, -1, 2, 0.5], [3.0, 0, 4, -1, 1, 0.25]], dtype=float
        ),
    )


def same(a: TokenStats, b: TokenStats) -> None:
    for field in fields(TokenStats):
        np.testing.assert_allclose(getattr(a, field.name), getattr(b, field.name), err_msg=field.name)


def test_sums_add_up_and_sequences_go_on() -> None:
    """Fails if a field is left out of a merge, or sequences of the second part have the numbers of the first's."""
    a, b = some(1), some(2, loud=[[5.0, 0, 7, -1, 0, 0.75]])
    both = a.merge(b)
    for name in ADDED:
        np.testing.assert_allclose(getattr(both, name), getattr(a, name) + getattr(b, name), err_msg=name)
    assert both.loudest.tolist() == [[9, 1, 5, -1, 2, 0.5], [5, 2, 7, -1, 0, 0.75], [3, 0, 4, -1, 1, 0.25]]
    assert set(ADDED) | {"loudest"} == {field.name for field in fields(TokenStats)}


def test_nothing_is_the_identity_and_any_split_gives_the_whole() -> None:
    """Fails if an empty part adds something, or how parts are grouped matters."""
    parts = [some(seed) for seed in range(4)]
    whole = reduce(TokenStats.merge, parts)
    nothing = TokenStats.empty(C)
    same(nothing.merge(parts[0]), parts[0])
    same(parts[0].merge(nothing), parts[0])
    same(parts[0].merge(parts[1]).merge(parts[2].merge(parts[3])), whole)
    assert nothing.n_tokens == 0
    assert whole.n_tokens == sum(part.scales.sum() for part in parts)


def test_the_loudest_are_kept_whatever_the_order_of_parts() -> None:
    """Fails if more than the loudest are kept, the quietest are, or which of two alike goes first depends on who
    was merged into whom."""
    loud = [[float(r), 0, r, -1, 0, 0.1] for r in range(N_LOUD, 0, -1)]
    both = some(1, loud=loud).merge(some(2, loud=[[r + 0.5, *rest] for r, *rest in loud]))
    assert len(both.loudest) == N_LOUD
    assert both.loudest[:, 0].tolist() == [8.5, 8, 7.5, 7, 6.5, 6, 5.5, 5]
    rows = [[2.0, 1, 3, -1, 0, 0.1], [2.0, 0, 3, -1, 0, 0.1], [2.0, 0, 2, 5, 0, 0.1], [2.0, 0, 2, 5, 1, 0.1]]
    one, other = some(1, 0.0, rows[:2]), some(2, 0.0, rows[2:])
    assert one.merge(other).loudest.tolist() == other.merge(one).loudest.tolist()
    first, second = (some(1, 0.0, [row]) for row in rows[:2])
    assert first.merge(second).loudest.tolist() == second.merge(first).loudest.tolist()


def test_scales_are_the_middles_of_bins_of_an_eighth_of_an_octave() -> None:
    """Fails if a bin's scale is one of its ends, or the first is not at 2^-32."""
    assert SCALES[0] == pytest.approx(2.0 ** (-32 + 1 / 16))
    assert SCALES[-1] == pytest.approx(2.0 ** (32 - 1 / 16))
    np.testing.assert_allclose(SCALES[1:] / SCALES[:-1], 2 ** (1 / 8))


@pytest.mark.parametrize("field", [field.name for field in fields(TokenStats)])
def test_a_field_of_another_shape_is_refused(field: str) -> None:
    """Fails if sums of other buckets, channels or tokens are taken for these."""
    value = getattr(some(1), field)
    longer = np.concatenate([value, value[:1]]) if field != "loudest" else value[:, :5]
    with pytest.raises(BnprobeError, match=r"tokens / \w+: expected shape"):
        replace(some(1), **{field: longer})


@pytest.mark.parametrize("n", [N_LOUD, N_LOUD + 1])
def test_no_more_than_the_loudest_are_kept(n: int) -> None:
    """Fails if a file may hold any number of tokens."""
    loud = [[float(n - i), 0, i, -1, 0, 0.1] for i in range(n)]
    if n == N_LOUD:
        assert len(some(1, loud=loud).loudest) == n
    else:
        with pytest.raises(BnprobeError, match="loudest: expected shape"):
            some(1, loud=loud)


def at(values: np.ndarray, i: int, value: float) -> np.ndarray:
    changed = values.copy()
    changed.ravel()[i] = value
    return changed


GOOD = some(1)
BAD: list[dict[str, Any]] = [
    *({name: at(getattr(GOOD, name), 0, np.nan)} for name in (field.name for field in fields(TokenStats))),
    *(
        {name: at(getattr(GOOD, name), 0, -1e-9)}
        for name in ("n", "scales", "z_square", "pairs", "centred_pairs")
    ),
    *({name: at(getattr(GOOD, name), 0, -1e-9)} for name in ("branch", "mean_share", "n_sequences")),
    {"pairs": at(GOOD.pairs, 1, -1.0)},
    {"pairs": at(GOOD.pairs, 0, 4.5)},
    {"n": at(GOOD.n, 0, GOOD.n_tokens)},
]


@pytest.mark.parametrize("change", BAD, ids=lambda change: next(iter(change)))
def test_what_no_tokens_have_is_refused(change: dict[str, Any]) -> None:
    """Fails if a negative count, half a pair, or more tokens at known positions than tokens are believed."""
    with pytest.raises(BnprobeError, match="here: "):
        replace(GOOD, **change).check_sane("here")


def test_what_tokens_may_have_is_believed() -> None:
    """Fails if a sum of logarithms or cosines must be positive, positions must all be known, or all of them may not be."""
    assert GOOD.check_sane() is GOOD
    replace(GOOD, log_sum=-GOOD.log_sum, z_sum=-GOOD.z_sum, branch=np.array([0.0, -1, -1, -1])).check_sane()
    replace(GOOD, n=np.zeros(N_BUCKETS)).check_sane()
    replace(GOOD, n=at(np.zeros(N_BUCKETS), 3, GOOD.n_tokens)).check_sane()
    TokenStats.empty(C).check_sane()
