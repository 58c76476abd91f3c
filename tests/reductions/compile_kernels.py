"""Compile every kernel as a GPU would get it, in the variants that real nets ask for; print their names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bnprobe.reductions.gpu.channels import join_rows
from bnprobe.reductions.gpu.rows import sum_rows
from bnprobe.reductions.gpu.tally import bin_values, count_positive
from bnprobe.reductions.gpu.totals import add_packed
from bnprobe.stats.fields import FIELDS, TERMS

TARGET = GPUTarget("cuda", 80, 32)
POINTERS = {"out", "gates", "maps", "counts", "rows", "kept", "origins", "total", "new", "folds"}


def compile_kernel(
    kernel: triton.JITFunction, warps: int, fixed: Mapping[str, object], x: str = "*fp32"
) -> None:
    """`fixed` holds what is known when compiling; other pointers are float64, other numbers 32 bits."""
    types = {name: x if name == "x" else "*fp64" if name in POINTERS else "i32" for name in kernel.arg_names}
    options = {"num_warps": warps, "enable_fp_fusion": True}
    triton.compile(source_of(kernel, types, fixed), target=TARGET, options=options)
    print(kernel.__name__)


def source_of(kernel: triton.JITFunction, types: Mapping[str, str], fixed: Mapping[str, object]) -> ASTSource:
    """What the compiler is given; pointers are multiples of 16 bytes, as torch's are."""
    aligned = [i for i, type_ in enumerate(types.values()) if type_[0] == "*"]
    if "constexprs" not in inspect.signature(ASTSource).parameters:  # triton before 3.3
        from triton.backends.compiler import AttrsDescriptor

        attributes = AttrsDescriptor.from_hints(dict.fromkeys(aligned, 16))
        return ASTSource(fn=kernel, signature=types, constants=fixed, attrs=attributes)
    return ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in fixed else type_ for name, type_ in types.items()},
        constexprs={(kernel.arg_names.index(name),): value for name, value in fixed.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )


NEIGHBOURS = {"SP": 1, "WIDE": tl.float32}
compile_kernel(sum_rows, 4, {"BC": 1, "BP": 512, "SHORT": False, **NEIGHBOURS})
compile_kernel(sum_rows, 1, {"BC": 4, "BP": 64, "SHORT": True, "gates": None, **NEIGHBOURS}, "*fp16")
compile_kernel(sum_rows, 4, {"BC": 32, "BP": 16, "SHORT": False, "SC": 1, "WIDE": tl.float32}, "*bf16")
compile_kernel(sum_rows, 4, {"BC": 1, "BP": 512, "SHORT": False, "SP": 1, "WIDE": tl.float64}, "*fp64")
compile_kernel(sum_rows, 1, {"BC": 1, "BP": 16, "SHORT": True, "C": 1, "P": 1, **NEIGHBOURS})
compile_kernel(join_rows, 4, {"N_TERMS": len(TERMS), "kept": None, "LONE": False, "BN": 64, "BC": 4})
compile_kernel(join_rows, 4, {"N_TERMS": len(TERMS), "origins": None, "LONE": True, "BN": 1, "BC": 256})
compile_kernel(bin_values, 4, {"SP": 1, "CHUNK": 8192, "BLOCK": 1024})
compile_kernel(count_positive, 4, {"BC": 1, "BP": 512, **NEIGHBOURS})
compile_kernel(add_packed, 4, {"N_FIELDS": len(FIELDS), "BC": 128})
compile_kernel(add_packed, 4, {"N_FIELDS": len(FIELDS), "BC": 128, "folds": None})
compile_kernel(add_packed, 4, {"N_FIELDS": len(FIELDS), "BC": 128, "total": None})
