"""Compile an entry once, keep it on disk, and run it on the threads that torch already has.

Why torch's own threads: its OpenMP workers wait for the next operator by spinning, so a second pool
would fight them for the cores; a team of torch's library starts within microseconds, any number of
Python threads may ask for one, and numba's own thread layer would abort the process in that case.
"""

from __future__ import annotations

import ctypes
import threading
from array import array
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from numba import cfunc, types

from bnprobe.garbage import collector_paused
from bnprobe.reductions.cpu.entries import entries
from bnprobe.reductions.cpu.llvm import BFLOAT16, FLOAT16
from bnprobe.stats.fields import FIELDS

ELEMENTS = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.bfloat16: BFLOAT16,
    torch.float16: FLOAT16,
}


def run(name: str, dtype: torch.dtype, task: list[int], n_threads: int) -> None:
    """Run an entry over a task on `n_threads` threads, and return when all is done."""
    words = array("q", task)
    entry, address = compiled(name, dtype), words.buffer_info()[0]
    if n_threads == 1:
        entry(address)
    elif (team := _openmp()) is not None:
        team(ctypes.cast(entry, ctypes.c_void_p), address, n_threads, 0)
    else:
        _on_new_threads(entry, address, n_threads)


@cache
def compiled(name: str, dtype: torch.dtype) -> Any:
    """An entry as a C function of one address; ctypes releases the interpreter's lock around it."""
    with collector_paused():
        entry = _loaded(name, types.void(types.CPointer(ELEMENTS[dtype])))
    _alive.append(entry)  # the code lives as long as what calls it
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(entry.address)


def _loaded(name: str, signature: Any) -> Any:
    function = entries(_stamp())[name]
    try:
        return cfunc(signature, cache=True, error_model="numpy")(function)
    except (RuntimeError, OSError):  # nowhere to keep the compiled code: compile it every time
        return cfunc(signature, error_model="numpy")(function)


_alive: list[Any] = []
"""Entries compiled so far; a C function does not hold the code that it calls."""


@cache
def _stamp() -> str:
    """A mark of the text of every file of this folder, and of what the loops take from elsewhere."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files) + repr(FIELDS).encode()).hexdigest()


@cache
def _openmp() -> Any:
    """`GOMP_parallel` of the OpenMP library that torch itself uses; None where it has another kind."""
    try:
        team = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    team.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    team.restype = None
    return team


def _on_new_threads(entry: Any, address: int, n_threads: int) -> None:
    others = [threading.Thread(target=entry, args=(address,)) for _ in range(n_threads - 1)]
    for thread in others:
        thread.start()
    entry(address)
    for thread in others:
        thread.join()
