"""From the graph of a pass to what is recorded of a norm's neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from bnprobe.neighbours import Folded, Implied, Wiring
from bnprobe.recording import BATCH
from bnprobe.stats.moments import Array
from bnprobe.wiring.alone import feeds_alone
from bnprobe.wiring.feed import Known, feeder_of, label
from bnprobe.wiring.folded import folded
from bnprobe.wiring.follow import Follow, in_words, other_terms
from bnprobe.wiring.geometry import Feeder, Source
from bnprobe.wiring.graph import Node, Site, above
from bnprobe.wiring.implied import implied
from bnprobe.wiring.record import Graph
from bnprobe.wiring.skip import Skips
from bnprobe.wiring.stem import stem
from bnprobe.wiring.trace import Trace

UNKNOWN = Wiring("unknown")
"""Of a norm in a pass that could not be watched."""

Part = TypeVar("Part", Folded, Implied)

AT_ONCE = 1 << 17
"""Weights that are turned into float64 at a time: the largest layer as a whole, and what is made of it on the
way, would be the largest arrays that a probe ever holds."""


def wirings(trace: Trace, norms: Mapping[Site, Known], wanted: Iterable[Site]) -> dict[Site, Wiring]:
    """The neighbours of the `wanted` norms in the pass that was watched; UNKNOWN where there is no answer.

    `norms` are all that the pass has reached.
    """
    graph = trace.graph
    if graph is None:
        return dict.fromkeys(wanted, UNKNOWN)
    alive, skips = above(graph.outputs), Skips(norms)
    return {
        site: _wiring(graph.sites[site], graph, alive, norms, skips) if site in graph.sites else UNKNOWN
        for site in wanted
    }


def _wiring(site: Node, graph: Graph, alive: set[Node], norms: Mapping[Site, Known], skips: Skips) -> Wiring:
    """What is known of one norm; an error in one part of the answer leaves the others."""
    wiring, outputs = UNKNOWN, set(graph.outputs)
    for part in (
        partial(_followed, follow=Follow(site, alive, outputs), skips=skips),
        _fed,
        partial(_alone, graph=graph, alive=alive),
    ):
        # an odd graph is an unanswered question, and not the user's problem
        with suppress(Exception):
            wiring = part(wiring, site, norms)
    return wiring


def _followed(
    wiring: Wiring, site: Node, norms: Mapping[Site, Known], *, follow: Follow, skips: Skips
) -> Wiring:
    """What follows added, and what is at the other side of a sum."""
    names = follow.names()
    terms = other_terms(follow)
    skip, acts = in_words(terms, label)
    wiring = replace(wiring, follows=names, skip=skip, skip_activation=acts)
    if norms[site.facts["site"]].plan.pools != BATCH:
        return wiring
    now, initially = skips.variances(terms, site)
    return replace(wiring, skip_var=now, skip_var_initial=initially)


def _fed(wiring: Wiring, site: Node, norms: Mapping[Site, Known]) -> Wiring:
    """The feeder added, and what is made of its weights."""
    name, feeder = feeder_of(site, norms)
    wiring = replace(wiring, feeder=name)
    if feeder is None:
        return wiring
    source = feeder.source
    wiring = replace(
        wiring,
        sources=tuple(dict.fromkeys(_named(source))),
        activation=_activation(source),
        source=source.what,
    )
    known = norms[site.facts["site"]]
    return wiring if known.running_mean is None else _reduced(wiring, feeder, known)


def _alone(
    wiring: Wiring, site: Node, norms: Mapping[Site, Known], *, graph: Graph, alive: set[Node]
) -> Wiring:
    """Whether the feeder and the norm have only each other added."""
    return replace(wiring, feeds_alone=feeds_alone(site, graph, alive, norms))


def _reduced(wiring: Wiring, feeder: Feeder, known: Known) -> Wiring:
    """What the weights say about a norm with running statistics."""
    geometry, source = feeder.geometry, feeder.source
    parts = list(_parts(feeder))
    alone = source.what == "input" and not source.pool and source.activation == "none"
    return replace(
        wiring,
        folded=_joined([_folded(feeder, known, part) for part in parts])
        if geometry.groups == 1 or not geometry.transposed
        else None,
        implied=_joined([implied(*_some(feeder, part), geometry, source) for part in parts]),
        stem=stem(*_some(feeder, slice(None)), geometry) if alone else None,
    )


def _parts(feeder: Feeder) -> Iterator[slice]:
    """Output channels of the feeder, some at a time where each has weights of its own."""
    weight, geometry = feeder.weight, feeder.geometry
    if geometry.groups > 1 or geometry.transposed or not len(weight):
        yield slice(None)
        return
    step = max(AT_ONCE // max(weight[0].size, 1), 1)
    for start in range(0, len(weight), step):
        yield slice(start, start + step)


def _some(feeder: Feeder, part: slice) -> tuple[Array, Array | None]:
    """Weights and bias of some output channels, in float64."""
    return feeder.weight[part].astype(np.float64), None if feeder.bias is None else feeder.bias[part]


def _folded(feeder: Feeder, known: Known, part: slice) -> Folded:
    weight, bias = _some(feeder, part)
    rows = np.swapaxes(weight, 0, 1) if feeder.geometry.transposed else weight
    gamma, mean, var = (
        None if vector is None else vector[part]
        for vector in (known.gamma, known.running_mean, known.running_var)
    )
    return folded(rows.reshape(len(rows), -1), bias, gamma, mean, var, known.plan.eps)


def _joined(parts: Sequence[Part | None]) -> Part | None:
    """The answers for some channels each, as one for all."""
    first = parts[0]
    if first is None or len(parts) == 1:
        return first
    columns = {name: [getattr(part, name) for part in parts] for name in vars(first)}
    whole: dict[str, Any] = {n: None if v[0] is None else np.concatenate(v) for n, v in columns.items()}
    return type(first)(**whole)


def _named(source: Source, whole: bool = True) -> Iterator[str]:
    """The norms and the model's input that a source is made of; a sum within it by the first norm that enters."""
    if source.site:
        yield source.site
    elif source.what == "input":
        yield "input"
    elif source.what == "sum" and not whole:
        yield f"sum at {next((part.site for part in source.parts if part.site), 'unknown')}"
    else:
        for part in source.parts:
            yield from _named(part, whole=False)


def _activation(source: Source) -> str:
    """The activation next to the weights; of channels side by side, the one they have in common."""
    if source.what == "concat" and source.activation == "none":
        found = {part.activation for part in source.parts if part.site or part.what != "norm"}
        return found.pop() if len(found) == 1 else "several"
    return source.activation
