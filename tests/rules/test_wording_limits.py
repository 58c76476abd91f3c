"""Words of counts, numbers and names at and beside where their form changes."""

from __future__ import annotations

import pandas as pd
import pytest

from bnprobe.rules.remedies import is_function, recalibrate, recalibration, reinitialized
from bnprobe.rules.wording import (
    activation,
    count,
    first_few,
    in_all,
    kind_words,
    number,
    sigmas,
    some,
    times,
)


def channels(n: int) -> pd.DataFrame:
    return pd.DataFrame({"channel": range(n)})


@pytest.mark.parametrize(
    ("n", "noun", "says"),
    [
        (0, "channel", "0 channels"),
        (1, "channel", "1 channel"),
        (2, "channel", "2 channels"),
        (1.5, "batch", "1.5 batches"),
        (1, "batch", "1 batch"),
        (1000, "pass", "1,000 passes"),
        (2, "index", "2 indexes"),
    ],
)
def test_counts(n: float, noun: str, says: str) -> None:
    """Fails if one has a plural, or two and a half are rounded."""
    assert count(n, noun) == says


@pytest.mark.parametrize(
    ("value", "digits", "says"),
    [
        (999.4, 3, "999"),
        (1234.0, 3, "1,230"),
        (1.7e6, 3, "1,700,000"),
        (-1.7e6, 3, "-1,700,000"),
        (9.9e14, 3, "990,000,000,000,000"),
        (1e15, 3, "1e+15"),
        (-1e15, 3, "-1e+15"),
        (1.2e-7, 3, "1.2e-07"),
        (0.123456, 2, "0.12"),
    ],
)
def test_numbers(value: float, digits: int, says: str) -> None:
    """Fails if a negative number is small, or a size in a sentence has an exponent where it need not."""
    assert number(value, digits) == says


@pytest.mark.parametrize(
    ("shift", "says"), [(0.594, "0.59"), (99.994, "99.99"), (100.0, "100"), (19612.0, "19,600")]
)
def test_shifts(shift: float, says: str) -> None:
    """Fails if a large shift has digits that mean nothing, or a small one has none."""
    assert sigmas(shift) == says


@pytest.mark.parametrize(
    ("ratio", "says"), [(1.04, "as large as A's"), (1.06, "1.06 times A's"), (0.96, "0.96 times A's")]
)
def test_ratios(ratio: float, says: str) -> None:
    """Fails if 1.0 times is told."""
    assert times(ratio, "A's") == says


@pytest.mark.parametrize(
    ("n", "says"), [(1, "in the only channel"), (2, "in all 2 channels"), (3, "in all 3 channels")]
)
def test_all_channels(n: int, says: str) -> None:
    """Fails if two are one."""
    assert in_all(channels(n)) == says


@pytest.mark.parametrize(
    ("n", "says"), [(1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (1004, "0, 1, 2 and 1,001 more")]
)
def test_the_first_names(n: int, says: str) -> None:
    """Fails if none more are told of, or one that is."""
    assert first_few([str(i) for i in range(n)]) == says
    assert first_few(["a", "b"], most=1) == "a and 1 more"


@pytest.mark.parametrize(("n", "says"), [(3, "All channels"), (2, "Some channels")])
def test_all_or_some(n: int, says: str) -> None:
    """Fails if one less is all."""
    assert some(channels(n), channels(3)) == says


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("batch_norm", "a batch norm"),
        ("instance_norm", "an instance norm"),
        ("rms_norm", "an RMS norm"),
        ("unknown_norm", "a norm-like layer"),
        ("my_norm", "a my_norm"),
    ],
)
def test_kinds_with_an_article(kind: str, says: str) -> None:
    """Fails if an article does not go with the word."""
    assert kind_words(kind, article=True) == says
    assert kind_words(kind) == says.split(" ", 1)[1]


@pytest.mark.parametrize(
    ("follows", "says"),
    [
        ("relu", "ReLU"),
        ("cat, relu", "ReLU"),
        ("hardtanh(0, 4)", "Hardtanh"),
        ("relu | cat, relu", "ReLU"),
        ("relu | conv", "activation"),
        ("gelu", "activation"),
    ],
)
def test_activations(follows: str, says: str) -> None:
    """Fails if one of two ways is told for both, or numbers are part of the name."""
    assert activation(follows) == says


@pytest.mark.parametrize(
    ("kind", "name", "by_hand"),
    [
        ("batch_norm", "BatchNorm2d", False),
        ("instance_norm", "InstanceNorm2d", True),
        ("batch_norm", "FrozenBatchNorm2d", True),
    ],
)
def test_norms_that_update_bn_skips_are_renewed_by_hand(kind: str, name: str, by_hand: bool) -> None:
    """Fails if torch's own function is advised where it does nothing, in words or as an edit."""
    row = pd.Series({"layer": "n", "kind": kind, "class_name": name})
    assert ("by hand" in recalibrate(row)) is by_hand
    assert ("RecalibrateOne" in type(recalibration(row)).__name__) is by_hand
    assert "for b in batches" in recalibrate(row, "batches") or "update_bn(batches" in recalibrate(
        row, "batches"
    )


@pytest.mark.parametrize(
    ("layer", "is_one"),
    [
        ("block.layer_norm:12", True),
        ("batch_norm:3[64]", True),
        ("block.norm", False),
        ("layer_norm", False),
        ("layer_norm:x", False),
    ],
)
def test_calls_of_functions_have_a_line(layer: str, is_one: bool) -> None:
    """Fails if a module of such a name is a function."""
    assert is_function(layer) is is_one


def test_code_for_some_and_for_all_channels() -> None:
    """Fails if all channels are listed, some are not, or a bias that is missing is set."""
    assert reinitialized("n", (0, 2), 3).startswith("`at = [0, 2]; n = model")
    assert "data[:] = 1" in reinitialized("n", (0, 1, 2), 3)
    assert "bias" not in reinitialized("n", (0,), 3, has_bias=False)
