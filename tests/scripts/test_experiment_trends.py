"""The trends that a third network is asked for are those of the two networks beside it, and each can fail."""

from __future__ import annotations

import pandas as pd
import pytest

pytest.importorskip("tqdm", reason="scripts show their progress with tqdm")

from scripts.experiment_trends import OTHERS, VECTORS, of_network, trends_of_statistics, trends_of_vectors

LAYERS = pd.DataFrame(
    [
        ("layer", "bn1", "bias", "permuted", 0.836, 0.234),
        ("layer", "layer1.0.bn1", "var", "1", 0.836, 0.8),
        ("layer", "layer3.2.bn1", "weight", "1", 0.836, 0.83),
        ("layer", "layer3.2.bn2", "bias", "0", 0.836, 0.82),
        ("network", "", "bias", "0", 0.836, 0.09),
        ("network", "", "bias", "data", 0.836, 0.8),
    ],
    columns=["level", "layer", "vector", "replacement", "before", "after"],
)


@pytest.mark.parametrize("which", [0, 1])
def test_every_trend_holds_for_both_networks_it_comes_from(which: int) -> None:
    """Fails if a trend is not one: it must follow from the numbers beside which it stands."""
    found = [
        *trends_of_statistics({at: values[which] for at, values in OTHERS.items()}),
        *trends_of_vectors(
            {at: values[which] for at, values in VECTORS.items()}, LAYERS, (83.6, 82.8)[which]
        ),
    ]
    assert [trend.words for trend in found if not trend.holds] == []
    assert len({trend.words for trend in found}) == len(found) >= 15


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (("none", "both"), 84.0, "on clean images"),
        (("none", "few"), 82.0, "from 64 images"),
        (("none", "mean"), 82.0, "the means alone"),
        (("none", "one class"), 80.0, "one class"),
        (("noise", "mean"), 20.0, "under noise the variance"),
        (("contrast", "var"), 40.0, "under contrast the variance"),
        (("brightness", "mean"), 77.0, "under brightness"),
        (("fog", "mean"), 78.0, "under fog it takes both"),
        (("blur", "few"), 40.0, "under blur 64 images"),
    ],
)
def test_a_trend_of_statistics_can_fail(at: tuple[str, str], value: float, words: str) -> None:
    """Fails if a trend holds whatever is measured."""
    found = {key: values[0] for key, values in OTHERS.items()} | {at: value}
    assert any(words in trend.words for trend in trends_of_statistics(found) if not trend.holds)


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (("var", "1"), 60.0, "nothing is recognized"),
        (("weight", "permuted"), 50.0, "one |γ| for all"),
        (("weight", "unsigned"), 60.0, "signs"),
    ],
)
def test_a_trend_of_vectors_can_fail(at: tuple[str, str], value: float, words: str) -> None:
    """Fails if a trend holds whatever is measured."""
    found = {key: values[0] for key, values in VECTORS.items()} | {at: value}
    assert any(words in trend.words for trend in trends_of_vectors(found, LAYERS, 83.6) if not trend.holds)


def test_the_first_norm_and_deep_ones_are_read_from_the_table() -> None:
    """Fails if another layer's loss passes for the first one's, or the deep norms are not those of the last block."""
    found = {key: values[0] for key, values in VECTORS.items()}
    worse = LAYERS.assign(after=[0.8, 0.2, 0.5, 0.5, 0.09, 0.8])
    said = {trend.words: trend.holds for trend in trends_of_vectors(found, worse, 83.6)}
    assert said["of single layers the first matters most"] is False
    assert said["a vector of a deep norm is worth two points or less, as a rule"] is False


def test_rows_of_the_whole_network_are_taken_and_no_others() -> None:
    """Fails if a layer's accuracy stands for the network's, or a replacement without a counterpart is listed."""
    assert of_network(LAYERS) == {("bias", "0"): pytest.approx(9.0)}
