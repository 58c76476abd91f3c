"""Python's garbage collector, kept from looking while many objects come into being that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Garbage waits until the block is left; the collector then is as it was.

    Importing hundreds of modules sets it off several times, and each time it walks through all objects of the process,
    torch's with them, for a tenth of a second and more.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
