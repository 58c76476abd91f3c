"""Outputs that are not the formula's: what is said of half precision, of lost rows, and of clipped ends."""

from __future__ import annotations

import pytest

from rules.edited import edited, evidence, findings


@pytest.mark.parametrize(
    ("instead", "dtype", "words"),
    [
        ("in float16", "float32", ", which it computes in float16."),
        ("without the mean; in bfloat16", "float32", ", which it computes in bfloat16."),
        ("", "float16", ", which it computes in float16."),
        ("", "bfloat16", ", which it computes in bfloat16."),
        ("", "float32", " of the first call."),
        ("", "", " of the first call."),
    ],
)
def test_the_half_precision_in_which_rows_were_lost(instead: str, dtype: str, words: str) -> None:
    """Fails if the precision of the statistics is not named, that of the inputs goes before it, or float32 is half."""
    row = {"zero_rows": 0.2, "computes_instead": instead, "input_dtype": dtype}
    (one,) = findings("rows-zero", edited(evidence(), **row))
    assert one.because.startswith("20.0% of the positions of the first call")
    assert one.because.endswith(words)


@pytest.mark.parametrize(
    ("share", "severity"), [(0.0, None), (1e-3, "warning"), (0.499, "warning"), (0.5, "critical")]
)
def test_half_of_all_rows_lost_is_critical(share: float, severity: str | None) -> None:
    """Fails if a single lost row is nothing, or half of them are a mere warning."""
    found = findings("rows-zero", edited(evidence(), zero_rows=share))
    assert [one.severity for one in found] == ([severity] if severity else [])
