"""The bins of a row's neighboring values, in vectors: the fast form of `tally.bins_of_run`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bnprobe.reductions.cpu.vectors import INTS, WIDTH, Vectors, same

N_BINS, SIDE = 96, 48
"""As in `stats.histogram`, which compiled code does not import; a test holds them together."""

REST = N_BINS
"""The bin of what is not finite: counted beside the others and thrown away."""

SHIFT, ONE, INFINITE = 49, 1023 << 3, 2047 << 3
"""What of the bits of 1 + |z| lies below the number of its step; that number for 1, and for infinity."""

LONGS, BYTES = ir.VectorType(ir.IntType(64), WIDTH), ir.VectorType(ir.IntType(8), WIDTH)


@intrinsic
def vector_bins(typingctx: Any, x: Any, at: Any, n: Any, map_: Any, found: Any) -> Any:
    """Write the bins of n >= WIDTH neighbors from x[at] to the bytes `found`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, n, map_, found = args
        run = _Run(context, builder, x.dtype, args[:2], cgutils.unpack_tuple(builder, map_, 3))
        whole = builder.and_(n, n.type(-WIDTH))
        with cgutils.for_range_slice(builder, n.type(0), whole, n.type(WIDTH), inc=True) as (i, _):
            run.write(i, found)
        with builder.if_then(builder.icmp_signed("!=", n, whole)):  # the tail: some of it once more
            run.write(builder.sub(n, n.type(WIDTH)), found)
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, map_, found), generate


class _Run(Vectors):
    """`tally.bin_of` of a vector: the same arithmetic in float64, then whole numbers of half the size."""

    def __init__(self, context: Any, builder: Any, element: Any, place: Any, map_: Any) -> None:
        super().__init__(context, builder, element, *place)
        self.origin, self.scale, self.offset = (self.spread(number) for number in map_)

    def write(self, i: Any, found: Any) -> None:
        """Write the bins of the vector at x[at + i]."""
        builder = self.builder
        place = builder.gep(found, [i], source_etype=ir.IntType(8))
        bins = builder.trunc(self.bins(self.mapped(self.load(i))), BYTES)
        builder.store(bins, builder.bitcast(place, BYTES.as_pointer()), align=1)

    def mapped(self, v: Any) -> Any:
        """z, in float64."""
        wide = v if v.type == self.origin.type else self.builder.fpext(v, self.origin.type)
        return self.plus(self.times(self.scale, self.minus(wide, self.origin)), self.offset)

    def bins(self, z: Any) -> Any:
        """The bin of each z; REST where it is not finite."""
        builder = self.builder
        magnitude = builder.and_(builder.bitcast(z, LONGS), same(LONGS, 2**63 - 1))
        u = builder.fadd(same(z.type, 1.0), builder.bitcast(magnitude, z.type))
        step = builder.trunc(builder.lshr(builder.bitcast(u, LONGS), same(LONGS, SHIFT)), INTS)
        side, last = builder.sub(step, same(INTS, ONE)), same(INTS, SIDE - 1)
        side = builder.select(builder.icmp_signed("<", side, last), side, last)
        # below 0 it is -1 - side, which is side with all bits turned over
        below = builder.sext(builder.fcmp_ordered("<", z, same(z.type, 0.0)), INTS)
        bins = builder.add(builder.xor(side, below), same(INTS, SIDE))
        finite = builder.icmp_signed("<", step, same(INTS, INFINITE))
        return builder.select(finite, bins, same(INTS, REST))
