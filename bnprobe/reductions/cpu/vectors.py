"""Vectors that are written out in LLVM's language, and not left to the compiler to find.

What that brings: the tail of a row is one more vector (it overlaps the one before), so that a row of 49
values is not 48 in vectors and one by itself in a slow loop after the fast one; lanes are joined once for
a row; and memory can be asked for long before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features

from bnprobe.reductions.cpu.llvm import BFLOAT16, FAST, FLOAT16, real_type

WIDTH = 16 if get_host_cpu_features().get("avx512f") else 8
"""Values of a vector. Two vectors for each of the seven sums of a row fit into the registers."""

INT = ir.IntType(32)
INTS = ir.VectorType(INT, WIDTH)
FLAGS = tuple(sorted(FAST))


def same(kind: ir.VectorType, number: float) -> ir.Constant:
    """A constant vector with one number in every lane."""
    return ir.Constant(kind, [ir.Constant(kind.element, number)] * WIDTH)


class Vectors:
    """Writes instructions on the vectors of memory at x[at], whose values have the type `element`."""

    def __init__(self, context: Any, builder: Any, element: Any, x: Any, at: Any) -> None:
        self.builder, self.element, self.x, self.at = builder, element, x, at
        self.stored = context.get_data_type(element)
        self.size = context.get_abi_sizeof(self.stored)
        self.many = ir.VectorType(context.get_value_type(real_type(element)), WIDTH)

    def spread(self, number: Any) -> Any:
        """One number in every lane."""
        nothing = ir.Constant(ir.VectorType(number.type, WIDTH), ir.Undefined)
        lane = self.builder.insert_element(nothing, number, INT(0))
        return self.builder.shuffle_vector(lane, lane, same(INTS, 0))

    def place(self, i: Any) -> Any:
        """The address of x[at + i]."""
        return self.builder.gep(self.x, [self.builder.add(self.at, i)], source_etype=self.stored)

    def load(self, i: Any) -> Any:
        """WIDTH values from x[at + i], in the type in which they are computed: see `lanes.value`."""
        builder, stored = self.builder, ir.VectorType(self.stored, WIDTH)
        found = builder.load(builder.bitcast(self.place(i), stored.as_pointer()), typ=stored, align=self.size)
        if self.element == BFLOAT16:
            return builder.bitcast(builder.shl(builder.zext(found, INTS), same(INTS, 16)), self.many)
        if self.element == FLOAT16:
            return builder.fpext(builder.bitcast(found, ir.VectorType(ir.HalfType(), WIDTH)), self.many)
        return found

    def plus(self, a: Any, b: Any) -> Any:
        """a + b."""
        return self.builder.fadd(a, b, flags=FLAGS)

    def times(self, a: Any, b: Any) -> Any:
        """a * b."""
        return self.builder.fmul(a, b, flags=FLAGS)

    def minus(self, a: Any, b: Any) -> Any:
        """a - b."""
        return self.builder.fsub(a, b, flags=FLAGS)

    def smaller(self, a: Any, b: Any) -> Any:
        """The smaller one; b where a is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def larger(self, a: Any, b: Any) -> Any:
        """The larger one; b where a is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def folded(self, join: Callable[[Any, Any], Any], v: Any) -> Any:
        """All lanes joined into one number, half by half."""
        half = WIDTH // 2
        while half:
            kind = ir.VectorType(INT, half)
            low, high = (ir.Constant(kind, [INT(i) for i in range(a, a + half)]) for a in (0, half))
            v = join(self.builder.shuffle_vector(v, v, low), self.builder.shuffle_vector(v, v, high))
            half //= 2
        return self.builder.extract_element(v, INT(0))
