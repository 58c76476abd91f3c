"""The first screen: a verdict, five questions, the network drawn once, and what the norms learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from measures.sites import gradient, memory_of, recording, site, some_rows
from rules.edited import edited, evidence
from torch import nn

import bnprobe
from bnprobe.measures.stem import StemReading
from bnprobe.models.inputs import guess
from bnprobe.models.preprocessing import Given
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Neighbours
from bnprobe.report.chapters import learned, stops
from bnprobe.report.chapters.tiles import _numerics
from bnprobe.report.chapters.working import working
from bnprobe.report.formats.html import to_html
from bnprobe.report.numbers import number
from bnprobe.report.page import blocks
from bnprobe.report.page.blocks import bars
from bnprobe.rules.tokens import overflowing_squares

ROWS = some_rows(40)
MEMORY = memory_of(ROWS)
FRESH = {"gamma": 1, "beta": 0, "running_mean": 0, "running_var": 1, "n_batches_tracked": 0}


def trained(name: str = "bn", **changes: object) -> LayerRecord:
    return site(ROWS, name, **{"gamma": [0.3, 0.8, 1.5], "beta": 0.1, "eps": 0.0, **MEMORY, **changes})


def judged(name: str, **changes: object) -> LayerRecord:
    """A norm with samples enough to say that they match."""
    many = some_rows(400)
    return site(many, name, **{"gamma": 0.7, "beta": 0, **memory_of(many), **changes})


def page(*layers: LayerRecord, **about: object) -> blocks.Page:
    return bnprobe.report(recording(*layers, **about))._page


def block(found: blocks.Page, kind: type) -> list:
    return [one for section in found.sections for one in section.blocks if isinstance(one, kind)]


def headline(*layers: LayerRecord) -> blocks.Headline:
    (found,) = block(page(*layers), blocks.Headline)
    return found


def tile(question: str, *layers: LayerRecord) -> blocks.Tile:
    (found,) = block(page(*layers), blocks.Tiles)
    return next(one for one in found.tiles if one.question == question)


def lanes(*layers: LayerRecord) -> dict[str, object]:
    wide = next(figure for figure in page(*layers).figures() if figure.name == "spine")
    return {lane.title: lane for lane in wide.spec.lanes}


def far(scale: float) -> dict[str, np.ndarray]:
    """Running statistics of which the rows have `scale` times the variance."""
    return {"running_mean": MEMORY["running_mean"], "running_var": MEMORY["running_var"] / scale}


def test_the_page_opens_with_the_verdict_and_a_picture():
    """Fails if provenance or prose comes before the verdict, or the picture after the prose."""
    first = page(trained()).sections[0]
    assert first.id == "answer"
    kinds = [type(one).__name__ for one in first.blocks]
    assert kinds == ["Headline", "Tiles", "Figure", "Figure", "Prose"]


@pytest.mark.parametrize(
    ("layers", "state", "words"),
    [
        ((judged("a"), judged("b")), "good", "Your inputs match the training data"),
        ((judged("a"), trained("b"), trained("c")), "unknown", "Too few samples to say"),
        ((trained("a"), trained("b")), "unknown", "As far as 40 samples can tell"),
        ((trained("a", **far(9)), trained("b", **far(9))), "warning", "do not match the training data"),
        ((site(ROWS, "a", **FRESH), site(ROWS, "b", **FRESH)), "untrained", "untrained"),
        ((site(ROWS, "a", "layer_norm", gamma=1.3, beta=0.2),), "good", "No rule found a problem"),
    ],
    ids=["healthy", "hardly judged", "few samples", "shifted", "untrained", "layer norm"],
)
def test_the_ladder_of_verdicts(layers, state, words):
    """Fails if a shift, too few samples, or a network without training, reads like a healthy one."""
    found = headline(*layers)
    assert (found.state, words in found.title) == (state, True), found


WEIGHTS = {"bn.weight": [2.0, 1.2, 0.7], "bn.bias": [0.1, 0.2, 0.3]}
STORED = {"bn.running_mean": [0.1, 0.2, -0.4], "bn.running_var": [1.1, 0.3, 0.6]}


@pytest.mark.parametrize(
    ("vectors", "checked"),
    [
        (
            {**WEIGHTS, **STORED},
            "Only γ, β, running means and running variances of 1 norm could be checked; whether data match them",
        ),
        (WEIGHTS, "Only γ and β of 1 norm could be checked; how large inputs are"),
    ],
    ids=["batch norm", "without running statistics"],
)
def test_weights_alone_are_no_good_news_about_data(vectors, checked):
    """Fails if a file of weights has a green verdict, or its headline leaves out what takes data to say."""
    report = bnprobe.check({name: torch.tensor(values) for name, values in vectors.items()})
    assert "warning" not in set(report.findings["severity"])
    (found,) = block(report._page, blocks.Headline)
    assert found.state == "unknown"
    assert found.title.endswith("in the weights")
    assert found.detail == f"{checked}, and which channels work on data, cannot be said without data."
    assert report.answer.count("No rule found") == 1


def test_what_is_not_finite_comes_before_all_else():
    """Fails if values that are not finite hide behind the match of the data, or behind a network without training."""
    rows = ROWS.copy()
    rows[:, 1] = np.nan
    for layer, vectors in ((trained(), {"gamma": 0.7, "beta": 0, **MEMORY}), (site(ROWS, **FRESH), FRESH)):
        found = headline(layer, site(rows, "other", **vectors))
        assert found.state == "critical"
        assert "other" in found.detail


def test_a_warning_does_not_hide_that_the_data_match():
    """Fails if one channel's warning becomes the verdict on a network that fits its data, leaves it green, or stands
    apart from it."""
    odd = trained("odd", gamma=[1e-6, 1, 1], beta=[-1, 0, 0])
    report = bnprobe.report(recording(trained("a"), odd))
    assert "warning" in set(report.findings["severity"])
    (found,) = block(report._page, blocks.Headline)
    assert found.state == "notice"
    assert "match the training data" in found.title
    assert "Warning: " in found.detail
    assert report.answer.count("Warning: ") == 1


def test_dead_channels_and_a_shift_are_both_in_the_headline():
    """Fails if a reader of the first lines learns of the shift alone, or channels that do not work come after a slight
    mismatch; the shift itself is not said twice."""
    many = some_rows(400, 8)
    stored = memory_of(many)
    slightly = {**stored, "running_var": stored["running_var"] / 1.4}
    far_away = {**stored, "running_mean": stored["running_mean"] - np.sqrt(stored["running_var"])}
    dead = {"gamma": 0.8, "beta": [-9, -9, -9, -9, 0.1, 0.1, 0.1, 0.1], "neighbours": Neighbours("relu")}
    for off, rules, title in (
        (slightly, {"channels-dead"}, "12 of 24 channels pass nothing on"),
        (far_away, {"channels-dead", "data-shifted"}, "Your inputs do not match the training data"),
    ):
        report = bnprobe.report(recording(*(site(many, name, **dead, **off) for name in "abc")))
        assert set(report.findings["rule"]) == rules
        (found,) = block(report._page, blocks.Headline)
        assert (found.state, found.title) == ("warning", title)
        assert found.detail.endswith(
            "Warning: Some channels are dead: the ReLU after this norm always outputs 0 for them (at a and 2 other places)."
        )
        assert report.answer.count("Some channels are dead") == 1
        assert report.answer.count(title) == 1
    far_off = headline(trained("a", **far(9)), trained("b", **far(9)))
    assert "Warning" not in far_off.detail


def test_many_idle_channels_come_before_a_match():
    """Fails if a network half of whose channels pass nothing on is headed by the match of its data, or one of 24 is enough
    for that."""
    many = some_rows(400, 8)
    layers = {}
    memory = memory_of(many)
    for n in (1, 4):
        beta = [-9.0] * n + [0.1] * (8 - n)
        dead = {"gamma": 0.8, "beta": beta, "neighbours": Neighbours("relu")}
        layers[n] = [site(many, name, **dead, **memory) for name in "abc"]
        for by in (0.3, 0.9):  # a little off, and beyond a doubt
            moved = memory | {"running_mean": memory["running_mean"] + by * np.sqrt(memory["running_var"])}
            layers[n, by] = [site(many, name, **dead, **moved) for name in "abc"]
    assert headline(*layers[4, 0.3]).title == "12 of 24 channels pass nothing on"
    assert "do not quite match" in headline(*layers[4, 0.3]).detail
    assert headline(*layers[1, 0.3]).title == "Your inputs do not quite match the training data"
    assert headline(*layers[4, 0.9]).title == "Your inputs do not match the training data"
    found = headline(*layers[4])
    assert (found.state, found.title) == ("warning", "12 of 24 channels pass nothing on")
    assert "Warning: Some channels are dead" in found.detail
    assert "Your inputs match the training data" in found.detail
    assert headline(*layers[1]).title == "Your inputs match the training data"


def test_the_gradient_has_a_lane():
    """Fails if the page of a recording with gradients opens like one without, or lengths are not those of its norms."""
    layers = [
        site(ROWS, name, gradient=gradient(by * ROWS), **MEMORY)
        for name, by in (("a", 1), ("b", 2), ("c", 12))
    ]
    lane = lanes(*layers)["length of the gradient, relative to the median norm"]
    np.testing.assert_allclose(lane.values, [0.5, 1, 6])
    assert "gradient" not in " ".join(lanes(trained("a"), trained("b")))


def test_a_mean_of_many_channels_is_a_range(monkeypatch):
    """Fails if the mean of 64 channels of noise is told number by number."""
    mean = tuple(np.linspace(-0.1, 0.2, 64))
    monkeypatch.setattr(learned, "stem", lambda recording: StemReading(True, "", "a", mean_input=mean))
    (found,) = block(page(trained("a"), trained("b")), blocks.Learned)
    assert "a mean of −0.10 to 0.20 in 64 channels in units of the input" in found.facts[0].says


def test_a_cause_in_the_statistics_comes_before_the_data():
    """Fails if the samples are blamed where one norm is called on inputs that are not alike; or no longer by themselves."""
    means, several = MEMORY["running_mean"], {"gamma": [0.3, 0.8, 1.5], "beta": 0.1, "eps": 0.0}
    mixed = {"running_mean": means + 25, "running_var": MEMORY["running_var"] + 625}
    calls = site(ROWS, "bn", **several, **mixed), site(ROWS + 50, "bn", call=1, **several, **mixed)
    report = bnprobe.report(recording(*calls))
    (found,) = block(report._page, blocks.Headline)
    assert (found.state, found.title.startswith("One norm is called on inputs that are not alike")) == (
        "warning",
        True,
    )
    assert report.answer.startswith("Warning: One norm is called")
    assert "the training data" not in report.answer
    alone = headline(site(ROWS + 50, "bn", **several, **mixed))
    assert "do not match the training data" in alone.title


@pytest.mark.parametrize(
    ("size", "state", "says"),
    [
        (1e2, "good", "yes: largest value 100, and float16 ends at 65,504"),
        (4e4, "notice", "only just: largest value 40,000, and float16 ends at 65,504"),
        (1e5, "warning", "float16 would overflow"),
    ],
)
def test_a_tile_says_when_half_precision_ends(size: float, state: str, says: str):
    """Fails if the headroom below 65,504 is a riddle, or 2 is no longer where it is called small."""
    rows = ROWS * 0 + np.where(np.arange(14) % 2, size, -size)
    layer = site(rows, gamma=1.5, beta=0.1, running_mean=0, running_var=size**2 + 1)
    found = tile("Numbers safe?", layer)
    assert (found.state, found.says) == (state, says)


def test_a_gamma_that_stayed_near_1_is_not_told_by_its_median():
    """Fails if a trained network is said to have a typical |γ| of 1.0, which is what an untrained one has."""
    near = [0.97, 1.004, -1.02]
    low, high = np.quantile(np.abs(near), (0.05, 0.95))
    assert (
        tile("Trained?", trained(gamma=near)).says == f"yes: |γ| {low:.3f} to {high:.2f}; untrained it is 1"
    )
    assert tile("Trained?", trained()).says == "yes: typical |γ| 0.80; untrained it is 1"


def test_the_answer_begins_with_the_headline():
    """Fails if page and text open with different verdicts."""
    for layers in ((trained("a"),), (trained("a", **far(9)),), (site(ROWS, **FRESH),)):
        report = bnprobe.report(recording(*layers))
        (found,) = block(report._page, blocks.Headline)
        assert report.answer.startswith(found.text)
        assert report.answer.count(found.text) == 1
        assert report.summary(10_000).find(found.text) > 0


def test_a_tile_counts_norms_that_are_shifted():
    """Fails if norms that match count as shifted, or the bars are not those of the distances."""
    layers = [trained("a"), trained("b", **far(9)), trained("c", **far(9))]
    found = tile("Data match?", *layers)
    table = bnprobe.report(recording(*layers)).layers
    judged = table["verdict"] != "too few samples"
    assert found.says == f"off at 2 of {judged.sum()} norms{'' if judged.all() else ' judged'}"
    assert found.high == (False, True, True)
    assert found.bars == bars(np.clip(table["w2_rms"], 0, 1).where(judged).to_numpy())
    many = some_rows(400)
    assert tile("Data match?", site(many, "a", gamma=0.7, beta=0, **memory_of(many))).says == "yes"


def test_a_tile_says_why_nothing_is_known():
    """Fails if what was not measured looks like a yes or a no."""
    layer = site(ROWS, "ln", "layer_norm", gamma=1.1)
    assert tile("Data match?", layer).state == "unknown"
    assert tile("Data match?", layer).says == "no running statistics to match"
    assert tile("Data match?", site(some_rows(5), gamma=0.7, **MEMORY)).says == "too few samples to tell"
    assert "never updated" in tile("Data match?", site(ROWS, **FRESH)).says


def test_channels_are_counted_once():
    """Fails if a channel that is constant and silent counts twice, or one that works counts at all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()).eval()
    with torch.no_grad():
        model[1].weight[:2] = 0
        model[1].bias.copy_(torch.tensor([-1.0, 0.5, -90.0, 0.3, 0.3]))
    report = bnprobe.report(bnprobe.record(model, [torch.randn(40, 3, 8, 8)]))
    (found,) = (one for one in block(report._page, blocks.Tiles)[0].tiles if one.question == "Channels work?")
    # constant and cut, constant and passed, cut; the last two work
    assert found.says == "3 of 5 do not"
    assert (found.state, found.bars) == ("warning", (1.0,))  # more than the quarter at which the scale ends


def test_numbers_that_half_precision_cannot_hold():
    """Fails if the smallest headroom of the network is not the one that counts."""
    large = site(ROWS * 1e5, "big", gamma=0.7, beta=0.1, **memory_of(ROWS * 1e5))
    assert tile("Numbers safe?", trained("a"), large).state == "warning"
    small = tile("Numbers safe?", trained("a"))
    largest = 65504 / float(bnprobe.report(recording(trained("a"))).layers["half_headroom"].min())
    assert small.state == "good"
    assert small.says == f"yes: largest value {number(largest, 2)}, and float16 ends at 65,504"


@pytest.mark.parametrize("vector", ["gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_stored_values_that_are_not_finite_are_not_safe(vector, value):
    """Fails if a file with infinite statistics has no page, or a norm with one broken weight is called safe."""
    bad = trained("b")
    stored = np.array(getattr(bad, vector), dtype=float)
    stored[1] = value
    found = tile("Numbers safe?", trained("a"), replace(bad, **{vector: stored}))
    assert (found.state, found.says) == ("critical", "no: stored values of 1 norm are not finite")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_of_nan_is_not_called_trained(value):
    """Fails if a γ that is NaN throughout is taken for one that is not there, or an infinite one for a typical one."""
    diverged = replace(trained("a"), gamma=np.full_like(trained("a").gamma, value))
    assert tile("Trained?", diverged).says == "not known: no γ is finite"
    assert tile("Trained?", replace(diverged, gamma=None)).says == "yes"
    assert tile("Trained?", diverged, trained("b")).says == tile("Trained?", trained("b")).says


def test_a_vector_that_is_missing_is_not_broken():
    """Fails if a norm that has no β counts as one whose β is NaN."""
    assert tile("Numbers safe?", trained("a"), replace(trained("b"), beta=None)).state == "good"


def test_squares_that_overflow_are_not_safe():
    """Fails if a network whose RMS norms would square beyond float16 is called safe, as its values themselves are not
    beyond it."""
    found = edited(evidence(), kind="rms_norm", n_tokens=100, largest_input=300.0, half_headroom=200.0)
    small = edited(evidence(), kind="rms_norm", n_tokens=100, largest_input=200.0, half_headroom=300.0)
    assert list(overflowing_squares(found.layers)) == [True]
    assert list(overflowing_squares(small.layers)) == [False]
    assert list(overflowing_squares(edited(found, kind="layer_norm").layers)) == [False]
    tables = bnprobe.report(recording(trained("a")))._tables
    told = [_numerics(replace(tables, layers=one.layers)) for one in (found, small)]
    assert [one.state for one in told] == ["notice", "good"]
    assert told[0].says == "not in float16: squares overflow at 1 norm"
    assert told[0].high == (True,)


def test_small_gains_of_features_are_no_idle_channels():
    """Fails if channels of an RMS norm whose γ is near 0 count as not working, though the next weights make up for it."""
    channels = pd.DataFrame(
        {"layer": "a", "call": 0, "role": ["constant", "dead", "constant"], "passes": [np.nan, np.nan, 0.0]}
    ).assign(dead_predicted=np.nan)
    for kind, silent in (("rms_norm", 2), ("layer_norm", 2), ("batch_norm", 3)):
        assert working(channels.assign(kind=kind)).n_silent == silent


def test_few_norms_that_could_be_judged_are_no_yes():
    """Fails if a network most of whose norms saw too few samples looks as if it matched."""
    few = [site(some_rows(5), name, gamma=0.7, **MEMORY) for name in "bcd"]
    found = tile("Data match?", judged("a"), *few[:2])
    assert (found.state, found.says) == ("unknown", "yes at 1 of 3 norms, too few samples for the others")
    assert tile("Data match?", judged("a"), few[0]).state == "good"


@pytest.mark.parametrize(
    ("beta", "says"), [([-9, 0, 0, 0], "1 of 8 do not; 4 unknown"), (0, "yes, all 4; 4 unknown")]
)
def test_channels_are_counted_of_all(beta, says):
    """Fails if the tile counts of those that are known, and the sentence of what was learned of all of them."""
    rows = some_rows(400, 4)
    layers = [
        site(rows, name, gamma=1, beta=shift, neighbours=Neighbours(follows), **memory_of(rows))
        for name, shift, follows in (("a", beta, "relu"), ("b", 0, "add, relu"))
    ]
    assert tile("Channels work?", *layers).says == says
    facts = [fact.says for one in block(page(*layers), blocks.Learned) for fact in one.facts]
    assert any("1 of 8 channels" in fact for fact in facts) == ("do not" in says)


def test_what_was_guessed_of_the_inputs_stands_with_the_verdict_about_them():
    """Fails if a mean and std that nobody gave are found in the details alone, while the first screen says mismatch."""
    guessed = guess(Given(size=32)).preprocess_words
    assert guessed.endswith("(mean, std: a guess, the usual for ImageNet)")
    for layer in (judged("a"), trained("a", **far(9))):
        (found,) = block(page(layer, preprocessing=guessed), blocks.Headline)
        said = "The mean and std of the inputs are guessed (the usual for ImageNet): if training used others, give them "
        assert found.detail.endswith(f"{said}(--mean, --std).")
        assert found.text.endswith(f"{said}(--mean, --std).")
    (found,) = block(page(judged("a"), preprocessing="center crop of 32 x 32"), blocks.Headline)
    assert "guess" not in found.text
    fresh = [site(ROWS, name, **FRESH) for name in "ab"]
    (found,) = block(page(*fresh, preprocessing=guessed), blocks.Headline)
    assert "guess" not in found.text
    (one,) = block(page(judged("a"), preprocessing=guessed.replace("mean, std", "size")), blocks.Headline)
    assert (
        "The size of the inputs is guessed (the usual for ImageNet): if training used another, give it"
        in one.text
    )


@pytest.mark.parametrize("few", [judged, trained], ids=["judged", "few samples"])
def test_the_only_norm_is_no_typical_one(few):
    """Fails if a network with one norm hears of a typical norm."""
    assert headline(few("stem.bn")).detail.startswith("At stem.bn the mean is off by ")
    assert headline(few("a"), few("b")).detail.startswith("At a typical norm the mean is off by ")


def test_the_signal_by_depth_has_one_scale():
    """Fails if the bars are stretched to each network's own range."""
    tenfold = site(ROWS * 10, "b", gamma=0.7, beta=0, **memory_of(ROWS * 10))
    found = tile("Signal by depth", trained("a"), tenfold)
    assert found.bars[1] - found.bars[0] == pytest.approx(1 / 4, abs=1e-6)  # one of four powers of ten


def test_the_first_screen_says_that_gradients_were_recorded_and_where_they_are():
    """Fails if a page with gradients opens like one without, or its first screen does not lead to their chapter."""
    rows = [trained(name, gradient=gradient(by * ROWS)) for name, by in (("a", 1.0), ("b", 6.0), ("c", 0.5))]
    for layers, words in (
        (rows, "; gradients within a factor of 12"),
        (rows[:1], "; its gradient was recorded"),
    ):
        found = tile("Signal by depth", *layers)
        assert found.says.endswith(words)
        assert found.link == "gradients"
        assert 'class="badge" href="#gradients">gradients</a>' in to_html(page(*layers))
    without = tile("Signal by depth", trained("a"), trained("b"))
    assert "gradient" not in without.says
    assert without.link == "network"
    assert 'href="#gradients"' not in to_html(page(trained("a"), trained("b")))


def test_the_spine_has_fixed_scales():
    """Fails if a healthy network's distances fill the lane like a broken one's, or lose their thresholds."""
    for scale in (1.0, 9.0):
        lane = lanes(trained("a", **far(scale)))["distance of the data from the running statistics"]
        assert lane.limits == (0.0, 1.0)
        assert [words for _, words in lane.levels] == ["visible", "warning"]
        assert lane.strong == (scale > 1,)


def test_the_spine_shows_gamma_against_the_untrained_one():
    """Fails if the band is not the quantiles of |γ|, or a negative γ pulls it down."""
    lane = lanes(trained("a", gamma=[-2.0, 1.0, 0.5]))["learned |γ|"]
    assert lane.values == pytest.approx([1.0])
    (low, high), (lower, upper) = lane.bands
    assert (low[0], high[0]) == pytest.approx(np.quantile([2, 1, 0.5], [0.05, 0.95]))
    assert (lower[0], upper[0]) == pytest.approx(np.quantile([2, 1, 0.5], [0.25, 0.75]))
    assert lane.levels == ((1.0, "untrained"),)


def test_many_norms_are_drawn_by_block():
    """Fails if a deep network's norms run into each other, or a block hides its worst norm."""
    layers = [trained(f"stage{i // 20}.{i}.bn", **far(9.0 if i == 33 else 1.0)) for i in range(80)]
    found = lanes(*layers)["distance of the data from the running statistics"]
    assert len(found.values) == 40  # four stages are too few, and eighty norms too many
    distance = bnprobe.report(recording(*layers)).layers["w2_rms"].to_numpy()
    assert found.values == pytest.approx([distance[i : i + 2].max() for i in range(0, 80, 2)])
    assert [i for i, strong in enumerate(found.strong) if strong] == [16]  # norms 32 and 33


def wide_spine(found: blocks.Page) -> blocks.Figure:
    return next(figure for figure in found.figures() if figure.name == "spine")


def test_a_place_of_several_norms_leads_to_the_worst():
    """Fails if the table of a block names other norms than it shows, or opens one that is fine."""
    layers = [trained(f"stage{i // 20}.{i}.bn", **far(9.0 if i == 33 else 1.0)) for i in range(80)]
    found = page(*layers)
    table = next(figure.table for figure in found.figures() if figure.table)
    assert table.layers[16] == 33
    assert [row[0].text for row in table.rows][:2] == ["stage0.0–1", "stage0.2–3"]
    assert wide_spine(found).rows[16] == (32, 33)


def test_the_table_says_what_the_spine_shows():
    """Fails if a reader without eyes hears other numbers, or not all lanes."""
    found = page(trained("a"), trained("b", **far(9)))
    (wide,) = (figure for figure in found.figures() if figure.name == "spine")
    table = next(figure.table for figure in found.figures() if figure.table)
    assert [head for head, _ in table.heads] == ["norm", *(lane.title for lane in wide.spec.lanes)]
    distance = bnprobe.report(recording(trained("a"), trained("b", **far(9)))).layers["w2_rms"]
    assert [row[1].text.split(" ")[0] for row in table.rows] == [number(value, 2) for value in distance]
    assert "largest" in table.rows[1][1].text


def test_names_stand_under_the_bracket_of_their_stage():
    """Fails if a bracket's words stand in every name too, or a name loses more than them."""
    spec = wide_spine(
        page(*(trained(f"layer{k}.{i}.bn{j}") for k in (1, 2) for i in (0, 1) for j in (1, 2)))
    ).spec
    assert spec.stages == ((0, 3, "layer1"), (4, 7, "layer2"))
    assert spec.names == ("0.bn1", "0.bn2", "1.bn1", "1.bn2") * 2
    assert wide_spine(page(trained("a"), trained("b"))).spec.stages == ()


def test_an_untrained_network_has_achieved_nothing():
    """Fails if what no training has decided yet is praised or blamed, or the headline looks like that of a fault."""
    fresh = [site(ROWS, name, **FRESH) for name in "ab"]
    channels = tile("Channels work?", *fresh)
    assert (channels.state, channels.says) == ("unknown", "not yet: training decides")
    assert tile("Trained?", *fresh).state == "untrained"
    assert "channels that do not work" not in lanes(*fresh)
    assert "standard deviation of the inputs" in lanes(*fresh)


def test_without_data_the_spine_shows_what_is_stored():
    """Fails if the running standard deviations of a file are not drawn, or stand for measured ones."""
    values = {"weight": [0.5, 1.2], "bias": [0.0, 0.1], "running_mean": [0.3, 0.3], "running_var": [4.0, 9.0]}
    state = {f"{layer}.{name}": torch.tensor(value) for layer in "ab" for name, value in values.items()}
    state |= {f"{layer}.num_batches_tracked": torch.tensor(900) for layer in "ab"}
    spec = wide_spine(bnprobe.check(state)._page).spec
    (lane,) = (lane for lane in spec.lanes if lane.title == "stored standard deviation of the inputs")
    np.testing.assert_allclose(lane.values, [np.sqrt(6.5)] * 2)


def test_norms_in_one_folder_are_drawn_too():
    """Fails if names without a block in them leave more places than there is space for."""
    names = lanes(*(trained(f"bn{i}") for i in range(130)))
    assert len(names["learned |γ|"].values) <= stops.MOST_BLOCKS


def test_no_lane_without_data():
    """Fails if a lane is drawn that holds nothing: an empty axis says 0."""
    found = lanes(site(ROWS, "ln", "layer_norm", gamma=1.2))
    assert list(found) == ["scale that each sample is divided by", "learned |γ|"]
    assert list(lanes(trained())) == ["distance of the data from the running statistics", "learned |γ|"]


def test_residual_connections_are_arcs():
    """Fails if the arcs of a residual network are lost, lead backwards, or are named where there are none."""
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Block(), Block()).eval()
    report = bnprobe.report(bnprobe.record(model, [torch.randn(4, 3, 8, 8)]))
    wide = next(figure for figure in report._page.figures() if figure.name == "spine")
    assert wide.spec.arcs == ((0, 2), (2, 4))
    assert "Arcs are residual connections." in wide.caption
    upright = next(figure for figure in report._page.figures() if figure.name == "spine upright")
    plain = page(trained("a"), trained("b")).figures()
    for figure in (upright, *(one for one in plain if one.name.startswith("spine"))):
        assert figure.spec.arcs == ()
        assert "Arcs" not in figure.caption


def test_the_spine_is_a_figure_for_papers_too():
    """Fails if the spine, lying or standing, cannot be drawn outside of the page."""
    figures = bnprobe.report(recording(trained("a"), trained("b"))).figures
    for name in ("spine", "spine upright"):
        drawn = figures[name]
        assert len(drawn.axes) >= 2


def test_what_was_learned_is_said_where_its_proof_stands():
    """Fails if a fact is stated whose chapter is not on the page, or an untrained network has learned something."""
    found = page(trained("a"), trained("b", gamma=[0.1, 0.2, 0.4]))
    ids = {section.id for section in found.sections}
    (facts,) = block(found, blocks.Learned)
    assert 1 <= len(facts.facts) <= 5
    assert all(fact.link in {"", *ids} for fact in facts.facts)
    assert any(fact.link for fact in facts.facts)
    low, high = np.quantile([0.3, 0.8, 1.5, 0.1, 0.2, 0.4], (0.05, 0.95))
    assert f"to between {low:.2g} and {high:.2g} in 90% of" in facts.facts[0].says
    assert not block(page(site(ROWS, "a", **FRESH), site(ROWS, "b", **FRESH)), blocks.Learned)
    begun = {**FRESH, "running_mean": 0.01, "n_batches_tracked": 1, "gamma": [0.999, 1.001, 1], "beta": 0.001}
    assert not block(page(site(ROWS, "a", **begun), site(ROWS, "b", **begun)), blocks.Learned)


@pytest.mark.parametrize(
    ("mean", "order"), [((0.49, 0.46, 0.41), "RGB"), ((0.41, 0.46, 0.49), "BGR"), ((0.5, 0.5, 0.5), "")]
)
def test_the_mean_color_has_its_order(monkeypatch, mean, order):
    """Fails if the patch of a network that reads blue first is not the color of its images, or an order is made up."""
    reading = StemReading(True, "", "a", mean_input=mean, mean_pixels=mean)
    monkeypatch.setattr(learned, "stem", lambda recording: reading)
    (found,) = block(page(trained("a"), trained("b")), blocks.Learned)
    fact = found.facts[0]
    rgb = mean[::-1] if order == "BGR" else mean
    assert fact.colors == ("#" + "".join(f"{round(255 * value):02x}" for value in rgb),)
    assert (f"in the order {order}" if order else "in the order of the input") in fact.says


def test_bars_are_cut_and_what_is_unknown_has_none():
    """Fails if a bar leaves its tile, or an unknown value is drawn as 0."""
    assert bars(np.array([-1, 0.25, 7, np.nan])) == (0.0, 0.25, 1.0, None)


def test_the_title_has_no_module_path():
    """Fails if a reader of the title must know where the code is kept."""
    assert page(trained(), model="package.models:resnet20").title == "What the norms of resnet20 learned"
    described = "demo: mobilenet_v2, on digits"
    assert page(trained(), model=described).title == f"What the norms of {described} learned"


def test_weights_alone_have_a_cover():
    """Fails if a file of weights, without data, has no verdict or claims a match."""
    layer = replace(trained(), n_calls=0)
    assert layer.n_calls == 0
    report = bnprobe.check(
        {"bn.weight": torch.tensor([0.5, 1.2]), "bn.bias": torch.zeros(2)}
        | {
            "bn.running_mean": torch.zeros(2) + 0.3,
            "bn.running_var": torch.ones(2) * 2,
            "bn.num_batches_tracked": torch.tensor(900),
        }
    )
    (tiles,) = block(report._page, blocks.Tiles)
    assert {one.question: one.state for one in tiles.tiles}["Data match?"] == "unknown"
    assert block(report._page, blocks.Headline)


def test_norms_without_running_statistics_have_a_lane_of_their_own():
    """Fails if the spine of layer and instance norms leaves out what they divide by, or draws it off a fixed scale."""
    small, large = (
        site(ROWS * scale, name, "layer_norm", gamma=1.3, eps=0.0) for scale, name in ((0.1, "a"), (10, "b"))
    )
    own = lanes(small, large)["scale that each sample is divided by"]
    logs = np.log((ROWS.astype(np.float64) * 0.1).var(1)) / 2
    expected = np.exp(logs.mean())
    np.testing.assert_allclose(own.values, [expected, 100 * expected], rtol=1e-6)
    assert (own.logarithmic, own.limits) == (True, (0.01, 100.0))
    ((low, high),) = own.bands
    np.testing.assert_allclose(high[0], np.exp(logs.mean() + 2 * logs.std()), rtol=1e-6)
    np.testing.assert_allclose(low[0], np.exp(logs.mean() - 2 * logs.std()), rtol=1e-6)
    assert "scale that each sample is divided by" not in lanes(trained())
