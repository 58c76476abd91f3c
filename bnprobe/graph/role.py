"""What a norm over features is for in a transformer: the input of attention or of an MLP, queries and keys, the end.

Read from the executed operations, whatever modules are called. A sum is one of the residual stream where one of its terms
goes into what made another. From the norm everything that takes its output is walked, up to attention, to such sums and to
what the model returns; what was met says the role.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property

from bnprobe.graph.graph import SITE, Node
from bnprobe.graph.operations import (
    ACTIVATION,
    ADD,
    MARK,
    MUL,
    OTHER,
    PASS,
    PRODUCT,
    SCALE,
    WEIGHTS,
    WHOLE_ATTENTION,
)
from bnprobe.recording.names import (
    ATTENTION,
    ATTENTION_OUTPUT,
    BOTH,
    CROSS_ATTENTION,
    CROSS_ATTENTION_OUTPUT,
    EMBEDDING,
    ENCODER_END,
    FINAL,
    INNER,
    KEY,
    MIXER,
    MLP,
    MLP_OUTPUT,
    QUERY,
)

MOST_STEPS, MOST_ABOVE, MOST_TO_SOFTMAX, MOST_IN_BLEND = 2000, 400, 12, 8
"""Nodes walked from a norm, up one branch, between scores and their softmax, and up what may only blend."""


def role_of(site: Node, outputs: set[Node]) -> tuple[str, list[Node]]:
    """The role of a norm, "" where none was recognized, and the attention whose queries it makes: as a whole, or its
    softmax."""
    met = _Met(site, outputs)
    return _role(site, met), met.by_queries


def _role(site: Node, met: _Met) -> str:
    if met.on_stream:
        return _after_branch(site.inputs[0]) or EMBEDDING
    if met.ends_branch:
        return _output_of([site.inputs[0]], met.skip)
    operands = met.attention
    if operands:
        return _before_attention(site, operands, met)
    if met.reaches_sum:
        return (MIXER if met.mixes else MLP) if reads_stream(site) else INNER
    ended = _after_branch(site.inputs[0])
    return FINAL if met.leaves and ended else ended


def _before_attention(site: Node, operands: set[str], met: _Met) -> str:
    """Of a norm whose output goes into attention as `operands`, of q, k and v."""
    if not reads_stream(site) and not met.ends_encoder:
        if operands == {"q", "k", "v"}:  # weights in between, or a block without a skip
            return EMBEDDING if met.reaches_sum else ATTENTION
        return QUERY if operands == {"q"} else KEY
    if operands == {"q"}:
        return CROSS_ATTENTION
    if "q" not in operands:
        return ENCODER_END
    return BOTH if met.reaches_sum else ATTENTION


class _Met:
    """What takes a norm's output."""

    def __init__(self, site: Node, outputs: set[Node]) -> None:
        self.site = site
        self.attention: set[str] = set()
        self.by_queries: list[Node] = []
        self.reaches_sum = self.on_stream = self.ends_branch = self.leaves = self.mixes = False
        self.skip: Node | None = None
        waiting, met = deque([(site, False)]), {site}
        for _ in range(MOST_STEPS):
            if not waiting:
                break
            node, weighted = waiting.popleft()
            self.leaves |= node in outputs
            for taker in node.consumers:
                if len(taker.inside) > len(site.inside):
                    continue  # the site of that norm stands for what happens in it
                if taker.part == SITE and not weighted:
                    continue  # directly another norm
                if taker.part == ADD and skip_of(taker) is not None:
                    self._sum(taker, node, weighted)
                elif operand := _operand(taker, node):
                    self.attention |= set(operand)
                    self.by_queries += [_shares(taker)] * ("q" in operand)
                elif taker not in met and not _gates_attention(taker, node):
                    met.add(taker)
                    self.mixes |= _mixes_positions(taker)
                    waiting.append((taker, weighted or taker.part == WEIGHTS))

    @cached_property
    def ends_encoder(self) -> bool:
        """Whether it is the last norm of a stream, whose output is read elsewhere."""
        return bool(_after_branch(self.site.inputs[0]))

    def _sum(self, total: Node, term: Node, weighted: bool) -> None:
        if weighted:
            self.reaches_sum = True
        elif skip_of(total) is self.site:
            self.on_stream = True
        elif _is_scaled(term, self.site):
            self.ends_branch, self.skip = True, skip_of(total)
        else:
            self.reaches_sum = True


def skip_of(total: Node) -> Node | None:
    """The term of a sum that goes into what made another of its terms, past views and numbers that it is multiplied by, as
    in DeepNorm; None in a sum of other kinds.

    Of branches side by side, x + attention(x) + mlp(x), the second sum counts too.
    """
    if "skip" not in total.facts:
        total.facts["skip"] = next(_skips(total, branches_side_by_side=True), None)
    skip: Node | None = total.facts["skip"]
    return skip


def _skips(total: Node, branches_side_by_side: bool = False) -> Iterator[Node]:
    terms = [_whole(term) for term in total.inputs]
    for term in terms:
        before = [term]
        if branches_side_by_side and term.part == ADD:
            before += _skips(term)
        for other in terms:
            if other is term or _blends(other, term):
                continue
            if any(node in before for node in _above(other)):
                yield term


def _blends(node: Node, x: Node, most: int = MOST_IN_BLEND) -> bool:
    """Whether it is x itself, moved, scaled or gated: a sum with x mixes tokens with those before them, as RWKV does, or
    turns halves, as rotary positions do, and adds no branch."""
    if node is x or not most:
        return node is x
    of_inputs = (_blends(one, x, most - 1) for one in node.inputs)
    if node.part == ADD or node.name == "sub":
        return all(of_inputs)
    return node.part in (PASS, MARK, MUL, SCALE) and any(of_inputs)


def reads_stream(site: Node) -> bool:
    """Whether what a norm is given goes on beside it as the skip of a sum."""
    given = _whole(site.inputs[0])
    waiting = [given]
    for _ in range(MOST_TO_SOFTMAX):
        if not waiting:
            break
        for taker in waiting.pop().consumers:
            if taker.part == ADD and skip_of(taker) is given:
                return True
            if _hands_on(taker) or taker.part == SCALE:
                waiting.append(taker)
    return False


def _after_branch(node: Node) -> str:
    """Of the sum that a branch ends in, which branch it was; "" for another node."""
    total = _root(node)
    while total.part == SITE:
        total = _root(total.inputs[0])
    skip = skip_of(total) if total.part == ADD else None
    if skip is None:
        return ""
    return _output_of([term for term in map(_whole, total.inputs) if term is not skip], skip)


def _output_of(branches: Sequence[Node], skip: Node | None) -> str:
    """What made the branches after the last sum of the stream: attention, to the stream itself or to another one, or an
    MLP."""
    found = next((node for branch in branches for node in _above(branch, skip) if _is_attention(node)), None)
    if found is None:
        return MLP_OUTPUT
    operands = found.facts["operands"]
    values = operands[-1] if found.part == PRODUCT else operands[2]
    own = skip is None or any(node is skip for node in _above(values, skip))
    return ATTENTION_OUTPUT if own else CROSS_ATTENTION_OUTPUT


def _above(node: Node, end: Node | None = None) -> Iterator[Node]:
    """A node and what went into it, nearest first; not past `end` nor past sums of the stream that are known."""
    waiting, met = deque([node]), {node}
    for _ in range(MOST_ABOVE):
        if not waiting:
            return
        now = waiting.popleft()
        yield now
        if now is end or now.facts.get("skip") is not None:
            continue
        for source in now.inputs:
            if source not in met:
                met.add(source)
                waiting.append(source)


def _operand(taker: Node, node: Node) -> str:
    """As which of q, k and v attention takes the values of a node; "" where it is no attention."""
    if not _is_attention(taker):
        return ""
    operands = taker.facts["operands"]
    if taker.part != PRODUCT:
        return _places(operands, node, "qkv")
    # of a product that adds, the sum comes first
    return _places(operands[-2:], node, "qk") if _softmax_after(taker) else "v"


def _places(operands: Sequence[Node], node: Node, names: str) -> str:
    return "".join(name for name, operand in zip(names, operands, strict=False) if operand is node)


def _is_attention(node: Node) -> bool:
    """Whether it is attention, or one of the two products that attention is made of."""
    if node.part == OTHER:
        return node.name == "attention" or node.facts["operation"] == WHOLE_ATTENTION
    if node.part != PRODUCT:
        return False
    return _softmax_after(node) is not None or any(_comes_from_softmax(one) for one in node.inputs)


def _gates_attention(taker: Node, gate: Node) -> bool:
    """Whether a gate multiplies what attention returns: it belongs to the attention, and is no branch beside it."""
    return taker.part == MUL and any(
        _is_attention(_root(other)) for other in taker.inputs if other is not gate
    )


def _shares(taker: Node) -> Node:
    """The operation that makes scores into shares: attention as a whole, or the softmax after a product."""
    return _softmax_after(taker) or taker if taker.part == PRODUCT else taker


def _softmax_after(product: Node) -> Node | None:
    """The softmax of a product that is scores."""
    waiting = deque([product])
    for _ in range(MOST_TO_SOFTMAX):
        if not waiting:
            return None
        for taker in waiting.popleft().consumers:
            if taker.name == "softmax":
                return taker
            if taker.part in (PASS, SCALE, ADD) or taker.name in _ON_SCORES:
                waiting.append(taker)
    return None


def _comes_from_softmax(node: Node) -> bool:
    while _hands_on(node) and node.inputs:
        node = node.inputs[0]
    return node.part == ACTIVATION and node.name == "softmax"


def _mixes_positions(node: Node) -> bool:
    """Whether it lets positions see each other without attention, as the mixers of state space models do."""
    if node.name == "recurrent" or (node.name == "cumsum" and node.facts["of_numbers"]):
        return True
    return node.name == "conv" and any(n > 1 for n in node.facts["weight"].shape[2:])


def _hands_on(node: Node) -> bool:
    return node.part == PASS or (node.part == MARK and node.name == "dropout")


def _root(node: Node) -> Node:
    """Past views, and past dropout."""
    while _hands_on(node) and node.inputs:
        node = node.inputs[0]
    return node


def _whole(node: Node) -> Node:
    """Past views of all values, dropout, and numbers that they are multiplied by. Scale and shift of adaLN are two parts of
    what one layer made: neither is in the other."""
    while (_hands_on(node) or node.part == SCALE) and node.inputs and not _is_part(node):
        node = node.inputs[0]
    return node


def _is_scaled(node: Node, site: Node) -> bool:
    """Whether it is what a norm gives, times numbers or a gate."""
    node = _whole(node)
    return node is site or (node.part == MUL and any(_is_scaled(one, site) for one in node.inputs))


def _is_part(node: Node) -> bool:
    """Whether a view holds some of the features only: by its name, or as a slice of them."""
    if node.name in _SLICES:
        return node.made is not None or node.shape[-1:] != node.inputs[0].shape[-1:]
    return node.name in _PARTS


_PARTS = ("chunk", "split", "split_with_sizes", "tensor_split", "unbind")
_SLICES = ("slice", "select", "narrow")
_ON_SCORES = ("mul", "div", "sub", "tanh", "where", "masked_fill", "clamp", "cat")
"""What becomes of scores before their softmax; a column with the logit of no key, as in gpt-oss, is put beside them."""
