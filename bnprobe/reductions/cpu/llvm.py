"""What the loops are made of: typed access to memory, and arithmetic that becomes vector instructions.

Requirements this meets: a loop over neighboring values becomes vector code, so nothing in it may
branch; bfloat16 and float16 are widened on the way into a register, so no tensor is copied; sums
may be re-ordered, but NaN and infinity keep their meaning, because they are how bad values are found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BFLOAT16, FLOAT16 = types.uint16, types.int16
"""The stand-ins by which memory of 16-bit floats is typed; numba has no names for these."""

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be re-ordered and fused. Not nnan and ninf: non-finite sums are how bad values are found."""

njit_fast = njit(fastmath=FAST, error_model="numpy", boundscheck=False)
njit_strict = njit(error_model="numpy", boundscheck=False)


def real_type(element: Any) -> Any:
    """The type in which values of a memory type are computed: float32, or float64 for itself."""
    return types.float64 if element == types.float64 else types.float32


@intrinsic
def memory(typingctx: Any, address: Any, element: Any) -> Any:
    """A typed pointer to `address`; `element` is a pointer of the wanted type, whose value is not used."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return element(address, element), generate


@intrinsic
def floats(typingctx: Any, address: Any) -> Any:
    """A pointer to float64 at `address`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float64)(address), generate


def stack(size: int, element: Any = types.float64) -> Any:
    """A function for compiled code: a pointer to `size` numbers on the stack of whoever calls it.

    Why not an array: functions count who holds it, which for one row takes as long as its sums.
    """

    @intrinsic
    def numbers(typingctx: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return cgutils.alloca_once(builder, context.get_data_type(element), size=size)

        return types.CPointer(element)(), generate

    return numbers


def stack_of_reals(size: int) -> Any:
    """As `stack`, of the type in which values of x, the argument of the function, are computed."""

    @intrinsic
    def numbers(typingctx: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return cgutils.alloca_once(builder, context.get_data_type(real_type(x.dtype)), size=size)

        return types.CPointer(real_type(x.dtype))(x), generate

    return numbers


@intrinsic
def nothing(typingctx: Any, terms: Any) -> Any:
    """A tuple of zeros of the types of `terms`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant_null(signature.return_type)

    return terms(terms), generate


@intrinsic
def plus(typingctx: Any, some: Any, more: Any) -> Any:
    """Two tuples of numbers, added one by one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pairs = zip(*(cgutils.unpack_tuple(builder, pair) for pair in args), strict=True)
        return context.make_tuple(builder, signature.return_type, [_sum(builder, *pair) for pair in pairs])

    return some(some, some), generate


@intrinsic
def add_terms(typingctx: Any, board: Any, at: Any, step: Any, terms: Any) -> Any:
    """Add the numbers of a tuple to board[at], board[at + step], and so on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        board_, place, step_, found = args
        for kind, term in zip(terms.types, cgutils.unpack_tuple(builder, found), strict=True):
            entry = builder.gep(board_, [place], source_etype=context.get_data_type(board.dtype))
            sum_ = context.cast(builder, term, kind, board.dtype)
            old = builder.load(entry, typ=context.get_data_type(board.dtype))
            builder.store(_sum(builder, old, sum_), entry)
            place = builder.add(place, step_)
        return context.get_dummy_value()

    return types.void(board, types.int64, types.int64, terms), generate


def _sum(builder: Any, a: Any, b: Any) -> Any:
    return (
        builder.add(a, b) if isinstance(a.type, ir.IntType) else builder.fadd(a, b, flags=tuple(sorted(FAST)))
    )


@intrinsic
def counters(typingctx: Any, address: Any) -> Any:
    """A pointer to int32 at `address`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int32)(address), generate


@intrinsic
def words(typingctx: Any, task: Any) -> Any:
    """The same pointer, read as int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(task), generate


@intrinsic
def take(typingctx: Any, task: Any, at: Any, step: Any) -> Any:
    """Add `step` to the int64 task[at] in one indivisible act; the value before. How threads share work."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = builder.gep(args[0], [args[1]], source_etype=ir.IntType(64))
        return builder.atomic_rmw("add", word, args[2], "monotonic")

    return types.int64(task, types.int64, types.int64), generate


@intrinsic
def value(typingctx: Any, x: Any, at: Any) -> Any:
    """x[at], widened to the type in which it is computed."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        stored = context.get_data_type(x.dtype)
        found = builder.load(builder.gep(args[0], [args[1]], source_etype=stored), typ=stored)
        if x.dtype == BFLOAT16:  # the upper half of a float32
            wide = builder.shl(builder.zext(found, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
            return builder.bitcast(wide, ir.FloatType())
        if x.dtype == FLOAT16:
            return builder.fpext(builder.bitcast(found, ir.HalfType()), ir.FloatType())
        return found

    return real_type(x.dtype)(x, types.int64), generate


@intrinsic
def real(typingctx: Any, x: Any, number: Any) -> Any:
    """A float64 number in the type in which values of x are computed."""
    target = real_type(x.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.cast(builder, args[1], types.float64, target)

    return target(x, types.float64), generate


@intrinsic
def bits(typingctx: Any, number: Any) -> Any:
    """The bits of a float64 as int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


def _extreme(name: str) -> Any:
    @intrinsic
    def extreme(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = args[0].type
            call = builder.module.declare_intrinsic(name, [kind], ir.FunctionType(kind, [kind, kind]))
            # nnan on this one call only, for without it the loop does not become vector code: with a
            # NaN the extremes mean nothing, but so do the sums, by which the row is read again
            return builder.call(call, args, fastmath=("nnan", "nsz"))

        return a(a, b), generate

    return extreme


smaller = _extreme("llvm.minnum")
larger = _extreme("llvm.maxnum")


@njit_strict
def rounded_down(x: Any, number: float) -> Any:
    """The largest value of x's type that is not above a float64 number.

    For v of that type, v > number if and only if v > rounded_down(number).
    """
    near = real(x, number)
    if np.float64(near) > number:
        return np.nextafter(near, real(x, -np.inf))
    return near
