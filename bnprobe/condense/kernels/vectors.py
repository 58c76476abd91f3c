"""The sums of neighbouring values, in vectors that are written out and not left to the compiler.

What that brings: the tail of a row is one more vector (it overlaps the one before, and lanes that were
seen count for nothing), so that a row of 49 values is not 32 in vectors and 17 one by one; lanes are
reduced once; and memory is asked for long before it is needed, which the processor by itself does only
up to the end of a page. The vectors are LLVM's own, of one length for every processor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnprobe.condense.kernels.lanes import BFLOAT16, FAST, FLOAT16, real_type

WIDTH = 16
"""Values of a vector."""

LINE = 64
"""Bytes that come from memory at once."""

N_BINS, SIDE = 96, 48
"""As in `stats.histogram`, which this room does not import; a test holds them together."""

REST = N_BINS
"""The bin of what is not finite: counted beside the others and thrown away."""

SHIFT, ONE, INFINITE = 49, 1023 << 3, 2047 << 3
"""Of the bits of 1 + |z| as float64: below which bit the bin ends, and what stands above it for 1 and
for what is not finite."""

INT = ir.IntType(32)
FLAGS = tuple(sorted(FAST))


def same(kind: ir.VectorType, number: float) -> ir.Constant:
    """A constant vector with one number in every lane."""
    return ir.Constant(kind, [ir.Constant(kind.element, number)] * WIDTH)


@intrinsic
def vector_sums(typingctx: Any, x: Any, at: Any, n: Any, ahead: Any, k: Any, turn: Any, bar: Any) -> Any:
    """As `rows.block_sums`, of n >= WIDTH neighbours from x[at]; asks for what lies `ahead` values later."""
    kind = real_type(x.dtype)
    sums = types.Tuple([kind] * 6 + [types.int32])

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder, x.dtype, args)
        n = args[2]
        both = builder.and_(n, n.type(-2 * WIDTH))
        first, second = lanes.empty(), lanes.empty()
        with cgutils.for_range_slice(builder, n.type(0), both, n.type(2 * WIDTH), inc=True) as (i, _):
            lanes.ask(i)
            lanes.add(first, i)
            lanes.add(second, builder.add(i, n.type(WIDTH)))
        with builder.if_then(builder.icmp_signed("!=", builder.and_(n, n.type(WIDTH)), n.type(0))):
            lanes.add(first, both)
        rest = builder.and_(n, n.type(WIDTH - 1))
        with builder.if_then(builder.icmp_signed("!=", rest, n.type(0))):
            lanes.add(second, builder.sub(n, n.type(WIDTH)), rest)
        return context.make_tuple(builder, signature.return_type, lanes.reduced(first, second))

    return sums(x, types.int64, types.int64, types.int64, kind, kind, kind), generate


@intrinsic
def vector_bins(typingctx: Any, x: Any, at: Any, n: Any, origin: Any, scale: Any, offset: Any, found: Any) -> Any:
    """As `tally.bins_of_run`, of n >= WIDTH neighbours from x[at]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, at, n, *map_, found = args
        lanes = _Lanes(context, builder, signature.args[0].dtype, [x, at, n, None, *map_])
        whole = builder.and_(n, n.type(-WIDTH))
        with cgutils.for_range_slice(builder, n.type(0), whole, n.type(WIDTH), inc=True) as (i, _):
            lanes.write_bins(i, found)
        with builder.if_then(builder.icmp_signed("!=", n, whole)):
            lanes.write_bins(builder.sub(n, n.type(WIDTH)), found)
        return context.get_dummy_value()

    number = types.float64
    return types.void(x, types.int64, types.int64, number, number, number, found), generate


class _Lanes:
    """What writes the instructions: sums are slots of the stack, which the compiler turns into registers."""

    def __init__(self, context: Any, builder: Any, element: Any, args: Any) -> None:
        self.builder, self.element = builder, element
        self.x, self.at, _, self.ahead, *numbers = args
        self.stored = context.get_data_type(element)
        self.size = context.get_abi_sizeof(self.stored)
        self.one = context.get_value_type(real_type(element))
        self.many = ir.VectorType(self.one, WIDTH)
        self.numbers = [self.spread(number) for number in numbers]

    def spread(self, number: Any) -> Any:
        """One number in every lane."""
        lane = self.builder.insert_element(ir.Constant(ir.VectorType(number.type, WIDTH), ir.Undefined), number, INT(0))
        return self.builder.shuffle_vector(lane, lane, same(ir.VectorType(INT, WIDTH), 0))

    def empty(self) -> list[Any]:
        """Slots for the sums s1 to s4, both extremes, and the count."""
        start = [0.0] * 4 + [float("inf"), float("-inf")]
        values = [same(self.many, number) for number in start]
        values.append(same(ir.VectorType(INT, WIDTH), 0))
        return [cgutils.alloca_once_value(self.builder, value) for value in values]

    def place(self, i: Any) -> Any:
        """The address of x[at + i]."""
        return self.builder.gep(self.x, [self.builder.add(self.at, i)], source_etype=self.stored)

    def load(self, i: Any) -> Any:
        """WIDTH values from x[at + i], in the type in which they are computed."""
        builder, stored = self.builder, ir.VectorType(self.stored, WIDTH)
        found = builder.load(builder.bitcast(self.place(i), stored.as_pointer()), typ=stored, align=self.size)
        if self.element == BFLOAT16:
            wide = builder.zext(found, ir.VectorType(INT, WIDTH))
            wide = builder.shl(wide, same(wide.type, 16))
            return builder.bitcast(wide, self.many)
        if self.element == FLOAT16:
            return builder.fpext(builder.bitcast(found, ir.VectorType(ir.HalfType(), WIDTH)), self.many)
        return found

    def ask(self, i: Any) -> None:
        """Ask for the memory of two vectors, `ahead` values after x[at + i]."""
        builder, byte = self.builder, ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, INT, INT, INT])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
        for j in range(0, 2 * WIDTH, LINE // self.size):
            line = self.place(builder.add(i, builder.add(self.ahead, self.ahead.type(j))))
            builder.call(prefetch, [builder.bitcast(line, byte), INT(0), INT(3), INT(1)])

    def add(self, slots: list[Any], i: Any, last: Any = None) -> None:
        """Add the vector at x[at + i] to the sums; only its `last` lanes, if given."""
        builder, (k, turn, bar) = self.builder, self.numbers
        v = self.load(i)
        d = builder.fsub(v, k, flags=FLAGS)
        passes = builder.fcmp_ordered(">", builder.fmul(turn, v), bar)
        if last is not None:
            count = builder.trunc(last, INT)
            lanes = ir.Constant(ir.VectorType(INT, WIDTH), [INT(WIDTH - i) for i in range(WIDTH)])
            new = builder.icmp_signed("<=", lanes, self.spread(count))
            d = builder.select(new, d, same(self.many, 0.0))
            passes = builder.and_(passes, new)
        q = builder.fmul(d, d, flags=FLAGS)
        for slot, term in zip(slots, (d, q, builder.fmul(q, d, flags=FLAGS), builder.fmul(q, q, flags=FLAGS)), strict=False):
            builder.store(builder.fadd(builder.load(slot), term, flags=FLAGS), slot)
        for slot, sign in zip(slots[4:6], "<>", strict=True):
            builder.store(self.choose(sign, v, builder.load(slot)), slot)
        counted = builder.load(slots[6])
        builder.store(builder.sub(counted, builder.sext(passes, counted.type)), slots[6])

    def write_bins(self, i: Any, found: Any) -> None:
        """Write the bin of each value of the vector at x[at + i]: `tally.bin_of` in fewer instructions."""
        builder, (origin, scale, offset) = self.builder, self.numbers
        v = self.load(i)
        wide = v if v.type == origin.type else builder.fpext(v, origin.type)
        z = builder.fmul(scale, builder.fsub(wide, origin, flags=FLAGS), flags=FLAGS)
        z = builder.fadd(z, offset, flags=FLAGS)
        u = builder.fadd(same(origin.type, 1.0), self.magnitude(z))
        long = builder.bitcast(u, ir.VectorType(ir.IntType(64), WIDTH))
        step = builder.trunc(builder.lshr(long, same(long.type, SHIFT)), ir.VectorType(INT, WIDTH))
        side = builder.sub(step, same(step.type, ONE))
        last = same(step.type, SIDE - 1)
        side = builder.select(builder.icmp_signed("<", side, last), side, last)
        # -1 - side for the negative side: all bits turned around
        turned = builder.xor(side, builder.sext(builder.fcmp_ordered("<", z, same(z.type, 0.0)), step.type))
        bins = builder.add(turned, same(step.type, SIDE))
        finite = builder.icmp_signed("<", step, same(step.type, INFINITE))
        bins = builder.select(finite, bins, same(step.type, REST))
        small = ir.VectorType(ir.IntType(8), WIDTH)
        place = builder.gep(found, [i], source_etype=ir.IntType(8))
        builder.store(builder.trunc(bins, small), builder.bitcast(place, small.as_pointer()), align=1)

    def magnitude(self, z: Any) -> Any:
        """|z|: the bits without that of the sign."""
        long = ir.VectorType(ir.IntType(64), WIDTH)
        return self.builder.bitcast(
            self.builder.and_(self.builder.bitcast(z, long), same(long, 2**63 - 1)), z.type
        )

    def choose(self, sign: str, a: Any, b: Any) -> Any:
        """Lane by lane the smaller ("<") or larger (">") one; b where a is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(sign, a, b), a, b)

    def reduced(self, first: list[Any], second: list[Any]) -> list[Any]:
        """The sums of all lanes of both."""
        builder = self.builder

        def plus(a: Any, b: Any) -> Any:
            return builder.fadd(a, b, flags=FLAGS)

        ways = [plus] * 4 + [partial(self.choose, "<"), partial(self.choose, ">"), builder.add]
        return [
            self.folded(way, way(builder.load(one), builder.load(other)))
            for way, one, other in zip(ways, first, second, strict=True)
        ]

    def folded(self, way: Callable[[Any, Any], Any], v: Any) -> Any:
        """All lanes joined into one, half by half."""
        half = WIDTH // 2
        while half:
            parts = [ir.Constant(ir.VectorType(INT, half), [INT(i) for i in range(a, a + half)]) for a in (0, half)]
            v = way(*(self.builder.shuffle_vector(v, v, part) for part in parts))
            half //= 2
        return self.builder.extract_element(v, INT(0))
