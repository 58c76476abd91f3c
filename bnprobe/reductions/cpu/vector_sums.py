"""The sums of a row's neighbouring values, in vectors: the fast form of `rows.block_sums`.

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
from bnprobe.reductions.cpu.vectors import INT, INTS, WIDTH, Vectors, same

LINE = 64
"""Bytes that come from memory at once."""


@intrinsic
def vector_sums(typingctx: Any, x: Any, at: Any, n: Any, ahead: Any, k: Any, turn: Any, bar: Any) -> Any:
    """`rows.block_sums` of n >= WIDTH neighbours from x[at]; asks for what lies `ahead` values later."""
    kind = real_type(x.dtype)
    sums = types.Tuple([kind] * 6 + [types.int32])

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _Block(context, builder, x.dtype, args)
        block.sum(args[2])
        return context.make_tuple(builder, signature.return_type, block.joined())

    return sums(x, types.int64, types.int64, types.int64, kind, kind, kind), generate


class _Block(Vectors):
    """Two vectors for each sum, so that one can be added to while the other is on its way."""

    def __init__(self, context: Any, builder: Any, element: Any, args: Any) -> None:
        x, at, _, self.ahead, *numbers = args
        super().__init__(context, builder, element, x, at)
        self.k, self.turn, self.bar = (self.spread(number) for number in numbers)
        self.first, self.second = self.empty(), self.empty()
        self.ways = [self.plus] * 4 + [self.smaller, self.larger, builder.add]

    def empty(self) -> list[Any]:
        """Nothing added yet: slots of the stack, which the compiler turns into registers."""
        start = [0.0] * 4 + [float("inf"), float("-inf")]
        vectors = [*(same(self.many, number) for number in start), same(INTS, 0)]
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
        d, passes = self.minus(v, self.k), builder.fcmp_ordered(">", builder.fmul(self.turn, v), self.bar)
        if last is not None:
            new = self.are_last(last)
            d, passes = builder.select(new, d, same(self.many, 0.0)), builder.and_(passes, new)
        q = self.times(d, d)
        # the extremes may see values of a tail twice; -1 stands for true
        terms = [d, q, self.times(q, d), self.times(q, q), v, v, builder.sext(passes, INTS)]
        for slot, way, term in zip(slots, self.ways, terms, strict=True):
            builder.store(way(term, builder.load(slot)), slot)

    def are_last(self, many: Any) -> Any:
        """Which lanes are among the last so many."""
        lanes = ir.Constant(INTS, [INT(WIDTH - i) for i in range(WIDTH)])
        return self.builder.icmp_signed("<=", lanes, self.spread(self.builder.trunc(many, INT)))

    def joined(self) -> list[Any]:
        """The sums of all lanes."""
        load = self.builder.load
        *sums, passed = [
            self.folded(way, way(load(one), load(other)))
            for way, one, other in zip(self.ways, self.first, self.second, strict=True)
        ]
        return [*sums, self.builder.neg(passed)]
