"""What is said of a change that all norms share: sizes around one, signs, and which side is a file."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bnprobe.recording.names import WEIGHTS_ONLY
from bnprobe.rules.common_change import CommonChange
from bnprobe.rules.compared_model import MOST_NAMED, _amount, _by_one, _differing, _moved, _one_is_a_file
from rules.edited import frame


def change(number: float, factor: bool = False) -> CommonChange:
    return CommonChange(("gamma",), number, factor, ("a", "b"), 6, 2)


@pytest.mark.parametrize(
    ("number", "factor", "by_one", "says"),
    [
        (1.0, False, True, "is exactly 1 larger"),
        (-1.0, False, True, "is exactly 1 smaller"),
        (1.0099, False, True, "is exactly 1 larger"),
        (0.9901, False, True, "is exactly 1 larger"),
        (-0.9901, False, True, "is exactly 1 smaller"),
        (1.0101, False, False, "is 1.0101 larger"),
        (0.9899, False, False, "is 0.9899 larger"),
        (-1.0101, False, False, "is 1.0101 smaller"),
        (0.25, False, False, "is 0.25 larger"),
        (-0.001, False, False, "is 0.001 smaller"),
        (1.0, True, False, "is 1 times as large in B as in"),
        (-2.0, True, False, "is -2 times as large in B as in"),
    ],
)
def test_a_change_by_one_is_a_convention(number: float, factor: bool, by_one: bool, says: str) -> None:
    """Fails if a change of less than 1 is one, its sign is lost, or a factor is a sum."""
    assert _by_one(change(number, factor)) is by_one
    assert _amount(change(number, factor)) == says


@pytest.mark.parametrize(
    ("a", "b", "one"),
    [
        ([WEIGHTS_ONLY, WEIGHTS_ONLY], ["eval", "eval"], True),
        (["eval", "eval"], [WEIGHTS_ONLY, WEIGHTS_ONLY], True),
        ([WEIGHTS_ONLY, WEIGHTS_ONLY], [WEIGHTS_ONLY, WEIGHTS_ONLY], False),
        (["eval", "train"], ["eval", "eval"], False),
        ([WEIGHTS_ONLY, "eval"], [WEIGHTS_ONLY, WEIGHTS_ONLY], True),
        (["eval", "eval"], ["eval", WEIGHTS_ONLY], True),
    ],
)
def test_one_side_is_a_file(a: list[str], b: list[str], one: bool) -> None:
    """Fails if two files, or two runs, are a file and a run."""
    found: Any = SimpleNamespace(layers=pd.DataFrame({"mode_a": a, "mode_b": b}))
    assert _one_is_a_file(found) is one


@pytest.mark.parametrize(
    ("a", "b", "moved"),
    [
        ([1.0, 2.0], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, 2.5], True),
        ([1.0, math.nan], [1.0, math.nan], False),
        ([1.0, math.nan], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, math.nan], True),
        ([math.nan, math.nan], [math.nan, math.nan], False),
        ([math.nan, 2.0], [math.nan, 2.5], True),
    ],
)
def test_a_vector_that_moved(a: list[float], b: list[float], moved: bool) -> None:
    """Fails if one channel is not enough, or a value that one side alone has is none."""
    assert _moved(frame(gamma_a=a, gamma_b=b), "gamma") is moved


@pytest.mark.parametrize(
    ("n", "subject", "end"),
    [
        (1, "One tensor beside the norms differs.", "in B)."),
        (MOST_NAMED, f"{MOST_NAMED} tensors beside the norms differ.", "in B)."),
        (MOST_NAMED + 1, f"{MOST_NAMED + 1} tensors beside the norms differ.", "in B); and 1 more."),
        (MOST_NAMED + 2000, "2,004 tensors beside the norms differ.", "in B); and 2,000 more."),
    ],
)
def test_tensors_that_differ_are_counted(n: int, subject: str, end: str) -> None:
    """Fails if one more than are named is passed over, or one tensor is several."""
    tensors = pd.DataFrame(
        {
            "tensor": [f"t{i}" for i in range(n)],
            "shape_a": "3",
            "shape_b": "3",
            "size_a": 1.0,
            "size_b": [2.0 + i for i in range(n)],
        }
    )
    found = _differing(tensors, "differ", "info")
    assert found.says == subject
    assert found.because.endswith(end)
    # the one whose size changed most comes first
    assert found.because.startswith(f"t{n - 1} (")
    assert found.because.count("root mean square") == min(n, MOST_NAMED)


def test_a_tensor_that_was_zero_is_the_farthest() -> None:
    """Fails if what cannot be told as a factor is named last, or not at all."""
    tensors = pd.DataFrame(
        {
            "tensor": [f"t{i}" for i in range(6)],
            "shape_a": "3",
            "shape_b": "3",
            "size_a": [1.0, 1.0, 1.0, 1.0, 0.0, math.nan],
            "size_b": [2.0, 3.0, 4.0, 5.0, 1.0, 1.0],
        }
    )
    named = [part.partition(" ")[0] for part in _differing(tensors, "differ", "info").because.split("; ")]
    assert named == ["t4", "t3", "t2", "t1", "and"]
