"""Single operations of attention, against sums over keys in float64: what is looked at, and what is masked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from bnprobe.graph.attention import MASKED, _some, sharpness

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def of_softmax(logits: Tensor, *args: Any, name: str = "_softmax") -> tuple[float, float, float] | None:
    found = sharpness(None, name, (logits, *(args or (-1, False))), {})
    return None if found is None else (float(found[0]), float(found[1]), found[2])


def evenness(rows: Iterable[Iterable[float]]) -> float:
    """The mean entropy of the shares over log of the number of keys."""
    found = []
    for row in rows:
        weights = [math.exp(logit) for logit in row]
        shares = [weight / sum(weights) for weight in weights]
        found.append(-sum(share * math.log(share) for share in shares) / math.log(len(shares)))
    return sum(found) / len(found)


def rows_of(*rows: list[float]) -> Tensor:
    """Logits of one head, -inf up to the longest row."""
    longest = max(map(len, rows))
    return torch.tensor([row + [-math.inf] * (longest - len(row)) for row in rows])[None, None]


TEN, EIGHT, SEVEN = [0.3 * i for i in range(10)], [0.0] * 7 + [-1.5], [0.0, 2.5, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_rows_of_eight_keys_count() -> None:
    """Fails if a row of seven keys enters the mean, one of eight does not, or all are held against the longest row."""
    largest, even, factor = of_softmax(rows_of(TEN, EIGHT, SEVEN))
    assert largest == pytest.approx(2.7)
    assert even == pytest.approx(evenness([TEN, EIGHT]), rel=1e-5)
    assert math.isnan(factor)


@pytest.mark.parametrize("rows", [[SEVEN], [SEVEN, [1.0]], [[1.0, -2.5], [-math.inf, -math.inf]]])
def test_of_few_keys_there_is_no_evenness(rows: list[list[float]]) -> None:
    """Fails if a mean over no rows is a number, or the largest logit is the largest that is positive."""
    largest, even, _ = of_softmax(rows_of(*rows))
    assert largest == 2.5
    assert math.isnan(even)


def test_logits_of_masks_are_not_seen() -> None:
    """Fails if what a mask of half precision adds is a logit, or the largest that are none count as a mask."""
    assert of_softmax(rows_of([0.0] * 8 + [MASKED]))[:2] == (0.0, pytest.approx(1.0))
    assert of_softmax(rows_of([0.0] * 8 + [MASKED + 1]))[0] == -MASKED - 1


@pytest.mark.parametrize(
    ("shape", "args", "seen"),
    [
        ((2, 3, 5, 8), (-1, False), True),
        ((2, 3, 5, 8), (3, False), True),
        ((2, 3, 5, 8), (2, False), False),
        ((2, 3, 5, 8), (0, False), False),
        ((3, 5, 8), (-1, False), False),
        ((1, 2, 3, 5, 8), (-1, False), False),
        ((2, 3, 0, 8), (-1, False), False),
        ((2, 3, 5, 0), (-1, False), False),
    ],
)
def test_which_softmax_is_attention(shape: tuple[int, ...], args: tuple[Any, ...], seen: bool) -> None:
    """Fails if a softmax over queries, or of values that are not (sequences, heads, queries, keys), is looked at."""
    for name in ("_softmax", "softmax", "_safe_softmax"):
        found = of_softmax(torch.zeros(shape), *args, name=name)
        assert found is None if not seen else found[:2] == (0.0, pytest.approx(1.0))


def test_four_sequences_are_looked_at() -> None:
    """Fails if the fifth is looked at, or the fourth is not."""
    logits = torch.zeros(5, 1, 1, 8)
    logits[3, 0, 0, 0] = 3.0
    logits[4, 0, 0, 0] = 5.0
    largest, even, _ = of_softmax(logits)
    assert largest == 3.0
    assert even == pytest.approx(evenness([[0.0] * 8] * 3 + [[3.0] + [0.0] * 7]), rel=1e-5)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, []),
        (1, [0]),
        (2, [1, 0]),
        (64, range(63, -1, -1)),
        (65, range(64, -1, -2)),
        (128, range(127, -1, -2)),
        (129, range(128, -1, -3)),
    ],
)
def test_queries_are_spread_evenly_from_the_last(n: int, expected: Iterable[int]) -> None:
    """Fails if the last query is left out, or more than 64 are looked at."""
    assert _some(n, torch.device("cpu")).tolist() == list(expected)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow(q: Tensor, k: Tensor, scale: float, hidden: Tensor, added: Tensor) -> tuple[float, float]:
    """Largest logit and evenness, one query after another: of 4 sequences and every second of 66 queries.

    `hidden` and `added` are (sequences, queries, keys).
    """
    queries, keys, extra = (tensor.double().numpy() for tensor in (q, k, added))
    seen = (~hidden).numpy()
    largest, rows = 0.0, []
    for n in range(min(len(q), 4)):
        for h in range(q.shape[1]):
            group = h // (q.shape[1] // k.shape[1])
            for t in range(q.shape[2] - 1, -1, -2):
                logits = (keys[n, group] @ queries[n, h, t] * scale + extra[n, t])[seen[n, t]].tolist()
                largest = max(largest, *map(abs, logits))
                if len(logits) >= 8:
                    rows.append(logits)
    return largest, evenness(rows)


T, S, D = 66, 9, 7
NOTHING, NO_BIAS = torch.zeros(5, T, S, dtype=torch.bool), torch.zeros(5, T, S)
FAR = torch.arange(T)[:, None] // 8 < torch.arange(
    S
)  # the first eight queries see one key, the last all nine
BIAS = numbers(5, 1, T, S, seed=4)
CALLS: dict[str, tuple[dict[str, Any], float, Tensor, Tensor]] = {
    "as it is": ({}, 1.0, NOTHING, NO_BIAS),
    "a scale": ({"scale": 0.3}, 0.3 * math.sqrt(D), NOTHING, NO_BIAS),
    "causal": (
        {"is_causal": True},
        1.0,
        (torch.arange(S) > torch.arange(T)[:, None]).expand(5, T, S),
        NO_BIAS,
    ),
    "a mask of trues": ({"attn_mask": ~FAR}, 1.0, FAR.expand(5, T, S), NO_BIAS),
    "one row for all": ({"attn_mask": ~FAR[60:61]}, 1.0, FAR[60].expand(5, T, S), NO_BIAS),
    "added, one for each sequence": ({"attn_mask": BIAS}, 1.0, NOTHING, BIAS[:, 0]),
    "added, one for all": ({"attn_mask": BIAS[:1]}, 1.0, NOTHING, BIAS[:1, 0].expand(5, T, S)),
    "by its other name": ({"attn_bias": BIAS}, 1.0, NOTHING, BIAS[:, 0]),
}


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("name", CALLS)
def test_logits_of_queries_and_keys(name: str, heads: tuple[int, int]) -> None:
    """Fails if sizes are exchanged, heads meet the keys of another group, or a mask is laid on other queries."""
    given, factor, hidden, added = CALLS[name]
    q, k = 2 * numbers(5, heads[0], T, D, seed=1), 2 * numbers(5, heads[1], S, D, seed=2)
    found = sharpness(ATTENTION, "scaled_dot_product_attention", (q, k, k), given)
    largest, even = slow(q, k, factor / math.sqrt(D), hidden, added)
    assert (float(found[0]), float(found[1])) == pytest.approx((largest, even), rel=1e-4)
    assert found[2] == pytest.approx(factor)


def test_as_many_shared_heads_as_sequences() -> None:
    """Fails if heads are compared with sequences."""
    q, k = numbers(2, 4, T, D, seed=1), numbers(2, 2, S, D, seed=2)
    found = sharpness(ATTENTION, "scaled_dot_product_attention", (q, k, k), {"enable_gqa": True})
    largest, even = slow(q, k, 1 / math.sqrt(D), NOTHING, NO_BIAS)
    assert (float(found[0]), float(found[1])) == pytest.approx((largest, even), rel=1e-4)


@pytest.mark.parametrize(
    "shapes", [((2, 5, D), (2, S, D)), ((2, 3, 5, D), (2, S, D)), ((2, 5, D), (2, 3, S, D))]
)
def test_queries_and_keys_without_heads(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Fails if the positions of either are taken for heads."""
    q, k = map(torch.zeros, shapes)
    assert sharpness(ATTENTION, "scaled_dot_product_attention", (q, k, k), {}) is None


def test_without_queries_or_keys() -> None:
    """Fails if an operation that calls its arguments otherwise raises."""
    assert sharpness(torch.ops.aten.bmm.default, "bmm", (torch.zeros(1, 2, 3),), {}) is None
    q = torch.zeros(2, 3, 5, D)
    assert sharpness(ATTENTION, "scaled_dot_product_attention", (q,), {}) is None
