"""From the graph of a pass to what is recorded of a norm's neighbors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from bnprobe.graph.attention import first_seen
from bnprobe.graph.consumers import Follow, in_words, other_terms
from bnprobe.graph.features import features_elsewhere
from bnprobe.graph.first_layer import stem
from bnprobe.graph.fold import folded
from bnprobe.graph.geometry import Producer, Source, SourceKey
from bnprobe.graph.graph import Node, Site, above
from bnprobe.graph.input_channels import constant_channels
from bnprobe.graph.layer_scale import branch_of
from bnprobe.graph.logit_bound import bound_of
from bnprobe.graph.producer import Known, label, producer_of
from bnprobe.graph.propagate import Reaching, implied, reaching
from bnprobe.graph.reads import column_lengths
from bnprobe.graph.record_op import Graph
from bnprobe.graph.remembered import Remembered
from bnprobe.graph.residual import Skips
from bnprobe.graph.role import role_of
from bnprobe.graph.sole_consumer import feeds_alone
from bnprobe.graph.stream import Streams
from bnprobe.graph.trace import Trace
from bnprobe.recording.neighbours import Folded, Implied, Neighbours
from bnprobe.stats.moments import Array

UNKNOWN = Neighbours("unknown")
"""Of a norm in a pass that could not be watched."""

Part = TypeVar("Part", Folded, Implied)

AT_ONCE = 1 << 17
"""Weights that are turned into float64 at a time: the largest layer as a whole, and what is made of it on the
way, would be the largest arrays that a probe ever holds."""


def neighbours_of(
    trace: Trace, norms: Mapping[Site, Known], wanted: Iterable[Site]
) -> dict[Site, Neighbours]:
    """The neighbors of the `wanted` norms in the pass that was watched; UNKNOWN where there is no answer.

    `norms` are all that the pass has reached.
    """
    graph = trace.graph
    if graph is None:
        return dict.fromkeys(wanted, UNKNOWN)
    alive, skips = above(graph.outputs), Skips(norms, trace.remembered)
    weights = partial(_fed, remembered=trace.remembered, known={})
    on_stream = partial(_on_stream, graph=graph, streams=cache(lambda: Streams(graph.sites)))
    return {
        site: _neighbours(graph.sites[site], graph, alive, norms, skips, weights, on_stream)
        if site in graph.sites
        else UNKNOWN
        for site in wanted
    }


def _neighbours(
    site: Node,
    graph: Graph,
    alive: set[Node],
    norms: Mapping[Site, Known],
    skips: Skips,
    fed: Callable[[Neighbours, Node, Mapping[Site, Known]], Neighbours],
    on_stream: Callable[[Neighbours, Node, Mapping[Site, Known]], Neighbours],
) -> Neighbours:
    """What is known of one norm; an error in one part of the answer leaves the others."""
    neighbours, outputs = UNKNOWN, set(graph.outputs)
    for part in (
        partial(_followed, follow=Follow(site, alive, outputs), skips=skips),
        fed,
        partial(_of_inputs, graph=graph),
        partial(_alone, graph=graph, alive=alive),
        partial(_scaled, graph=graph),
        _apart,
        on_stream,
        _bounded,
    ):
        # an odd graph is an unanswered question, and not the user's problem
        with suppress(Exception):
            neighbours = part(neighbours, site, norms)
    return neighbours


def _followed(
    neighbours: Neighbours, site: Node, norms: Mapping[Site, Known], *, follow: Follow, skips: Skips
) -> Neighbours:
    """What follows added, and what is at the other side of a sum."""
    names = follow.names()
    terms = other_terms(follow)
    skip, acts = in_words(terms, label)
    neighbours = replace(neighbours, follows=names, skip=skip, skip_activation=acts)
    pool = norms[site.facts["site"]].plan.pool
    if not (pool.samples and pool.within_channel):
        return neighbours
    now, initially = skips.variances(terms, site)
    return replace(neighbours, skip_var=now, skip_var_initial=initially)


def _fed(
    neighbours: Neighbours,
    site: Node,
    norms: Mapping[Site, Known],
    *,
    remembered: Remembered,
    known: dict[SourceKey, Reaching | None],
) -> Neighbours:
    """The producer added, and what follows from its weights; `known` is what reaches the weights in this pass."""
    name, producer = producer_of(site, norms)
    neighbours = replace(neighbours, producer=name)
    if producer is None:
        return neighbours
    source = producer.source
    neighbours = replace(
        neighbours,
        sources=tuple(dict.fromkeys(_named(source))),
        activation=_activation(source),
        source=source.what,
    )
    norm = norms[site.facts["site"]]
    if norm.running_mean is None:
        return neighbours
    content = (producer, norm.gamma, norm.running_mean, norm.running_var, norm.plan.eps)
    found = remembered.get(
        ("weights", site.facts["site"]), content, lambda: _reduced(producer, norm, reaching(source, known))
    )
    return replace(neighbours, **found)


def _of_inputs(
    neighbours: Neighbours, site: Node, norms: Mapping[Site, Known], *, graph: Graph
) -> Neighbours:
    """Channels of the model's input that hold one value, added to the weights that take it."""
    stem = neighbours.stem
    if stem is None:
        return neighbours
    return replace(neighbours, stem=replace(stem, constant=constant_channels(stem, graph.inputs)))


def _alone(
    neighbours: Neighbours, site: Node, norms: Mapping[Site, Known], *, graph: Graph, alive: set[Node]
) -> Neighbours:
    """Whether the producer and the norm have only each other, added."""
    return replace(neighbours, feeds_alone=feeds_alone(site, graph, alive, norms))


def _apart(neighbours: Neighbours, site: Node, norms: Mapping[Site, Known]) -> Neighbours:
    """Who has the features in another dimension than the norm its channels, added."""
    return replace(neighbours, features_elsewhere=features_elsewhere(site, norms), n_last=site.shape[-1])


def _on_stream(
    neighbours: Neighbours,
    site: Node,
    norms: Mapping[Site, Known],
    *,
    graph: Graph,
    streams: Callable[[], Streams],
) -> Neighbours:
    """The norm before it on a residual stream, and what the next layers read of each channel, added to a norm over
    channels."""
    plan = norms[site.facts["site"]].plan
    if plan.pool.positions:
        return neighbours
    found = streams().before(site)
    bare = site.facts["site"] in streams().before_head(graph.outputs)
    role, attention = role_of(site, set(graph.outputs))
    site.facts["attention"] = attention
    largest, even, factor = first_seen(attention)
    repeated = streams().directly_after(site)
    neighbours = replace(
        neighbours,
        reads=column_lengths(site, plan.n_channels),
        bare_head=bare,
        repeats="" if repeated is None else label(repeated),
        role=role,
        largest_logit=largest,
        attention_evenness=even,
        attention_factor=factor,
    )
    return neighbours if found is None else replace(neighbours, stream=label(found))


def _bounded(neighbours: Neighbours, site: Node, norms: Mapping[Site, Known]) -> Neighbours:
    """What the weights allow the logits of attention whose queries the norm makes, added; after `_on_stream`."""
    return replace(neighbours, qk_bound=bound_of(site, site.facts.get("attention", ()), norms))


def _scaled(neighbours: Neighbours, site: Node, norms: Mapping[Site, Known], *, graph: Graph) -> Neighbours:
    """The layer scale of the branch that the norm is in, added, and what the pass measured where the branch ends."""
    found = branch_of(site, graph.scaled)
    if found is None:
        return neighbours
    scale, branch, skip = found
    return replace(neighbours, scale=scale, scaled_var=branch, scaled_skip_var=skip)


def _reduced(producer: Producer, known: Known, values: Reaching | None) -> dict[str, Any]:
    """What the weights, which these values reach, say about a norm with running statistics: fields of `Neighbours`."""
    geometry, source = producer.geometry, producer.source
    parts = list(_parts(producer))
    alone = source.what == "input" and not source.pool and source.activation == "none"
    return {
        "folded": _joined([_folded(producer, known, part) for part in parts])
        if geometry.groups == 1 or not geometry.transposed
        else None,
        "implied": _joined([implied(*_some(producer, part), geometry, values) for part in parts]),
        "stem": replace(stem(*_some(producer, slice(None)), geometry), adjusted=source.adjusted)
        if alone
        else None,
    }


def _parts(producer: Producer) -> Iterator[slice]:
    """Output channels of the producer, some at a time if each has weights of its own."""
    weight, geometry = producer.weight, producer.geometry
    if geometry.groups > 1 or geometry.transposed or not len(weight):
        yield slice(None)
        return
    step = max(AT_ONCE // max(weight[0].size, 1), 1)
    for start in range(0, len(weight), step):
        yield slice(start, start + step)


def _some(producer: Producer, part: slice) -> tuple[Array, Array | None]:
    """Weights and bias of some output channels, in float64."""
    return producer.weight[part].astype(np.float64), None if producer.bias is None else producer.bias[part]


def _folded(producer: Producer, known: Known, part: slice) -> Folded:
    weight, bias = _some(producer, part)
    rows = np.swapaxes(weight, 0, 1) if producer.geometry.transposed else weight
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
