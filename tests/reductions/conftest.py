"""The kernels run in triton's interpreter where there is no GPU; that of torch 2.6 lacks a word of the language."""

from __future__ import annotations

import numpy as np

try:
    import triton.language as tl
    from triton.runtime import interpreter
except ImportError:
    pass  # the tests that need triton say so themselves
else:
    if not hasattr(interpreter.InterpreterBuilder, "get_int1_ty"):
        # triton 3.2: "not" of a truth value, which its compiler has
        of_numbers = interpreter.InterpreterBuilder.get_all_ones_value

        def all_ones(self: object, kind: tl.dtype) -> object:
            if kind.scalar == tl.int1:
                return interpreter.TensorHandle(np.ones(1, dtype=bool), tl.int1)
            return of_numbers(self, kind)

        interpreter.InterpreterBuilder.get_int1_ty = lambda self: tl.int1
        interpreter.InterpreterBuilder.get_all_ones_value = all_ones
