"""The sums of a row's neighboring values, in vectors: the fast form of `rows.block_sums`.

Memory is asked for some pages ahead: the processor by itself does so only up to the end of a page, and
hardly ever does the next row begin there.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnprobe.reductions.cpu.llvm import real_type
from bnprobe.reductions.cpu.terms import vector_terms
from bnprobe.reductions.cpu.vectors import INT, INTS, WIDTH, Vectors, same
from bnprobe.stats.fields import TERMS

LINE = 64
"""Bytes that come from memory at once."""

N_SUMS = 6
"""Power sums and extremes."""


@intrinsic
def vector_sums(typingctx: Any, x: Any, at: Any, n: Any, ahead: Any, k: Any, turn: Any, bar: Any) -> Any:
    """`rows.block_sums` of n >= WIDTH neighbors from x[at]; asks for what lies `ahead` values later."""
    kind = real_type(x.dtype)
    more = types.Tuple([types.int32 if term.whole else kind for term in TERMS])
    sums = types.Tuple([kind] * N_SUMS + [more])

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _Block(context, builder, x.dtype, args)
        block.sum(args[2])
        found, terms = block.joined()
        return context.make_tuple(
            builder, signature.return_type, [*found, context.make_tuple(builder, more, terms)]
        )

    return sums(x, types.int64, types.int64, types.int64, kind, kind, kind), generate


class _Block(Vectors):
    """Two vectors for each sum, so that one can be added to while the other is on its way."""

    def __init__(self, context: Any, builder: Any, element: Any, args: Any) -> None:
        x, at, _, self.ahead, *numbers = args
        super().__init__(context, builder, element, x, at)
        self.k, self.turn, self.bar = (self.spread(number) for number in numbers)
        self.first, self.second = self.empty(), self.empty()
        of_terms = [builder.add if term.whole else self.plus for term in TERMS]
        self.ways = [self.plus] * 4 + [self.smaller, self.larger, *of_terms]

    def empty(self) -> list[Any]:
        """Nothing added yet: slots of the stack, which the compiler turns into registers."""
        start = [0.0] * 4 + [float("inf"), float("-inf")]
        of_terms = [same(INTS, 0) if term.whole else same(self.many, 0.0) for term in TERMS]
        vectors = [*(same(self.many, number) for number in start), *of_terms]
        return [cgutils.alloca_once_value(self.builder, vector) for vector in vectors]

    def sum(self, n: Any) -> None:
        """Add n values: pairs of vectors, then a whole one, then the tail."""
        builder, nothing = self.builder, n.type(0)
        pairs = builder.and_(n, n.type(-2 * WIDTH))
        with cgutils.for_range_slice(builder, nothing, pairs, n.type(2 * WIDTH), inc=True) as (i, _):
            self.ask(i)
            self.add(self.first, i)
            self.add(self.second, builder.add(i, n.type(WIDTH)))
        with builder.if_then(builder.icmp_signed("!=", builder.and_(n, n.type(WIDTH)), nothing)):
            self.add(self.first, pairs)
        rest = builder.and_(n, n.type(WIDTH - 1))
        with builder.if_then(builder.icmp_signed("!=", rest, nothing)):
            self.add(self.second, builder.sub(n, n.type(WIDTH)), rest)

    def ask(self, i: Any) -> None:
        """Ask for the memory of two vectors, `ahead` values after x[at + i]; it may lie anywhere."""
        builder, byte = self.builder, ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, INT, INT, INT])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
        for j in range(0, 2 * WIDTH, LINE // self.size):
            line = self.place(builder.add(i, builder.add(self.ahead, self.ahead.type(j))))
            builder.call(prefetch, [builder.bitcast(line, byte), INT(0), INT(3), INT(1)])

    def add(self, slots: list[Any], i: Any, last: Any = None) -> None:
        """Add the vector at x[at + i]; only its `last` lanes, if given."""
        builder, v = self.builder, self.load(i)
        d, *more = self.minus(v, self.k), *vector_terms(self, v, self.turn, self.bar)
        if last is not None:
            new = self.are_last(last)
            d, *more = (self.only(new, term) for term in (d, *more))
        more = [builder.sext(one, INTS) if term.whole else one for term, one in zip(TERMS, more, strict=True)]
        q = self.times(d, d)
        # the extremes may see values of a tail twice
        terms = [d, q, self.times(q, d), self.times(q, q), v, v, *more]
        for slot, way, term in zip(slots, self.ways, terms, strict=True):
            builder.store(way(term, builder.load(slot)), slot)

    def only(self, lanes: Any, term: Any) -> Any:
        """The term in some lanes, 0 in the others."""
        if term.type == lanes.type:
            return self.builder.and_(term, lanes)
        return self.builder.select(lanes, term, same(term.type, 0.0))

    def are_last(self, many: Any) -> Any:
        """Which lanes are among the last so many."""
        lanes = ir.Constant(INTS, [INT(WIDTH - i) for i in range(WIDTH)])
        return self.builder.icmp_signed("<=", lanes, self.spread(self.builder.trunc(many, INT)))

    def joined(self) -> tuple[list[Any], list[Any]]:
        """The sums of all lanes, and those of the terms."""
        load = self.builder.load
        sums = [
            self.folded(way, way(load(one), load(other)))
            for way, one, other in zip(self.ways, self.first, self.second, strict=True)
        ]
        # a mask that counts is -1
        pairs = zip(TERMS, sums[N_SUMS:], strict=True)
        return sums[:N_SUMS], [self.builder.neg(sum_) if term.whole else sum_ for term, sum_ in pairs]
