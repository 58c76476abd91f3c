"""Chapters: each opens with this network's numbers, agrees with the tables, and is left out where it cannot be told."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from measures.sites import gradient, memory_of, recording, site, some_rows
from support import oracles

import bnprobe
from bnprobe.measures import StemReading
from bnprobe.measures.implied import CONTROLS
from bnprobe.measures.padding import Padding
from bnprobe.recording import LayerRecord, Recording
from bnprobe.recording.neighbours import Folded, Implied, Neighbours
from bnprobe.report.chapters import (
    CHAPTERS,
    chapter,
    chapters,
    gradients,
    implied,
    roles,
    running_stats,
    stem,
)
from bnprobe.report.formats.html import to_html
from bnprobe.report.numbers import number
from bnprobe.report.page import blocks
from bnprobe.stats import ClassMoments, Folds, Moments
from report import pages
from report.pictured import svg_of

ROWS = some_rows(40)
MEMORY = memory_of(ROWS)
LEARNED = {"gamma": [0.5, -1.5, 1.0], "beta": [0.2, -0.1, 0.0]}
IDS = (
    *("running-stats", "roles", "shape", "variance", "stem", "implied", "affine", "residual"),
    *("per-sample", "tokens", "gradients"),
)


def written(recorded: Recording) -> dict[str, blocks.Section]:
    report = bnprobe.report(recorded)
    return {section.id: section for section in chapters(recorded, report._tables)}


def told(name: str, *layers: LayerRecord, **about: Any) -> str:
    """The sentences of one chapter."""
    prose = written(recording(*layers, **about))[name].blocks[0]
    return " ".join(prose.paragraphs).replace("\u00a0", " ")


def untold(*layers: LayerRecord, **about: Any) -> dict[str, str]:
    """Titles of the chapters that are absent, with the reasons."""
    found = written(recording(*layers, **about)).get("not-measured")
    return reasons_of(found) if found else {}


def reasons_of(untold: blocks.Section) -> dict[str, str]:
    """Title to reason."""
    parts = [re.fullmatch(r"(.+?\?) (.+)|(.+?): (.+)", one).groups() for one in untold.blocks[0].paragraphs]
    return {question or title: answer or why for question, answer, title, why in parts}


def moved(layer: str, shift: float, scale: float = 1.0, **changes: Any) -> LayerRecord:
    """A norm whose inputs lie `shift` running standard deviations off, with `scale` times the running one."""
    rng = np.random.default_rng(len(layer))
    rows = rng.normal(size=(400, 3, 20))
    sd = rows.std((0, 2)) / scale
    memory = {"running_mean": rows.mean((0, 2)) - shift * sd, "running_var": sd**2}
    return site(rows, layer, eps=1e-12, **{**memory, **changes})


def table_of(section: blocks.Section) -> dict[str, list[str]]:
    """The columns of a chapter's table, as printed."""
    table = next(block for block in section.blocks if isinstance(block, blocks.Table))
    heads = [name for name, _ in table.heads]
    return {head: [row[i].text for row in table.rows] for i, head in enumerate(heads)}


# All of them


def wired() -> Recording:
    """One network with everything that chapters can tell, but a stem and backward passes."""
    c = 3
    guess = Implied(
        MEMORY["running_mean"] * 1.05, MEMORY["running_var"] / 2, *(np.full(c, i) for i in range(4))
    )
    folded = Folded(np.ones(c), np.array([-1.0, -0.5, -0.1]), np.array([0.5, 0.25, 0.1]), None)
    skip = {"skip": "input", "skip_var": np.ones(c), "skip_var_initial": np.full(c, 3.0)}
    first = site(ROWS, "a", neighbours=Neighbours("relu", folded=folded), **LEARNED, **MEMORY)
    second = site(
        ROWS,
        "b",
        neighbours=Neighbours("add, relu", folded=folded, implied=guess, **skip),
        **LEARNED,
        **MEMORY,
    )
    third = replace(second, layer="c")
    own = [site(ROWS, name, "layer_norm", gamma=1.5, beta=0) for name in ("d", "e")]
    return recording(first, second, third, *own)


def test_every_chapter_opens_with_words_and_ends_them():
    """Fails if a chapter opens with a picture, or a number that is not defined gets into a sentence."""
    found = written(wired())
    there = [name for name in IDS if name not in ("stem", "tokens", "gradients")]
    assert [name for name in found if name != "not-measured"] == there
    for name, section in found.items():
        if name == "not-measured":
            continue
        assert isinstance(section.blocks[0], blocks.Prose), name
        for sentence in section.blocks[0].paragraphs:
            assert sentence.endswith("."), (name, sentence)
            assert "–" not in sentence, (name, sentence)
            assert "nan" not in sentence, (name, sentence)


def test_the_noise_of_the_running_statistics_is_told_where_errors_are():
    """Fails if a page shows errors without what they assume of training, or calls assumed what the user gave."""
    bold = "differences look more significant than they are"
    assumed = "those of 608 samples: batches of 32 in training, an assumed size"
    for batch, expected in (
        (None, assumed),
        (8, "those of 152 samples: batches of 8 in training, as given."),
    ):
        run = wired().with_training_batch(batch)
        shown = to_html(bnprobe.report(run)._page)
        assert shown.count(expected) == 1
        assert shown.count(f"What errors assume is said under “{running_stats.TITLE}”.") == 1
        assert shown.count(bold) == (0 if batch else 1)
    only = bnprobe.report(recording(site(ROWS, "ln", "layer_norm")))
    assert "running statistics are as precise as" not in to_html(only._page)


def test_what_errors_take_as_independent_is_said():
    """Fails if folds of whole batches are called samples: the fault that they are there for is another one."""
    from bnprobe.report.chapters.chapter import noise_of_running

    one = site(ROWS, running_mean=0, running_var=1)
    n, zeros = np.full((20, one.n_channels), 2.0), np.zeros((20, one.n_channels))
    folds = Folds(zeros[0], n, zeros, n, zeros[0], 20)
    assert noise_of_running([one]).startswith("Errors assume that samples are independent, and")
    assert noise_of_running([replace(one, pre_folds=folds)]).startswith(
        "Errors assume that whole batches are independent, and"
    )


def test_every_chapter_is_told_or_said_to_be_absent():
    """Fails if a chapter vanishes without a word."""
    for layers in ([site(ROWS)], [site(ROWS, "ln", "layer_norm")], [moved("a", 0.0)]):
        found = written(recording(*layers))
        reasons = reasons_of(found.pop("not-measured"))
        assert len(found) + len(reasons) == len(CHAPTERS) == len(IDS)
        assert set(found) <= set(IDS)
        assert all(why.endswith(".") and len(why) > 20 for why in reasons.values())


def test_pictures_of_chapters_can_be_drawn():
    """Fails if a picture raises, or has a text that is cut off at a name."""
    for section in written(wired()).values():
        for block in section.blocks:
            if isinstance(block, blocks.Figure):
                assert "<svg" in svg_of(block.spec, block.name)
                assert block.alt.endswith(".")


def test_names_of_figures_are_unique():
    """Fails if two pictures share their ids."""
    names = [b.name for s in written(wired()).values() for b in s.blocks if isinstance(b, blocks.Figure)]
    assert len(names) == len(set(names)) >= 8


HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)"',
    "encoder_" + "x" * 300,
    "\u202egnp.exe",
    "$x_1$",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name):
    """Fails if the name of a layer becomes part of the page's grammar in any chapter."""
    whole = wired()
    layers = [replace(record, layer=f"{name}.{i}") for i, record in enumerate(whole.layers)]
    skips = [
        replace(r, neighbours=replace(r.neighbours, skip=name))
        if r.neighbours is not None and r.neighbours.skip
        else r
        for r in layers
    ]
    recorded = replace(whole, layers=tuple(skips))
    sections = chapters(recorded, bnprobe.report(recorded)._tables)
    page = blocks.Page("t", "l", sections, "f")
    document = pages.assert_sound(to_html(page))
    assert "onmouseover" not in {key for node in document.iter() for key in node.attrib}


def test_without_data_chapters_tell_what_is_stored():
    """Fails if a file of weights is said to have been run, or what needs no data is left out."""
    record = wired().layers[1]
    empty = Moments.empty(3)
    stored = replace(record, n_calls=0, n_calls_running=0, pre=empty, post=empty, n_images=0, mismatch=np.nan)
    stored = replace(
        stored,
        pre_images=replace(record.pre_images, n=np.zeros(3), b=np.zeros(3), a=np.zeros(3), aa=np.zeros(3)),
        pre_histogram=None,
        post_histogram=None,
        n_positive=np.zeros(3),
    )
    found = written(recording(stored, replace(stored, layer="z")))
    assert set(found) == {"implied", "affine", "residual"}


def test_a_chapter_that_fails_costs_a_sentence_and_not_the_page(monkeypatch):
    """Fails if a fault in one chapter ends the page, is hidden, or takes the other chapters along."""

    def fail(_: object) -> None:
        raise KeyError("a column")

    monkeypatch.setattr(CHAPTERS[2], "chapter", fail)
    with pytest.warns(RuntimeWarning, match="as β and γ intend\\?' could not be made: KeyError"):
        found = written(wired())
    assert "shape" not in found
    assert {"running-stats", "variance"} < set(found)
    assert "could not be made" in reasons_of(found["not-measured"])["Are outputs as β and γ intend?"]


# Running statistics against the data


def test_where_a_shift_enters_and_heals_is_told():
    """Fails if the first and the worst are swapped, or healing is told of a norm that is still shifted."""
    layers = [moved("first", 0.0), moved("second", 0.5), moved("third", 1.0), moved("last one", 0.0)]
    words = told("running-stats", *layers)
    assert words.startswith(
        "At 2 of 4 norms your data do not match the running statistics; their mean is typically off by 0.7"
    )
    assert "The mismatch enters at second. It is largest at third: 1" in words
    assert words.endswith(" From last one on, less than a third of the channels are shifted.")
    rows = table_of(written(recording(*layers))["running-stats"])
    assert rows["layer"] == ["third", "second"]
    assert rows["verdict"] == ["mean shifted"] * 2


def test_a_shift_that_does_not_heal_is_said_not_to():
    """Fails if the end of the network passes for health, or one norm is called several."""
    words = told("running-stats", moved("a", 0.0), moved("b", 0.6))
    assert words.startswith(
        "At 1 of 2 norms your data do not match the running statistics; their mean is off by 0.60 running "
    )
    assert "The mismatch is at b alone: 0.60 running standard deviations, mean and scale together." in words
    assert words.endswith("It is still there at the last norm that could be judged.")
    both = told("running-stats", moved("a", 0.7), moved("b", 0.6))
    assert both.startswith("At both norms your data do not match")
    assert "The mismatch enters at a and is largest there: 0.70" in both
    assert told("running-stats", moved("a", 0.7)).startswith("At the only norm your data do not match")


def test_data_that_match_are_said_to():
    """Fails if agreement is not told with its size."""
    words = told("running-stats", moved("a", 0.0), moved("b", 0.1))
    assert words.startswith("Your data match the running statistics at both norms: ")
    assert "there the mean is typically off by 0.050 running standard deviations" in words
    few = site(ROWS[:6], "few", **memory_of(ROWS[:6]))
    words = told("running-stats", moved("a", 0.0), few)
    assert words.startswith("Your data match the running statistics at the only norm that could be judged: ")
    assert " At 1 more norm, 6 samples are too few to tell. To judge " in words
    within = bnprobe.report(recording(moved("a", 0.0), moved("b", 0.1))).layers["same_within"]
    words = told("running-stats", moved("a", 0.0), moved("b", 0.1))
    assert f"two thirds of the channels have means within {number(within.max(), 2)} running" in words


def test_few_images_are_said_to_be_few():
    """Fails if six images are enough for a judgement."""
    rows = ROWS[:6]
    words = told("running-stats", site(rows, **memory_of(rows)))
    assert words.startswith(
        "6 samples are too few to tell whether your data match the running statistics of any norm. To judge "
    )
    needed = int(bnprobe.report(recording(site(rows, **memory_of(rows)))).layers["samples_needed"].iloc[0])
    about = math.ceil((needed - 6) / 100) * 100  # a number of four digits is told by two
    assert 1000 <= needed - 6 < 10_000
    assert (
        f"To judge typical channels to within 0.1 running standard deviations, record about {about:,} more samples."
        in words
    )


@pytest.mark.parametrize(
    ("needed", "said"),
    [
        (60, "record about 20 more samples."),
        (41, "record about 1 more sample."),
        (1631, "record about 1,600 more samples."),
        (1641, "record about 1,700 more samples."),
        (40, ""),
        (np.inf, "No number of samples"),
    ],
)
def test_how_many_more_samples(needed, said):
    """Fails if the number is the total, an infinite one is a number, or more are asked for where more would not help."""
    few = pd.DataFrame({"samples_needed": [needed, 3, np.nan], "n_images": 40})
    assert said in " ".join(running_stats._record_more(few, "sample"))
    assert bool(running_stats._record_more(few, "sample")) == bool(said)


def test_a_significant_shift_that_few_samples_cannot_size_is_not_denied():
    """Fails if six samples that all lie a third of a standard deviation off are "too few to tell whether" they match."""
    rows = np.random.default_rng(4).normal(size=(6, 3, 400))
    words = told("running-stats", site(rows, running_mean=0.4, running_var=1))
    assert words == (
        "Your data differ from the running statistics beyond sampling error at the only norm, but 6 samples are too few to "
        "tell by how much."
    )


def test_linear_channels_are_on_only_where_something_could_be_off():
    """Fails if channels that a convolution follows are called always on, or those before a ReLU are not."""
    rows = np.random.default_rng(0).normal(size=(50, 2, 100))
    gated = site(rows, "a", gamma=1, beta=[0, 8], neighbours=Neighbours("relu"), **memory_of(rows))
    bare = site(rows, "b", gamma=1, beta=0, neighbours=Neighbours("conv"), **memory_of(rows))
    words = told("roles", gated, bare)
    assert "of 4 channels, 1 is active, 1 always on, 2 without an activation." in words


def test_without_running_statistics_there_is_nothing_to_compare():
    """Fails if norms that store nothing, or never stored anything, are held against the data."""
    assert (
        untold(site(ROWS, "ln", "layer_norm"))["Does your data match training?"]
        == "No norm keeps running statistics."
    )
    fresh = untold(site(ROWS, running_mean=0, running_var=1))
    assert fresh["Does your data match training?"] == "The running statistics were never updated."


# Roles


def test_roles_are_counted():
    """Fails if a channel that enters a sum is counted as live or dead, or shares are of all channels."""
    rows = np.random.default_rng(0).normal(size=(50, 4, 100))
    relu = site(
        rows, "a", gamma=[1, 1, 1, 1], beta=[-8, -8, 0, 8], neighbours=Neighbours("relu"), **memory_of(rows)
    )
    summed = site(rows, "b", gamma=1, beta=0, neighbours=Neighbours("add, relu"), **memory_of(rows))
    words = told("roles", relu, summed)
    assert words.startswith(
        "2 of 4 channels whose role is known from the operation that follows are dead on these data (50%): the activation "
        "cut every value. Of the others, 1 is active, 1 always on. For 4 more channels the role is unknown: "
    )
    assert (
        "γ and β alone find 2 of the 2 dead channels (recall 100%), and all 2 that they name are dead (precision 100%)."
        in words
    )
    assert "pass nothing on" not in words
    alive = site(rows, "a", gamma=1, beta=[0, 0, 0, 8], neighbours=Neighbours("relu"), **memory_of(rows))
    assert told("roles", alive).startswith("No channel is dead: of 4 channels, 3 are active, 1 always on.")


def test_what_passes_nothing_on_is_the_number_of_the_first_screen():
    """Fails if a reader has to add the dead and the constant channels to find the count of the first screen."""
    rows = np.random.default_rng(0).normal(size=(50, 4, 100))
    layer = site(
        rows, "a", gamma=[1, 1e-3, 1, 1], beta=[-8, 1, 0, 0], neighbours=Neighbours("relu"), **memory_of(rows)
    )
    words = told("roles", layer)
    assert "1 of 4 channels is dead on these data" in words
    assert (
        "Of the others, 1 is nearly constant, 2 active. With the nearly constant ones, 2 pass nothing on."
        in words
    )


def test_channels_without_an_activation_are_no_part_of_those_that_are_always_on():
    """Fails if a whole norm before a convolution has the color of channels that an activation could turn off."""
    rows = np.random.default_rng(0).normal(size=(50, 4, 100))
    layers = [
        site(rows, name, gamma=1, beta=beta, neighbours=Neighbours(follows), **memory_of(rows))
        for name, beta, follows in (("b", [8, 8, 8, 0], "relu"), ("a", 0, "conv"))
    ]
    figure = next(one for one in bnprobe.report(recording(*layers))._page.figures() if one.name == "roles")
    (stack,) = figure.spec.panels
    shares = {part.label: part.values.tolist() for part in stack.parts}
    assert shares == {"active": [0.25, 0], "always on": [0.75, 0], "no activation": [0, 1]}
    assert "“mixed” is active, “linear” is always on" in figure.caption
    looks = {part.label: (part.colour, part.faint) for part in stack.parts}
    assert len(set(looks.values())) == 3


def test_a_third_moment_that_predicts_worse_is_said_to():
    """Fails if the skewness is said to improve what it makes worse: heavy tails beside it are not in the formula."""
    columns = {"dead_predicted": np.nan, "passes": np.nan, "fires": 0.5, "fires_predicted": 0.9}
    channels = pd.DataFrame({**columns, "fires_gaussian": [0.75, 0.75], "fires_skewed": [1.0, 1.0]})
    (said,) = roles._prediction(channels)
    assert "do it to within 25, and with the skewness, which makes it worse, to within 50." in said
    (said,) = roles._prediction(channels.assign(fires_skewed=0.625))
    assert "do it to within 25, and with the skewness to within 12." in said


def test_one_role_is_that_of_all():
    """Fails if a file of weights, of which constants alone are known, gets a sentence about what follows."""
    record = site(ROWS, "a", gamma=[1, 2, 3], beta=0, neighbours=Neighbours("gelu"), **MEMORY)
    assert told("roles", record).startswith("All 3 channels are active.")
    weights = bnprobe.check({**WEIGHTS, "bn1.weight": torch.tensor([1e-4, 1.0]), "bn1.bias": torch.zeros(2)})
    words = section_of(weights, "roles").blocks[0].paragraphs[0]
    assert words == (
        "The one channel whose role is known is nearly constant. For 1 more channel the role is unknown: it takes data "
        "to tell."
    )


WEIGHTS = {
    "conv1.weight": torch.ones(2, 3, 3, 3),
    "bn1.running_mean": torch.tensor([0.1, 0.2]),
    "bn1.running_var": torch.tensor([1.5, 2.0]),
}


def section_of(report: bnprobe.Report, name: str) -> blocks.Section:
    return next(section for section in report._page.sections if section.id == name)


def test_the_error_of_the_predicted_firing_is_the_mean_over_channels():
    """Fails if the two predictions are swapped: with a moved mean only what was seen predicts well."""
    rows = np.random.default_rng(0).normal(size=(50, 2, 400))
    memory = {"running_mean": rows.mean((0, 2)) - 1, "running_var": rows.var((0, 2))}
    record = site(rows, "a", gamma=[1, 1], beta=[0, 0], neighbours=Neighbours("relu"), **memory)
    # Φ(0) = .5 is predicted, Φ(1) = .841 is measured
    words = told("roles", record)
    assert "to within 34 percentage points on average" in words
    measured = bnprobe.report(recording(record)).channels
    error = (measured["fires_gaussian"] - measured["fires"]).abs().mean()
    assert error < 0.01
    assert f"standard deviation do it to within {number(100 * error, 2)}" in words


def test_roles_are_absent_where_nothing_followed():
    """Fails if a network without wiring is said to be alive."""
    assert "was not recorded" in untold(site(ROWS, **MEMORY))["Which channels work?"]
    weights = site(ROWS, neighbours=Neighbours("linear"), **LEARNED, **MEMORY)
    assert "No operation that follows" in untold(weights)["Which channels work?"]


# Shape


def test_norms_that_reach_their_target_are_counted_and_the_worst_named():
    """Fails if a norm whose outputs are as β and γ set them is called the worst, or the reason is another's."""
    layers = [
        moved("a", 0.0, gamma=2, beta=1),
        moved("b", 0.0, 0.7, gamma=2, beta=1),
        moved("c", 0.0, 0.5, gamma=2),
    ]
    words = told("shape", *layers)
    assert words.startswith(
        "Outputs should have mean β and standard deviation |γ|. At 1 of 3 norms they do; at c their "
    )
    ratio = bnprobe.report(recording(*layers)).layers["gamma_ratio_median"].iloc[-1]
    assert ratio == pytest.approx(0.5, rel=1e-3)
    assert (
        "standard deviation is only 50% of |γ|, because the inputs do not match the running statistics."
        in words
    )
    assert told("shape", layers[0]).startswith(
        "Outputs should have mean β and standard deviation |γ|, and at the only norm they"
    )
    mean = told("shape", moved("a", 0.7, gamma=2))
    assert "At the only norm they do not; at a their mean is off by 0.70 |γ|, because" in mean
    facts = next(b for b in written(recording(*layers))["shape"].blocks if isinstance(b, blocks.Facts))
    assert facts.rows == (("shift", "the inputs do not match the running statistics: b, c"),)


def test_no_norm_on_target_is_said_in_english():
    """Fails if "at all 2 norms they do not" is said."""
    words = told("shape", moved("a", 0.7, gamma=2), moved("b", 0.7, gamma=2))
    assert "They do at neither norm; at a their mean is off by 0.70 |γ|, because" in words


def test_the_least_gaussian_norm_is_named():
    """Fails if the ratio furthest from 1 is another layer's, or heavy tails are called short."""
    rng = np.random.default_rng(3)
    heavy = rng.laplace(size=(60, 2, 500))
    even = rng.normal(size=(60, 2, 500))
    words = told("shape", site(heavy, "laplace", **memory_of(heavy)), site(even, "gauss", **memory_of(even)))
    assert "Inputs are least Gaussian at laplace, where their tails are heavier" in words
    assert "is 0.89 times that of a Gaussian" in words
    even = rng.uniform(size=(60, 2, 500))
    assert "at even, where their tails are lighter" in told("shape", site(even, "even", **memory_of(even)))


def test_inputs_that_are_gaussian_are_not_ranked():
    """Fails if the noise of a histogram is told as a shape."""
    rows = np.random.default_rng(3).normal(size=(60, 2, 500))
    words = told("shape", site(rows, "a", **memory_of(rows)), site(rows * 2, "b", **memory_of(rows * 2)))
    assert "Inputs are close to Gaussian at both norms." in words
    part = [site(rows, "a", **memory_of(rows)), site(rows, "b", histograms=False, **memory_of(rows))]
    assert "Inputs are close to Gaussian at the only norm whose shape could be measured." in told(
        "shape", *part
    )


# Variance


def test_the_class_share_is_the_mean_over_channels():
    """Fails if medians, which do not add up, or another layer's numbers are told."""
    labels = np.arange(40) % 4
    rows = (
        np.random.default_rng(1).normal(size=(40, 3, 14))
        + labels[:, None, None] * np.array([0, 1, 3])[:, None]
    )
    by_class = ClassMoments.of(Moments.of(rows, axis=2), labels.astype(float))
    layers = [site(ROWS, "a", classes=ClassMoments.of(Moments.of(ROWS, axis=2), labels.astype(float)))]
    layers.append(site(rows, "b", classes=by_class))
    channels = bnprobe.report(recording(*layers)).channels
    expected = channels[channels["layer"] == "b"]["share_class"].mean()
    words = told("variance", *layers)
    first = channels[channels["layer"] == "a"]["share_class"].mean()
    assert words.startswith(
        f"Differences between the 4 classes explain {100 * first:.1f}% of a channel's variance at a "
        f"and {100 * expected:.0f}% at b (mean over channels). "
    )
    turned = told(
        "variance", *(replace(record, layer=name) for record, name in zip(layers[::-1], "ab", strict=True))
    )
    assert f"explain most at a: {100 * expected:.0f}% of a channel's variance" in turned
    assert "and no more at any later norm." in turned


def test_the_first_norm_is_not_compared_with_itself():
    """Fails if a sentence says "4% at bn1 and 4% at bn1", or speaks of later norms where there are none."""
    labels = np.arange(40) % 4
    only = site(ROWS, "a", classes=ClassMoments.of(Moments.of(ROWS, axis=2), labels.astype(float)))
    words = told("variance", only)
    assert "at a (mean over channels). At the last norm" in words
    assert "later" not in words


def test_without_labels_no_class_is_told():
    """Fails if samples are called classes, or samples images."""
    even = np.tile(ROWS[:1], (len(ROWS), 1, 1))
    words = told("variance", site(ROWS, "a"), site(even, "b"))
    assert "No labels were given" in words
    ones = ClassMoments.of(Moments.of(ROWS, axis=2), np.arange(40.0))
    assert "no class has them" in told("variance", site(ROWS, "a", classes=ones))
    same = ClassMoments.of(Moments.of(ROWS, axis=2), np.zeros(40))
    assert "are of one class" in told("variance", site(ROWS, "a", classes=same))
    inside, between = ROWS.var(2).mean(0), ROWS.mean(2).var(0, ddof=1)
    part = f"{100 * (inside / (inside + between)).mean():.0f}%"
    assert words.startswith(
        f"The share of a channel's variance that lies within single samples goes from {part} at "
    )
    alike = told("variance", site(ROWS, "a"), site(ROWS, "b"))
    assert f"within single samples is {part} at the first norm and at the last" in alike, (
        "not from 40% to 40%"
    )
    assert "between classes" not in words
    assert told("variance", site(ROWS, "a")).startswith("At a, ")
    assert "one sample alone" in untold(site(some_rows(1)))["Where the variance lies"]
    assert written(recording(site(ROWS)))["variance"].title == "Where the variance lies", (
        "no labels, no classes"
    )
    planar = replace(site(some_rows(1)), class_name="BatchNorm2d")
    assert "one image alone" in untold(planar)["Where the variance lies"]


# The stem


PADDING = Padding(0.1341, 4, 0.131, 0.006, 0.008, 0.19, 0.998)
READING = StemReading(
    True,
    "They agree.",
    "bn1",
    (0.1, 0.2, 0.3),
    (0.431, 0.42, 0.388),
    (0.4, 0.5, 0.6),
    (0.495, 0.484, 0.448),
    PADDING,
)


def test_the_stem_is_told_in_its_numbers():
    """Fails if training and this run are swapped, or a padding is named that was not found."""
    words = stem.words(READING)
    assert (
        "mean of 0.431, 0.420, 0.388 (pixel values from 0 to 1), according to the running means of bn1"
        in words
    )
    assert "the images of this run have 0.495, 0.484, 0.448" in words
    assert (
        "as bright as the images of this run, they were random crops with 4 pixels of black padding: 13"
        in words
    )
    assert words.endswith("the rest had a mean of 0.498, 0.485, 0.448."), "0.431 / (1 - 0.1341), ..."


@pytest.mark.parametrize(
    ("padding", "says"),
    [
        (
            replace(PADDING, pixels=None, share=0.2),
            "20% (± 1.2%) of what the network saw was black, as with padding.",
        ),
        (
            replace(PADDING, pixels=None, possible=(5,)),
            "black, as random crops with 5 pixels of padding are.",
        ),
        (
            replace(PADDING, pixels=None, possible=(3, 4, 5)),
            "black, as random crops with 3 to 5 pixels of padding are.",
        ),
        (
            replace(PADDING, pixels=None, share=0.005),
            "no sign of black padding, within ± 1.2% of all pixels.",
        ),
        (replace(PADDING, share=0.1341, share_se=0.06), "no sign of black padding, within ± 12%"),
        (replace(PADDING, pixels=1), "1 pixel of black"),
        (None, "have 0.495, 0.484, 0.448."),
    ],
)
def test_padding_is_told_as_it_was_found(padding, says):
    """Fails if a share within its error is called augmentation."""
    assert says in stem.words(replace(READING, padding=padding))


def test_without_pixels_the_units_are_said():
    """Fails if units of the input pass for colours."""
    words = stem.words(replace(READING, mean_pixels=None, seen_pixels=None, padding=None))
    assert "0.100, 0.200, 0.300 (in units of the model's input)" in words


def stem_chapter(monkeypatch: pytest.MonkeyPatch, reading: StemReading) -> blocks.Section | chapter.Absent:
    monkeypatch.setattr(stem, "stem", lambda _: reading)
    recorded = recording(site(ROWS, **MEMORY))
    return stem.chapter(chapter.Material(recorded, bnprobe.report(recorded)._tables))


def test_colours_are_shown_only_where_they_are_trusted(monkeypatch):
    """Fails if an untrusted mean is printed, or patches are drawn of an input that has no colours."""
    found = stem_chapter(monkeypatch, READING)
    figure = next(b for b in found.blocks if isinstance(b, blocks.Figure))
    assert (
        figure.alt
        == "Mean color of the training images, from the first norm: red 0.43, green 0.42, blue 0.39."
    )
    svg = svg_of(figure.spec, "stem")
    assert "#6e6b63" in svg, "the color of training, (.431, .42, .388) of 255"
    assert "#7e7b72" in svg
    assert "#7f7c72" in svg, "without the black around: (.498, .485, .448)"
    grey = stem_chapter(monkeypatch, replace(READING, mean_pixels=(0.4,), seen_pixels=(0.4,)))
    assert not [b for b in grey.blocks if isinstance(b, blocks.Figure)]
    against = stem_chapter(monkeypatch, replace(READING, trusted=False, why="Not to be trusted: too few."))
    assert against == chapter.Absent(stem.TITLE, "not to be trusted: too few")


# Implied


def test_what_was_implied_is_told_with_its_controls():
    """Fails if a control is another's, or a value is not that of the norm in the middle."""
    words = implied.words(fits(0.95, 0.987, 0.99, permuted=0.76, constant=0.89, signed=0.93, unpadded=0.96))
    assert words.startswith(
        "99% of the variation in a typical norm's running means follows from the previous norms"
    )
    assert "(median R² 0.987, 3 norms)." in words
    assert (
        "median R² 0.760 with the previous channels permuted, 0.890 with all of them at their mean" in words
    )
    assert words.endswith(
        "The prediction's squared error is 87% below that of the control with all channels at their mean."
    )
    assert "(R² 0.987 ± 0.0080, bn0)" in implied.words(fits(0.987, permuted=0.1))


@pytest.mark.parametrize(
    ("controls", "how"),
    [
        ({"permuted": 0.92, "constant": 0.3}, "come close"),
        ({"permuted": 0.3, "constant": 0.91}, "come close"),
        ({"permuted": 0.89, "constant": 0.89, "signed": 0.97}, "do worse, as they should"),
    ],
)
def test_controls_that_come_close_are_said_to(controls, how):
    """Fails if 0.95 for channels at their mean beside 0.99 counts as strong evidence, or the sign of γ takes it away."""
    assert f"Controls {how}: median R² " in implied.words(fits(0.99, 0.995, 0.999, **controls))


def fits(*r2: float, **controls: float) -> pd.DataFrame:
    """A row per norm with its R², and controls that are the same for all."""
    columns = {f"implied_r2_{name}": controls.get(name, np.nan) for name in CONTROLS}
    names = [f"bn{i}" for i in range(len(r2))]
    return pd.DataFrame(
        {
            "layer": names,
            "call": 0,
            "implied_mean_r2": r2,
            "implied_mean_rmse": 2.5,
            "implied_r2_se": 0.004,
            "implied_skill": 0.87,
            **columns,
        }
    )


def test_one_norm_that_does_not_fit_is_named_and_spoils_no_other():
    """Fails if the sum of all squares is that of one norm: of mobilenet_v2, R² is 0.99 at 50 norms and −21 at one."""
    words = implied.words(fits(0.99, -20.9, 0.98, 0.997, permuted=0.2))
    assert words.startswith("98% of the variation")
    assert "At bn1 it does not: the prediction misses by 2.5 running standard deviations." in words
    two = implied.words(fits(0.99, -20.9, 0.98, 0.997, 0.3, permuted=0.2))
    assert "At bn1 and bn4 it does not, least at bn1, where the prediction misses by 2.5" in two
    many = implied.words(fits(*[0.99] * 6, 0.4, 0.3, 0.2, -1, permuted=0.2))
    assert "At 4 norms it does not, least at bn9, where" in many
    assert "does not" not in implied.words(fits(0.99, 0.51, 0.98, permuted=0.2))


def test_the_fit_by_depth_is_drawn_where_it_can_be_seen():
    """Fails if an R² of −21 is drawn below the panel, or a control that is the fit itself hides under it."""
    known = fits(0.99, -20.9, permuted=-3.0).assign(implied_var_ratio_median=1.0)
    figure = implied._depth(known.assign(implied_r2_signed=known["implied_mean_r2"]))
    by_label = {line.label: line.values for line in figure.spec.panels[0].lines}
    assert set(by_label) == {"implied", "channels permuted"}
    np.testing.assert_allclose(by_label["implied"], [0.99, -0.2])


@pytest.mark.parametrize(("permuted", "unpadded"), [(0.95, 0.5), (0.935, 0.5), (0.2, 0.95)])
def test_a_claim_that_a_control_equals_is_not_made(permuted, unpadded):
    """Fails if 94% are said to follow from the channels before where these do as well in another order."""
    controls = {"permuted": permuted, "constant": 0.3, "signed": 0.94, "unpadded": unpadded}
    words = implied.words(fits(0.94, 0.94, **controls)).replace("\u00a0", " ")
    assert "It is unclear how much" in words
    assert "94%" not in words
    stands = implied.words(fits(0.94, 0.94, **{**controls, "permuted": 0.2, "unpadded": 0.93}))
    assert "unclear" not in stands


def test_the_cloud_of_implied_means_is_in_running_standard_deviations():
    """Fails if implied and stored are swapped, or raw units are drawn."""
    recorded = wired()
    figure = next(b for b in written(recorded)["implied"].blocks if isinstance(b, blocks.Figure))
    cloud, variances = figure.spec.clouds
    sigma = np.sqrt(MEMORY["running_var"] + 1e-5)
    known = np.isfinite(cloud.x)
    np.testing.assert_allclose(cloud.x[known][:3], 1.05 * MEMORY["running_mean"] / sigma)
    np.testing.assert_allclose(cloud.y[known][:3], MEMORY["running_mean"] / sigma)
    there = np.isfinite(variances.x)
    np.testing.assert_allclose(variances.y[there] - variances.x[there], np.log10(2))


def test_a_fresh_network_implies_nothing():
    """Fails if a fresh network, whose means are all 0, is given a fit."""
    guess = Implied(*(np.zeros(3) for _ in range(6)))
    fresh = site(ROWS, running_mean=0, running_var=1, neighbours=Neighbours("relu", implied=guess))
    assert "as if nothing was learned" in untold(fresh)["What earlier layers already determine"]
    assert "could be followed" in untold(site(ROWS, **MEMORY))["What earlier layers already determine"]


# Folding and quantization


def test_norms_of_samples_do_not_miss_a_scale_that_they_do_not_set():
    """Fails if RMS norms, which no channel leaves with standard deviation |γ|, are said to fail at it."""
    wide = ROWS * np.array([9.0, 1.0, 1.0])[None, :, None]
    layers = [site(rows, name, "layer_norm", gamma=1.0) for rows, name in ((wide, "a"), (wide[::2], "b"))]
    words = told("shape", *layers)
    ratios = bnprobe.report(recording(*layers)).layers["gamma_ratio_median"]
    low, high = (number(float(one), 2) for one in (ratios.min(), ratios.max()))
    assert words.startswith(
        "Each sample is normalized with its own statistics, so outputs of a channel need not have standard deviation |γ|: "
        f"theirs is typically between {low} ("
    )
    assert f") and {high} times it (" in words
    assert "Outputs should" not in words
    assert f"theirs is typically {number(float(ratios.iloc[0]), 2)} times it." in told("shape", layers[0])


def test_folding_is_told_with_its_worst_layer():
    """Fails if the worst channel is another layer's, or channels that are switched off count."""

    def layer(name: str, *reach: float) -> LayerRecord:
        folded = Folded(np.ones(3), -np.array(reach), np.zeros(3), None)
        return site(ROWS, name, gamma=2, beta=0, neighbours=Neighbours("relu", folded=folded), **MEMORY)

    words = told("affine", layer("a", 1, 0.5, 0.5), layer("b", 1, 1, 1 / 32))
    assert "A typical channel's folded weights span 75% of its layer's range" in words
    assert (
        "Quantized with one scale per layer after folding, the worst channel (in b) loses 5 of the 8 bits of int8."
        in words
    )
    assert "Use per-channel scales." in words
    assert "Use per-channel scales." not in told("affine", layer("a", 1, 0.75, 0.75))
    assert words.endswith("eps makes no channel's output smaller by 0.5% or more.")


def test_eps_is_told_over_all_channels():
    """Fails if the share is that of the worst layer, or narrow and wide layers count alike."""
    small = {"running_mean": MEMORY["running_mean"], "running_var": [1e-5, 1, 1]}
    words = told("affine", site(ROWS, "a", gamma=2, **small), site(ROWS, "b", gamma=2, **MEMORY))
    assert "Eps makes the outputs of 17% of all channels smaller by 0.5% or more, most at a (33%)." in words
    guessed = [site(ROWS, name, gamma=2, eps_assumed=True, **small) for name in "ab"]
    assert "most at a (33%) (eps is assumed)." in told("affine", *guessed)


def test_norms_without_a_fixed_map_have_no_affine_view():
    """Fails if a layer norm is called a line."""
    assert (
        "none of them is a fixed map"
        in untold(site(ROWS, "ln", "layer_norm", gamma=1.5))["Folding and quantization"]
    )


# Residual branches


def test_the_loudest_and_the_quietest_branch_are_named():
    """Fails if the share of the skip is told for that of the branch."""

    def block(name: str, gamma: float) -> LayerRecord:
        neighbours = Neighbours("add, relu", skip="x", skip_var=np.ones(3), skip_var_initial=np.full(3, 3.0))
        return site(ROWS, name, gamma=gamma, beta=0, eps=0.0, neighbours=neighbours, **MEMORY)

    words = told("residual", block("a", 1.0), block("b", 3.0), block("c", 0.5))
    assert (
        "In 3 residual blocks the branch contributes 20% to 90% of the block's variance, most at b." in words
    )
    assert "In 2 of them its share is larger than at initialization" in words
    assert "than at initialization (25%)." in words
    assert "grows with every block" not in words
    assert "In none of them is its share larger" in told("residual", block("a", 0.1), block("b", 0.2))
    one = told("residual", block("a", 3.0))
    assert (
        one
        == "At a the residual branch contributes 90% of the block's variance; at initialization it was 25%."
    )


def test_a_projection_is_the_skip_and_no_block_of_its_own():
    """Fails if the two norms of one sum are counted as two blocks."""

    def side(name: str, other: str) -> LayerRecord:
        neighbours = Neighbours("add, relu", skip=other, skip_var=np.ones(3), skip_var_initial=np.ones(3))
        return site(ROWS, name, gamma=1, beta=0, neighbours=neighbours, **MEMORY)

    layers = [side("0.bn3", "0.down"), side("0.down", "0.bn3"), side("1.bn3", "sum at 0.bn3")]
    found = written(recording(*layers))["residual"]
    assert table_of(found)["layer"] == ["0.bn3", "1.bn3"]
    assert found.blocks[0].paragraphs[0].startswith("In 2 residual blocks")


def test_a_norm_that_feeds_the_branch_is_the_skip():
    """Fails if the norm that ends one block and is the skip of the next is taken for that block's branch."""

    def side(name: str, other: str, follows: str) -> LayerRecord:
        neighbours = Neighbours(follows, skip=other, skip_var=np.ones(3), skip_var_initial=np.ones(3))
        return site(ROWS, name, gamma=1, beta=0, neighbours=neighbours, **MEMORY)

    layers = [side("2.bn3", "3.bn3", "conv | add"), side("3.bn3", "2.bn3", "add")]
    found = written(recording(*layers))["residual"]
    assert table_of(found)["layer"] == ["3.bn3"]
    assert table_of(found)["skip"] == ["2.bn3"]


# Per-sample norms


def test_the_divisor_is_told_from_first_to_last():
    """Fails if first and last are swapped, or the largest share of energy is another's."""
    layers = [site(ROWS, "a", "layer_norm"), site(ROWS * 4, "b", "layer_norm")]
    table = bnprobe.report(recording(*layers)).layers
    words = told("per-sample", *layers)
    assert words.startswith("2 norms divide each sample by its own scale, which goes from")
    first, last = table["own_sd"]
    assert last == pytest.approx(4 * first, rel=1e-3)
    assert f"{first:.2g} at a to {last:.2g} at b" in words


def test_outlier_dimensions_are_named():
    """Fails if a layer with a channel a hundred times as large passes for even."""
    rows = np.random.default_rng(0).normal(size=(20, 12, 9))
    wild = rows * np.where(np.arange(12) == 7, 100.0, 1.0)[:, None]
    assert "No channel is more than 6 times as large" in told("per-sample", site(rows, "a", "layer_norm"))
    layers = [site(rows, "a", "layer_norm"), site(wild, "b", "layer_norm")]
    words = told("per-sample", *layers)
    assert "1 channel in 1 norm is more than 6 times as large as the typical one" in words
    assert table_of(written(recording(*layers))["per-sample"])["outlier_channels"] == ["7"]


# Gradients through depth


def pulled(layer: str, by: float = 1.0, **changes: Any) -> LayerRecord:
    """A norm with backward passes whose gradients are `by` times as long as another's."""
    return site(ROWS, layer, gamma=1.5, beta=0, gradient=gradient(by * ROWS, **changes), **MEMORY)


def test_the_longest_and_the_shortest_gradient_are_named():
    """Fails if they are swapped, or the factor through depth is that of variances."""
    table = bnprobe.report(recording(pulled("a"), pulled("b", 10.0))).layers
    short, long = table["grad_out"]
    assert long == pytest.approx(10 * short)
    words = told("gradients", pulled("a"), pulled("b", 10.0))
    # lengths of 1 and 10 have log10 of 0 and 1, whose standard deviation (divisor n) is 1/2
    assert words.startswith(
        f"Measured over 3 backward passes, gradients differ through depth by a typical factor of {number(10**0.5, 2)}. "
        f"The gradient is longest at b ({number(long, 2)}) and shortest at a ({number(short, 2)})."
    )


def test_the_noise_of_gradients_is_told_from_their_mean():
    """Fails if steady gradients are called noisy, or the ratio is turned round."""
    steady = told("gradients", pulled("a"), pulled("b"))
    assert "Gradients of γ are" not in steady  # three passes
    noise = np.random.default_rng(4).normal(size=(40, 3))
    noise = (noise - noise.mean(0)) / noise.std(0, ddof=1)
    for mean, expected in (
        (
            3.0,
            "are consistent: their mean is 2.9 times (at most 3.6) their spread between backward passes of 40 samples.",
        ),
        (0.5, "are noisy: their mean is 0.46 times (at most"),
        (
            0.1,
            "show no mean beyond their spread between backward passes of 40 samples: at most 0.27 times it.",
        ),
    ):
        passes = Moments(**oracles.moments(mean + noise))
        assert f"Gradients of γ {expected}" in told("gradients", pulled("a", gamma=passes))


def test_energy_that_is_rounding_is_not_drawn():
    """Fails if norms with fixed statistics, which remove no energy, are drawn and listed with what float32 leaves of 0."""
    known = pd.DataFrame(
        {"energy_removed_layer": [1e-8, -3e-9], "grad_out": [1.0, 2.0], "grad_in": [1.0, 1.0]}
    )
    assert not gradients._says_something(known, "energy_removed_layer")
    assert gradients._says_something(known, "grad_out")
    assert gradients._says_something(known.assign(energy_removed_layer=[0.2, 0.0]), "energy_removed_layer")


def test_without_backward_passes_there_are_no_gradients():
    """Fails if a chapter of dashes is written, or its absence is not said."""
    assert untold(site(ROWS, **MEMORY))["Gradients through depth"] == "no backward pass was recorded."
    assert "No gradient reached any norm." in told("gradients", pulled("a", 0.0))
