"""Words that sentences share: each in the right form."""

from __future__ import annotations

import pandas as pd
import pytest

from bnprobe.rules.wording import activation, count, in_all, kind_words, out_of, some


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
