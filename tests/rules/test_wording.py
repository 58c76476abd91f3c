"""Words that sentences share: each in the right form."""

from __future__ import annotations

import pandas as pd
import pytest

from bnprobe.recording.names import said
from bnprobe.rules.wording import (
    activation,
    count,
    eps_of,
    first_few,
    if_assumed,
    in_all,
    kind_words,
    number,
    out_of,
    sigmas,
    some,
    times,
)


@pytest.mark.parametrize(
    ("n", "noun", "words"),
    [
        (0, "channel", "0 channels"),
        (1, "channel", "1 channel"),
        (2, "batch", "2 batches"),
        (1.0, "backward pass", "1 backward pass"),
        (3, "backward pass", "3 backward passes"),
        (1.02, "batch", "1.02 batches"),
        (1_234_567, "sample", "1,234,567 samples"),
    ],
)
def test_a_number_and_its_noun_agree(n: float, noun: str, words: str):
    """Fails if "1 channels" or "1.23457e+06 samples" is printed."""
    assert count(n, noun) == words


def channels(n: int) -> pd.DataFrame:
    return pd.DataFrame({"channel": range(n)})


def test_shares_of_a_layer():
    """Fails if a layer of one channel has "all 1 channels", or all channels are called some."""
    three = channels(3)
    assert out_of(three[:2], three) == "2 of 3 channels"
    assert out_of(channels(1), channels(1)) == "1 of 1 channel"
    assert in_all(three) == "in all 3 channels"
    assert in_all(channels(1)) == "in the only channel"
    assert some(three, three) == "All channels"
    assert some(three[:2], three) == "Some channels"


def test_kinds_have_their_article():
    """Fails if "a instance norm" or "rms norm" is printed."""
    assert kind_words("batch_norm") == "batch norm"
    assert kind_words("batch_norm", article=True) == "a batch norm"
    assert kind_words("instance_norm", article=True) == "an instance norm"
    assert kind_words("rms_norm", article=True) == "an RMS norm"
    assert kind_words("unknown_norm", article=True) == "a norm-like layer"
    assert kind_words("my_norm", article=True) == "a my_norm", "a name stays a name"


@pytest.mark.parametrize(
    ("follows", "name"),
    [
        ("relu", "ReLU"),
        ("cat, relu | cat, relu", "ReLU"),
        ("hardtanh(-1,1)", "Hardtanh"),
        ("relu | silu", "activation"),
        ("gelu", "activation"),
    ],
)
def test_an_activation_is_named_as_torch_writes_it(follows: str, name: str):
    """Fails if numbers or several ways come into the sentence, or "the relu" stands beside "the ReLU"."""
    assert activation(follows) == name


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1_700_734.0, "1,700,000"),
        (65504.0, "65,500"),
        (0.01234, "0.0123"),
        (3.0, "3"),
        (1e-5, "1e-05"),
        (1e20, "1e+20"),
    ],
)
def test_a_large_number_is_written_out(value: float, words: str):
    """Fails if "1.70073e+06" stands in a sentence."""
    assert number(value) == words


def test_a_ratio_of_one_is_no_number():
    """Fails if something is "1.0 times" something else, or 1.1 counts as 1."""
    assert times(1.004, "that of A") == "as large as that of A"
    assert times(1.1, "that of A") == "1.1 times that of A"
    assert times(2e6, "that of A") == "2,000,000 times that of A"


@pytest.mark.parametrize(
    ("layer", "call", "words"),
    [
        ("1", 0, "layer 1"),
        ("0.1", 1, "layer 0.1 (call 2)"),
        ("0 (by name)", 0, "layer 0 (by name)"),
        ("bn1", 0, "bn1"),
        ("features.0.1", 2, "features.0.1 (call 3)"),
    ],
)
def test_a_layer_named_by_a_number_is_called_a_layer(layer: str, call: int, words: str):
    """Fails if a sentence says "at 1", or a path with letters gets a word in front."""
    assert said(layer, call) == words


@pytest.mark.parametrize(
    ("n", "words"),
    [(0, ""), (1, "a"), (3, "a, b, c"), (4, "a, b, c and 1 more"), (26, "a, b, c and 23 more")],
)
def test_a_list_that_is_cut_says_by_how_much(n: int, words: str):
    """Fails if "and 0 more" is said, or the number that is left out is another."""
    assert first_few(list("abcdefghijklmnopqrstuvwxyz"[:n])) == words
    assert first_few(["a", "b"], most=1) == "a and 1 more"


@pytest.mark.parametrize(
    ("value", "digits", "words"),
    [(1234.5, 2, "1,200"), (12.345, 2, "12"), (12.345, 4, "12.35"), (9.99e14, 3, "999,000,000,000,000"), (1e15, 3, "1e+15")],
)  # fmt: skip
def test_numbers_with_so_many_digits(value: float, digits: int, words: str):
    """Fails if another number of digits is kept, or a number with fifteen zeros is written out."""
    assert number(value, digits) == words


@pytest.mark.parametrize(
    ("shift", "words"), [(0.005, "0.01"), (0.59, "0.59"), (99.994, "99.99"), (100.0, "100"), (19_600.0, "19,600")]
)  # fmt: skip
def test_shifts_of_a_hundred_deviations_have_no_decimals(shift: float, words: str):
    """Fails if the change of form moves."""
    assert sigmas(shift) == words


@pytest.mark.parametrize(("n", "words"), [(1, "in the only channel"), (2, "in all 2 channels")])
def test_two_channels_are_all(n: int, words: str):
    """Fails if two are called the only one."""
    assert in_all(channels(n)) == words


@pytest.mark.parametrize(
    ("noun", "plural"),
    [("layer", "layers"), ("pass", "passes"), ("box", "boxes"), ("batch", "batches"), ("match", "matches")],
)
def test_plurals(noun: str, plural: str):
    """Fails if an ending is not looked at."""
    assert count(2, noun) == f"2 {plural}"
    assert count(1, noun) == f"1 {noun}"


@pytest.mark.parametrize(
    ("assumed", "eps", "end"), [(True, "an assumed eps = 1e-06", ", if eps is 1e-06 as assumed"), (False, "eps = 1e-06", "")]
)  # fmt: skip
def test_an_assumed_eps_is_told_as_one(assumed: bool, eps: str, end: str):
    """Fails if a known eps is called assumed, or the reverse."""
    row = pd.Series({"eps": 1e-6, "eps_assumed": assumed})
    assert (eps_of(row), if_assumed(row)) == (eps, end)
