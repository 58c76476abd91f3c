"""What logits of attention cannot exceed by its weights, in the pass that is watched; the formula is that of files.

Which rows of a matrix make which head is not asked of names but of numbers: of one token the lengths of its queries and
keys, head by head, are held against those of the rows that may make them. Positions that rotate do not change a length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from bnprobe.graph.attention import Lengths
from bnprobe.graph.graph import LEAF, SITE, Node, Site
from bnprobe.graph.operations import PASS, WEIGHTS
from bnprobe.graph.producer import Known
from bnprobe.stats.logit_bound import Rows, by_group, of_norms, of_weights, one_after_another
from bnprobe.stats.moments import Array

MOST_STEPS = 64
"""Operations between queries and what made them, of one attention."""

ALIKE = 0.01
"""How far lengths of heads may be from a common multiple of those of the rows, as in bfloat16."""


def bound_of(site: Node, attention: Sequence[Node], norms: Mapping[Site, Known]) -> float:
    """What no logit can exceed of the first of these attentions, whose queries this norm makes; NaN where it is not known.

    The norm stands before the weights of queries and keys, or is itself the one of the queries, beside one of the keys.
    """
    for node in attention:
        seen: Lengths | None = node.facts.get("lengths")
        if seen is None:
            continue
        query, key = (_maker(operand) for operand in node.facts["operands"][:2])
        if query is None or key is None:
            return math.nan
        if query is site and key.part == SITE:
            gammas = [norms[one.facts["site"]].gamma for one in (query, key)]
            if gammas[0] is None or gammas[1] is None:
                return math.nan
            n_heads = len(gammas[0]) // seen.size
            return of_norms(gammas[0], gammas[1], n_heads, seen.factor)
        if query.part == key.part == WEIGHTS and _takes(query, site) and _takes(key, site):
            return _of_weights(query, key, seen, norms[site.facts["site"]])
        return math.nan
    return math.nan


def _maker(operand: Node) -> Node | None:
    """The linear layer or the norm that made queries or keys, past what rotates or scales them; None where there are
    several."""
    found, waiting, met = set[Node](), [operand], set[Node]()
    while waiting:
        node = waiting.pop()
        if node.part in (SITE, WEIGHTS):
            found.add(node)
        elif node.part != LEAF and node not in met:
            met.add(node)
            waiting.extend(node.inputs)
        if len(met) > MOST_STEPS or len(found) > 1:
            return None
    return found.pop() if found else None


def _takes(weights: Node, site: Node) -> bool:
    """Whether a layer is given the norm's output as it is."""
    node = weights.inputs[0]
    while node.part == PASS and node.inputs:
        node = node.inputs[0]
    return node is site


def _of_weights(query: Node, key: Node, seen: Lengths, known: Known) -> float:
    n, n_keys = len(seen.queries), len(seen.keys)
    gamma = np.ones(known.plan.n_channels) if known.gamma is None else known.gamma
    if n % n_keys or query.facts["weight"].shape[1 - query.facts["turned"]] != len(gamma):
        return math.nan
    for of_queries, of_keys in _layouts(query is key, n, n_keys, seen.size):
        multiples = (
            _multiple(_fetched(seen.queries), _fetched(query.facts["row"]), of_queries, seen.size),
            _multiple(_fetched(seen.keys), _fetched(key.facts["row"]), of_keys, seen.size),
        )
        if all(map(math.isfinite, multiples)):
            rows = _rows(query, of_queries), _rows(key, of_keys)
            return of_weights(*rows, gamma, known.beta, seen.size, seen.factor * math.prod(multiples))
    return math.nan


def _fetched(numbers: Tensor) -> Array:
    """Asked for at the end of a pass, so that no layer waits for its device."""
    found: Array = numbers.cpu().numpy()
    return found


def _layouts(together: bool, n: int, n_keys: int, size: int) -> Iterator[tuple[list[int], list[int]]]:
    """The first rows of the heads of queries and of keys, as they may be."""
    if not together:
        yield [h * size for h in range(n)], [h * size for h in range(n_keys)]
        return
    yield one_after_another(n, n_keys, size)
    yield by_group(n, n_keys, size)


def _multiple(lengths: Array, row: Array, starts: Sequence[int], size: int) -> float:
    """How many times as long as the rows that begin at `starts` the heads are, the same for all; NaN where they are not."""
    if starts[-1] + size > len(row):
        return math.nan
    made = np.array([np.linalg.norm(row[start : start + size]) for start in starts])
    if not (made > 0).all():
        return math.nan
    ratios = lengths / made
    typical = float(np.median(ratios))
    if not np.abs(ratios - typical).max() <= ALIKE * typical:
        return math.nan
    return 1.0 if abs(typical - 1) <= ALIKE else typical


def _rows(node: Node, starts: list[int]) -> Rows:
    facts: dict[str, Any] = node.facts
    weight, bias = facts["weight"].detach(), facts["bias"]
    weight = weight.T if facts["turned"] else weight

    def read(begin: int, end: int) -> Array:
        rows: Array = weight[begin:end].cpu().double().numpy()
        return rows

    return Rows(read, None if bias is None else bias.detach().cpu().double().numpy(), starts)
