"""What becomes of a norm's output: the operations that decide on it, from all that take it.

The walk goes through whatever hands values on as they are. It stops at the first operation that does
something of its own; sums, concatenations and the choosing of a maximum are named on the way. Only an
activation that acts on the norm's own values (or on the sum that they enter) is named as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bnprobe.graph.graph import INPUT, LEAF, PARTS, SITE, Node, Site
from bnprobe.graph.operations import ACTIVATION, ADD, MARK, MUL, PASS, SCALE, WEIGHTS

SEVERAL = " | "
"""Between the answers where an output goes different ways: "relu | add"."""

MOST_STEPS = 2000
"""Nodes walked for one question before the answer is "unknown"."""


class Lost(Exception):
    """The walk has become too long."""


class Follow:
    """Looks along the graph from one norm. `alive` holds what goes into the model's output."""

    def __init__(self, site: Node, alive: set[Node], outputs: set[Node]) -> None:
        self.site, self.outputs = site, outputs
        # what nothing depends on (a copy kept for the backward pass, somebody's hook) decides nothing;
        # but where that leaves nothing, the model may have stored its results
        self.alive = alive if site in alive else None
        self.sums: dict[Node, None] = {}
        self._steps = 0

    def names(self) -> str:
        """The answer, as in `Neighbours.follows`."""
        return SEVERAL.join(dict.fromkeys(self._after(self.site))) or "unknown"

    def _after(self, node: Node) -> Iterator[str]:
        """What the values of `node` meet, one answer for each that takes them."""
        takers, leaves = self._takers(node)
        if leaves:
            yield "none"
        gates = {taker: self._swish(taker, takers) for taker in takers if taker.name == "sigmoid"}
        for taker in takers:
            if gates.get(taker) is not None:
                yield "silu"
            elif taker not in gates.values():
                yield from self._meets(taker)

    def _meets(self, taker: Node) -> Iterator[str]:
        if self._is_other_norm(taker):
            yield "norm"
        elif taker.part == MARK:
            yield from (_in_front(taker.name, name) for name in self._after(taker))
        elif taker.part == ADD:
            yield self._sum(taker)
        else:
            yield "unknown" if taker.name == "aside" else taker.name

    def _swish(self, gate: Node, takers: list[Node]) -> Node | None:
        """The product in x * sigmoid(x), written out: the one taker of the sigmoid, which takes x too."""
        products, _ = self._takers(gate)
        return (
            products[0] if len(products) == 1 and products[0].part == MUL and products[0] in takers else None
        )

    def _sum(self, total: Node) -> str:
        """ "add", and the activation where nothing but one takes the sum (or the sum that it enters)."""
        self.sums[total] = None
        takers, leaves = self._takers(total)
        names = {taker.name for taker in takers}
        if not leaves and len(names) == 1 and takers[0].part == ACTIVATION:
            return f"add, {takers[0].name}"
        if not leaves and len(takers) == 1 and takers[0].part == ADD:
            return self._sum(takers[0])
        return "add"

    def _takers(self, node: Node) -> tuple[list[Node], bool]:
        """What takes the values of `node`, past views; and whether they are the model's output."""
        waiting, found, leaves = [node], dict[Node, None](), False
        while waiting:
            now = waiting.pop(0)
            self._step()
            leaves |= now in self.outputs
            for taker in now.consumers:
                if self.alive is not None and taker not in self.alive:
                    continue
                if taker.part in (PASS, PARTS) and not self._is_other_norm(taker):
                    waiting.append(taker)
                else:
                    found[taker] = None
        return list(found), leaves

    def _is_other_norm(self, taker: Node) -> bool:
        """Whether it happens inside another norm, which is then what takes the values."""
        return taker.part == SITE or len(taker.inside) > len(self.site.inside)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise Lost


def _in_front(mark: str, name: str) -> str:
    return name if name.startswith(f"{mark}, ") else f"{mark}, {name}"


def other_terms(follow: Follow) -> list[Node]:
    """What else enters the sums that were met."""
    own = _through_views(follow.site)
    return [
        term for total in follow.sums for term in total.inputs if term not in own and term not in follow.sums
    ]


def in_words(terms: list[Node], name: Callable[[Site], str]) -> tuple[str, str]:
    """The other side of a sum, as in `Neighbours.skip`, and what acts in between."""
    found: dict[str, None] = {}
    acts: dict[str, None] = {}
    for term in terms:
        _climb(term, found, acts, name)
    return ", ".join(found), ", ".join(reversed(acts)) or "none"


def _through_views(site: Node) -> set[Node]:
    """Where the norm's own values go, up to the sums."""
    waiting, met = [site], {site}
    while waiting:
        for taker in waiting.pop().consumers:
            if taker.part in (PASS, MARK) and taker not in met:
                met.add(taker)
                waiting.append(taker)
    return met


def _climb(node: Node, found: dict[str, None], acts: dict[str, None], name: Callable[[Site], str]) -> None:
    """Up to what made the values: through views, activations and pooling, to a norm, a layer or a sum."""
    while node.inputs and (node.part in (PASS, ACTIVATION, MUL, SCALE) or node.name in _ON_THE_WAY):
        computed = [source for source in node.inputs if source.part != LEAF]
        if node.part == MUL and len(computed) != 1:
            break  # a gate; by a parameter of its own, as a layer scale, it is a factor
        if node.part != PASS:
            acts[node.name] = None
        node = computed[0] if computed else node.inputs[0]
    if node.part == SITE:
        found[name(node.facts["site"])] = None
    elif node.part == ADD:
        found[_sum_by_name(node, name)] = None
    elif node.part == WEIGHTS:
        found[node.facts["layer"] or node.name] = None
    else:
        found["input" if node.part == INPUT else node.facts.get("name", node.name) or "unknown"] = None


_ON_THE_WAY = ("avg_pool", "max_pool", "upsample", "dropout")


def _sum_by_name(total: Node, name: Callable[[Site], str]) -> str:
    """An earlier sum, by the first norm that enters it as it is."""
    for term in total.inputs:
        while term.part == PASS and term.inputs:
            term = term.inputs[0]
        if term.part == SITE:
            return f"sum at {name(term.facts['site'])}"
    return "sum"
