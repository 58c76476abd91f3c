"""What a whole lacks, in words, by what its parts say of themselves."""

from __future__ import annotations

import tracemalloc

from bnprobe.recording import Source
from bnprobe.recording.source import missing


def test_a_part_of_very_many_costs_nothing():
    """Fails if what is missing is listed whole: a file may say that it is one of a billion."""
    part = Source(name="a", kind="rank", index=3, of=10**6)
    tracemalloc.start()
    try:
        said = missing([part])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert (
        said
        == "Of 1,000,000 ranks 999,999 are missing: 0, 1, 2, 4, 5, 6, 7, 8 and 999,991 more, counted from 0."
    )
