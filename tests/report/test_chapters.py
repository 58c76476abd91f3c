"""Chapters: each opens with this network's numbers, agrees with the tables, and is left out where it cannot be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.measures import Fit, StemReading
from bnprobe.measures.padding import Padding
from bnprobe.recording import LayerRecord, Recording
from bnprobe.recording.neighbours import Folded, Implied, Neighbours
from bnprobe.report.chapters import CHAPTERS, chapter, chapters, implied, stem
from bnprobe.report.formats.html import to_html
from bnprobe.report.page import blocks
from bnprobe.stats import ClassMoments, Moments
from report import pages
from report.pictured import svg_of

ROWS = some_rows(40)
MEMORY = memory_of(ROWS)
LEARNED = {"gamma": [0.5, -1.5, 1.0], "beta": [0.2, -0.1, 0.0]}
IDS = ("memory", "roles", "shape", "variance", "stem", "implied", "affine", "residual", "own", "gradients")


def written(recorded: Recording) -> dict[str, blocks.Section]:
    report = bnprobe.report(recorded)
    return {section.id: section for section in chapters(recorded, report._tables)}


def told(name: str, *layers: LayerRecord, **about: Any) -> str:
    """The sentences of one chapter."""
    prose = written(recording(*layers, **about))[name].blocks[0]
    return " ".join(prose.paragraphs).replace("\u00a0", " ")


def untold(*layers: LayerRecord, **about: Any) -> dict[str, str]:
    """Titles of the chapters that are absent, with the reasons."""
    found = written(recording(*layers, **about)).get("untold")
    return reasons_of(found) if found else {}


def reasons_of(untold: blocks.Section) -> dict[str, str]:
    """Title to reason."""
    return dict(one.split(": ", 1) for one in untold.blocks[0].paragraphs)


def moved(layer: str, shift: float, scale: float = 1.0, **changes: Any) -> LayerRecord:
    """A norm whose inputs lie `shift` remembered deviations off, with `scale` times the remembered deviation."""
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
    there = [name for name in IDS if name not in ("stem", "gradients")]
    assert [name for name in found if name != "untold"] == there
    for name, section in found.items():
        if name == "untold":
            continue
        assert isinstance(section.blocks[0], blocks.Prose), name
        for sentence in section.blocks[0].paragraphs:
            assert sentence.endswith("."), (name, sentence)
            assert "–" not in sentence, (name, sentence)
            assert "nan" not in sentence, (name, sentence)


def test_every_chapter_is_told_or_said_to_be_absent():
    """Fails if a chapter vanishes without a word."""
    for layers in ([site(ROWS)], [site(ROWS, "ln", "layer_norm")], [moved("a", 0.0)]):
        found = written(recording(*layers))
        reasons = reasons_of(found.pop("untold"))
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
    with pytest.warns(RuntimeWarning, match="'Shape, .*' could not be made: KeyError"):
        found = written(wired())
    assert "shape" not in found
    assert {"memory", "variance"} < set(found)
    assert "could not be made" in reasons_of(found["untold"])["Shape, and the promise of β and γ"]


# Memory against data


def test_where_a_shift_enters_and_heals_is_told():
    """Fails if the first and the worst are swapped, or healing is told of a norm that is still shifted."""
    layers = [moved("first", 0.0), moved("second", 0.5), moved("third", 1.0), moved("last one", 0.0)]
    words = told("memory", *layers)
    assert "At 2 of 4 norms the data do not look like what was remembered" in words
    assert "the difference enters at second, is largest at third (1" in words
    assert words.endswith("and has healed by last one.")
    rows = table_of(written(recording(*layers))["memory"])
    assert rows["layer"] == ["third", "second"]
    assert rows["verdict"] == ["mean shifted"] * 2


def test_a_shift_that_does_not_heal_is_said_not_to():
    """Fails if the end of the network passes for health, or one norm is called several."""
    words = told("memory", moved("a", 0.0), moved("b", 0.6))
    assert "the difference is at b alone (0.60 remembered deviations" in words
    assert words.endswith("and is still there at the last norm that could be judged.")
    both = told("memory", moved("a", 0.7), moved("b", 0.6))
    assert "the difference enters at a, where it is largest (0.70" in both


def test_data_as_remembered_are_said_to_be():
    """Fails if agreement is not told with its size."""
    words = told("memory", moved("a", 0.0), moved("b", 0.1))
    assert words.startswith("The data look like what the norms remember at all 2 that could be judged")
    assert "0.050 remembered deviations off" in words


def test_few_images_are_said_to_be_few():
    """Fails if six images are enough for a judgement."""
    rows = ROWS[:6]
    words = told("memory", site(rows, **memory_of(rows)))
    assert words.startswith("6 images are too few to tell")


def test_without_memory_there_is_nothing_to_compare():
    """Fails if norms that store nothing, or never stored anything, are said to remember."""
    assert (
        untold(site(ROWS, "ln", "layer_norm"))["Memory against data"] == "no norm keeps running statistics."
    )
    fresh = untold(site(ROWS, running_mean=0, running_var=1))
    assert fresh["Memory against data"] == "the running statistics were never updated."


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
        "Of 4 channels whose part is known from what follows, 2 are dead (nothing passes), 1 mixed, 1 never cut: 50 % of"
    )
    assert "of 4 others it is not known" in words
    assert (
        "γ and β alone predict 2 dead channels; 2 of them let nothing through here (precision 100 %)" in words
    )
    assert "100 % of the 2 that did (recall)" in words


def test_the_error_of_the_predicted_firing_is_the_mean_over_channels():
    """Fails if the two predictions are swapped: with a moved mean only what was seen predicts well."""
    rows = np.random.default_rng(0).normal(size=(50, 2, 400))
    memory = {"running_mean": rows.mean((0, 2)) - 1, "running_var": rows.var((0, 2))}
    record = site(rows, "a", gamma=[1, 1], beta=[0, 0], neighbours=Neighbours("relu"), **memory)
    # Φ(0) = .5 is predicted, Φ(1) = .841 is measured
    words = told("roles", record)
    assert "is off by 0.34 on average" in words
    measured = bnprobe.report(recording(record)).channels
    error = (measured["fires_gaussian"] - measured["fires"]).abs().mean()
    assert error < 0.01
    assert f"by {error:.2g}"[:6] in words.replace("−", "-") or "by 0.00" in words


def test_roles_are_absent_where_nothing_followed():
    """Fails if a network without wiring is said to be alive."""
    assert "was not seen" in untold(site(ROWS, **MEMORY))["What the channels do"]
    weights = site(ROWS, neighbours=Neighbours("linear"), **LEARNED, **MEMORY)
    assert "nothing that follows" in untold(weights)["What the channels do"]


# Shape


def test_the_promise_is_counted_and_the_worst_named():
    """Fails if a norm that keeps its promise is called the worst, or the reason is another's."""
    layers = [
        moved("a", 0.0, gamma=2, beta=1),
        moved("b", 0.0, 0.7, gamma=2, beta=1),
        moved("c", 0.0, 0.5, gamma=2),
    ]
    words = told("shape", *layers)
    assert "here that holds at 1 of 3 norms" in words
    assert "furthest from true at c, where the deviation is typically 0.50 |γ|" in words
    assert "because the data differ from those that the norm remembers" in words
    facts = next(b for b in written(recording(*layers))["shape"].blocks if isinstance(b, blocks.Facts))
    assert facts.rows == (("shift", "the data differ from those that the norm remembers: b, c"),)


def test_the_least_gaussian_norm_is_named():
    """Fails if the ratio furthest from 1 is another layer's, or heavy tails are called short."""
    rng = np.random.default_rng(3)
    heavy = rng.laplace(size=(60, 2, 500))
    even = rng.normal(size=(60, 2, 500))
    words = told("shape", site(heavy, "laplace", **memory_of(heavy)), site(even, "gauss", **memory_of(even)))
    assert "least like a Gaussian at laplace" in words
    assert "is 0.89 of" in words
    assert "heavier tails" in words


def test_inputs_that_are_gaussian_are_not_ranked():
    """Fails if the noise of a histogram is told as a shape."""
    rows = np.random.default_rng(3).normal(size=(60, 2, 500))
    words = told("shape", site(rows, "a", **memory_of(rows)), site(rows * 2, "b", **memory_of(rows * 2)))
    assert "The inputs are nearly Gaussian at all 2 norms whose shape could be read" in words


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
    assert "Most about the 4 classes is known at b" in words
    assert f"make up {100 * expected:.0f} %" in words


def test_the_first_norm_is_not_compared_with_itself():
    """Fails if a sentence says "4 % at bn1, against 4 % at bn1"."""
    labels = np.arange(40) % 4
    only = site(ROWS, "a", classes=ClassMoments.of(Moments.of(ROWS, axis=2), labels.astype(float)))
    assert "against" not in told("variance", only)


def test_without_labels_no_class_is_told():
    """Fails if images are called classes."""
    words = told("variance", site(ROWS, "a"), site(ROWS, "b"))
    assert "No labels were given" in words
    assert "between classes" not in words
    assert "one image" in untold(site(some_rows(1)))["Where the variance lies"]


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
    """Fails if remembered and seen are swapped, or a padding is told that was not found."""
    words = stem.words(READING)
    assert "mean of 0.431, 0.420, 0.388 (in pixels of 0 to 1), as bn1 remembers it" in words
    assert "those of this run have 0.495, 0.484, 0.448" in words
    assert "random crops with 4 pixels of black around the image: 13" in words
    assert words.endswith("the rest of it had 0.498, 0.485, 0.448."), "0.431 / (1 - 0.1341), ..."


@pytest.mark.parametrize(
    ("padding", "says"),
    [
        (replace(PADDING, pixels=None, share=0.2), "About 20"),
        (replace(PADDING, pixels=None, share=0.005), "no sign that black was added"),
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
    assert figure.alt == "The mean colour that the first norm remembers: red 0.43, green 0.42, blue 0.39."
    svg = svg_of(figure.spec, "stem")
    assert "#6e6b63" in svg, "the remembered colour, (.431, .42, .388) of 255"
    assert "#7e7b72" in svg
    assert "#7f7c72" in svg, "without the black around: (.498, .485, .448)"
    grey = stem_chapter(monkeypatch, replace(READING, mean_pixels=(0.4,), seen_pixels=(0.4,)))
    assert not [b for b in grey.blocks if isinstance(b, blocks.Figure)]
    against = stem_chapter(monkeypatch, replace(READING, trusted=False, why="Not to be trusted: too few."))
    assert against == chapter.Absent(stem.TITLE, "not to be trusted: too few")


# Implied


def test_what_was_implied_is_told_with_its_controls():
    """Fails if a control is another's."""
    fit = Fit(9, 336, 0.987, 0.0722, {"permuted": 0.76, "constant": 0.89, "signed": 0.93, "unpadded": 0.96})
    words = implied.words(fit)
    assert "R² 0.987, typically 0.072 remembered σ off, over 336 channels" in words
    assert "0.76 with the channels before permuted, 0.89 with all of them at their mean" in words


@pytest.mark.parametrize(("permuted", "unpadded"), [(0.95, 0.5), (0.935, 0.5), (0.2, 0.95)])
def test_a_claim_that_a_control_equals_is_not_made(permuted, unpadded):
    """Fails if 94 % are said to follow from the channels before where these do as well in another order."""
    controls = {"permuted": permuted, "constant": 0.3, "signed": 0.94, "unpadded": unpadded}
    words = implied.words(Fit(2, 64, 0.94, 0.1, controls)).replace("\u00a0", " ")
    assert "cannot be told" in words
    assert "94 %" not in words
    stands = implied.words(Fit(2, 64, 0.94, 0.1, {**controls, "permuted": 0.2, "unpadded": 0.93}))
    assert "cannot be told" not in stands


def test_the_cloud_of_implied_means_is_in_remembered_deviations():
    """Fails if implied and remembered are swapped, or raw units are drawn."""
    recorded = wired()
    figure = next(b for b in written(recorded)["implied"].blocks if isinstance(b, blocks.Figure))
    cloud, variances = figure.spec.clouds
    sigma = np.sqrt(MEMORY["running_var"] + 1e-5)
    known = np.isfinite(cloud.x)
    np.testing.assert_allclose(cloud.x[known][:3], 1.05 * MEMORY["running_mean"] / sigma)
    np.testing.assert_allclose(cloud.y[known][:3], MEMORY["running_mean"] / sigma)
    there = np.isfinite(variances.x)
    np.testing.assert_allclose(variances.y[there] - variances.x[there], np.log10(2))


def test_a_network_that_remembers_nothing_implies_nothing():
    """Fails if a fresh network, whose means are all 0, is given a fit."""
    guess = Implied(*(np.zeros(3) for _ in range(6)))
    fresh = site(ROWS, running_mean=0, running_var=1, neighbours=Neighbours("relu", implied=guess))
    assert "as if nothing was learned" in untold(fresh)["What was already implied"]
    assert "could be followed" in untold(site(ROWS, **MEMORY))["What was already implied"]


# The affine view


def test_folding_is_told_with_its_worst_layer():
    """Fails if the worst channel is another layer's, or channels that are switched off count."""

    def layer(name: str, *reach: float) -> LayerRecord:
        folded = Folded(np.ones(3), -np.array(reach), np.zeros(3), None)
        return site(ROWS, name, gamma=2, beta=0, neighbours=Neighbours("relu", folded=folded), **MEMORY)

    words = told("affine", layer("a", 1, 0.5, 0.5), layer("b", 1, 1, 1 / 32))
    assert "typically 75 % of its layer's widest" in words
    assert "costs the worst channel 5 bits, at b" in words
    assert words.endswith("eps shapes no channel's output.")


def test_eps_is_told_over_all_channels():
    """Fails if the share is that of the worst layer, or narrow and wide layers count alike."""
    small = {"running_mean": MEMORY["running_mean"], "running_var": [1e-5, 1, 1]}
    words = told("affine", site(ROWS, "a", gamma=2, **small), site(ROWS, "b", gamma=2, **MEMORY))
    assert "Eps shapes the output of 17 % of all channels, most at a (33 %)" in words


def test_norms_without_a_fixed_map_have_no_affine_view():
    """Fails if a layer norm is called a line."""
    assert "no fixed map" in untold(site(ROWS, "ln", "layer_norm", gamma=1.5))["The affine view"]


# Branch against skip


def test_the_loudest_and_the_quietest_branch_are_named():
    """Fails if the share of the skip is told for that of the branch."""

    def block(name: str, gamma: float) -> LayerRecord:
        neighbours = Neighbours("add, relu", skip="x", skip_var=np.ones(3), skip_var_initial=np.full(3, 3.0))
        return site(ROWS, name, gamma=gamma, beta=0, eps=0.0, neighbours=neighbours, **MEMORY)

    words = told("residual", block("a", 1.0), block("b", 3.0), block("c", 0.5))
    assert "In 3 residual blocks the branch makes up 20 % (at c) to 90 % (at b)" in words
    assert "in 2 of them it is louder than at initialisation" in words
    assert "falls to 25 %" in words


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


# Norms that measure each sample anew


def test_the_divisor_is_told_from_first_to_last():
    """Fails if first and last are swapped, or the largest share of energy is another's."""
    layers = [site(ROWS, "a", "layer_norm"), site(ROWS * 4, "b", "layer_norm")]
    table = bnprobe.report(recording(*layers)).layers
    words = told("own", *layers)
    assert words.startswith("2 norms divide each sample by its own deviation, which goes from")
    first, last = table["own_sd"]
    assert last == pytest.approx(4 * first, rel=1e-3)
    assert f"{first:.2g} at a to {last:.2g} at b" in words


def test_outlier_dimensions_are_named():
    """Fails if a layer with a channel a hundred times as large passes for even."""
    rows = np.random.default_rng(0).normal(size=(20, 12, 9))
    wild = rows * np.where(np.arange(12) == 7, 100.0, 1.0)[:, None]
    assert "No channel is 6 times as large" in told("own", site(rows, "a", "layer_norm"))
    layers = [site(rows, "a", "layer_norm"), site(wild, "b", "layer_norm")]
    words = told("own", *layers)
    assert "1 channel in 1 norm is more than 6 times as large as the typical one" in words
    assert table_of(written(recording(*layers))["own"])["outlier_channels"] == ["7"]
