"""What the page says: sentences made of this network's numbers, and nothing that is not so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.recording import Recording
from bnprobe.report.chapters.chapter import unit_of
from bnprobe.report.chapters.headline import _unsaid
from bnprobe.report.numbers import number
from bnprobe.report.page import blocks

ROWS = some_rows(40)
MEMORY = memory_of(ROWS)
FIVE = some_rows(40, 5)
ONE_OF_FIVE = {"gamma": [1e-4, 1, 1, 1, 1], **memory_of(FIVE)}
"""A channel that was switched off, too few of its layer for more than an info."""


def section(recorded: Recording, name: str) -> blocks.Section:
    page = bnprobe.report(recorded)._page
    return next(part for s in page.sections for part in (s, *s.parts) if part.id == name)


def answer(*layers: object, **about: object) -> str:
    return bnprobe.report(recording(*layers, **about)).answer.replace("\u00a0", " ")


def at(scale: float) -> dict[str, np.ndarray]:
    """A memory of which the rows have `scale` times the variance."""
    return {"running_mean": MEMORY["running_mean"], "running_var": MEMORY["running_var"] / scale}


def test_the_sections_in_their_order():
    """Fails if the answer does not stand before the tables, or a section is lost."""
    page = bnprobe.report(recording(site(ROWS, **MEMORY)))._page
    names = [s.id for s in page.sections]
    told = ["running-stats", "shape", "variance", "affine", "not-measured"]
    assert names == ["answer", "findings", "network", *told, "layers", "probed", "glossary"]


def test_what_was_probed_is_said_as_it_was_recorded():
    """Fails if weights, data or preprocessing are swapped, or a note is dropped."""
    about = {"weights": "ours", "data": "cats", "preprocessing": "none", "notes": ("two were damaged",)}
    recorded = recording(site(ROWS, **MEMORY), model="Net", n_parameters=12345, **about)
    facts = dict(section(recorded, "probed").blocks[0].rows)
    assert facts["model"] == "Net, 12,345 parameters"
    assert (facts["weights"], facts["data"], facts["preprocessing"]) == ("ours", "cats", "none")
    provenance = section(recorded, "provenance").blocks[0].rows
    assert ("note", "two were damaged") in provenance


def test_badges_tell_a_page_from_others_at_a_glance():
    """Fails if thumbnails of pages about other norms, other data or gradients look alike."""
    layers = [site(ROWS, "a"), site(ROWS, "b"), site(ROWS, "c", "layer_norm"), site(ROWS, "d", "rms_norm")]
    assert bnprobe.report(recording(*layers))._page.badges == (
        "batch norm",
        "layer norm",
        "samples",
    )
    unseen = bnprobe.check(
        {
            "bn.weight": torch.ones(3) * 2,
            "bn.running_mean": torch.zeros(3),
            "bn.running_var": torch.ones(3),
            "bn.bias": torch.zeros(3),
        }
    )
    assert unseen._page.badges == ("batch norm", "weights only")
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3)).eval()
    with bnprobe.attach(model, gradients=True) as probe:
        model(torch.randn(4, 1, 9, 9)).square().sum().backward()
    assert bnprobe.report(probe.recording)._page.badges == ("batch norm", "images", "gradients")


@pytest.mark.parametrize(
    ("sides", "unit"), [((4, 8, 16), "sample"), ((16, 8, 4), "image"), ((16, 32), "image")]
)
def test_maps_that_grow_from_small_ones_are_made_of_noise(sides, unit):
    """Fails if a generator is said to have seen images, or a network that reads them is not."""
    layers = [site(some_rows(n_positions=side**2), f"bn{side}", class_name="BatchNorm2d") for side in sides]
    assert unit_of(recording(*layers)) == unit


def test_kinds_are_counted():
    """Fails if one norm is called norms, or kinds are lost in the sum."""
    assert "Net has 1 batch norm. Measured on 40 samples in eval mode." in answer(site(ROWS))
    planar = replace(site(ROWS), class_name="BatchNorm2d")
    assert "Net has 1 batch norm. Measured on 40 images in eval mode." in answer(planar)
    kinds = ("batch_norm", "layer_norm", "layer_norm", "rms_norm", "my_norm")
    many = answer(*(site(ROWS, str(i), kind) for i, kind in enumerate(kinds)))
    assert "Net has 5 norms (1 batch norm, 2 layer norms, 1 RMS norm, 1 my_norm). Measured" in many
    mixed = answer(site(ROWS, "a"), site(ROWS, "b", n_calls_training=1))
    assert "40 samples partly in train and partly in eval mode." in mixed


@pytest.mark.parametrize(
    ("scale", "words"),
    [(1.0, "match"), (1.2, "match"), (1.3, "do not match"), (0.75, "do not match")],
)
def test_whether_the_data_match_the_running_statistics(scale, words):
    """Fails if the verdict and the number beside it disagree."""
    said = answer(site(ROWS, eps=0.0, **at(scale)))
    assert said.startswith(f"As far as 40 samples can tell, your inputs {words} the training data: ")
    percent = {1.0: "equal to", 1.2: "20% above", 1.3: "30% above", 0.75: "25% below"}[scale]
    assert f"variance is {percent} the running variance" in said


def test_a_moved_mean_alone_is_a_difference():
    """Fails if only the variance decides."""
    sd = np.sqrt(MEMORY["running_var"])
    said = answer(
        site(ROWS, running_mean=MEMORY["running_mean"] - 0.3 * sd, running_var=MEMORY["running_var"])
    )
    assert "do not match the training data" in said
    assert "at worst their mean is off by 0.30 running standard deviations (bn)." in said


def test_the_layer_furthest_off_is_named():
    """Fails if "furthest" looks at one side only: a third is further from 1 than twice."""
    scales = {"a": 1.0, "b": 2.0, "c": 1 / 3, "d": 1.1}
    said = answer(*(site(ROWS, name, eps=0.0, **at(scale)) for name, scale in scales.items()))
    assert "at worst their variance is only 33% of the running variance (c)." in said


def test_the_worst_norm_is_one_that_was_called_shifted():
    """Fails if "at 1 of 2 norms" is followed by the number of a third, which could not be judged."""
    rows = np.random.default_rng(2).normal(size=(400, 3, 20))
    near, far = (
        site(rows, name, gamma=1.5, eps=0.0, running_mean=by, running_var=1)
        for name, by in (("a", 0.01), ("b", 0.4))
    )
    few = rows[:4] * 1.5
    said = answer(near, far, site(few, "few", gamma=1.5, eps=0.0, running_mean=0.001, running_var=1))
    assert (
        "at 1 of 2 norms that could be judged the inputs differ from the running statistics beyond sampling error"
        in said
    )
    assert "at worst their mean is off by 0.39 running standard deviations (b)." in said
    assert "(b)" in said


def test_norms_without_running_statistics_are_not_held_against_any():
    """Fails if a network of layer norms gets a sentence about a training set it does not hold."""
    said = answer(site(ROWS, "a", "layer_norm", gamma=1.1), site(ROWS * 3, "b", "layer_norm", gamma=1.1))
    assert "running" not in said
    assert "training data" not in said
    own = bnprobe.report(recording(site(ROWS, "a", "layer_norm"), site(ROWS * 3, "b", "layer_norm"))).layers[
        "own_sd"
    ]
    assert own[1] / own[0] == pytest.approx(3, rel=1e-3)
    ends = f"from {number(own[0], 2)} to {number(own[1], 2)}"
    assert (
        f"From the first layer norm to the last, the scale of the inputs grows by a factor of 3.0, {ends}."
        in said
    )
    shrinks = answer(site(ROWS * 3, "a", "layer_norm"), site(ROWS, "b", "rms_norm"))
    assert (
        "From the first per-sample norm to the last, the scale of the inputs shrinks by a factor of"
        in shrinks
    )
    assert "the scale of the inputs stays about the same" in answer(
        *(site(ROWS, n, "layer_norm") for n in "ab")
    )


def test_what_was_learned_is_counted():
    """Fails if shares are of layers and not of channels, or zeros count as negative."""
    said = answer(site(ROWS, "a", gamma=[-1, 0.001, 3], **MEMORY), site(ROWS, "b", gamma=[2, 2, 2], **MEMORY))
    assert "A typical |γ| is 2; γ is negative in 1 channel (17%)." in said
    assert "1 channel in 1 norm has |γ| below 0.01: its output hardly varies about 0." in said
    with_beta = answer(*(site(ROWS, name, gamma=[0.5, 0.001, 0], beta=1, **MEMORY) for name in "ab"))
    assert "4 channels in 2 norms have |γ| below 0.01: their outputs hardly vary about β." in with_beta
    assert "negative" not in with_beta
    fresh = answer(site(ROWS, gamma=1, beta=0, **MEMORY))
    assert "typical |γ|" not in fresh, "nothing was learned"
    assert "Scale and shift were not trained: every γ is 1 and every β is 0." in fresh


def test_channels_that_never_fired_are_counted():
    """Fails if the dead are not told, or one is called several."""
    said = answer(site(ROWS, gamma=[1e-6, 1, 1], beta=[-1, 0, 0], **MEMORY))
    assert "of the time; 1 of 3 never does." in said
    two = answer(site(ROWS, gamma=[1e-6, 1e-6, 1], beta=[-1, -1, 0], **MEMORY))
    assert "of the time; 2 of 3 never do." in two
    alive = answer(site(ROWS, gamma=2, beta=0, **MEMORY))
    assert "of the time, and every channel was positive at least once." in alive


def test_the_verdict_names_the_rules():
    """Fails if infos are called a problem or nothing, or a warning is passed over."""
    assert "No rule warns; 1 note is listed below." in answer(site(FIVE, **ONE_OF_FIVE))
    flat = recording(site(ROWS, gamma=1e-4, **MEMORY))
    (warning,) = bnprobe.report(flat).findings.itertuples()
    assert f"Warning: {warning.says.removesuffix('.')} (at bn)." in answer(*flat.layers)
    poisoned = answer(
        site(ROWS, "a", running_mean=np.nan, running_var=1), site(ROWS, "b", **MEMORY), never_called=("x",)
    )
    both = recording(
        site(ROWS, "a", running_mean=np.nan, running_var=1), site(ROWS, "b", **MEMORY), never_called=("x",)
    )
    findings = bnprobe.report(both).findings
    serious = findings[findings["severity"] != "info"]
    assert list(serious["severity"]) == ["critical", "warning"]
    says = serious["says"].iloc[0].removesuffix(".")
    assert f"Critical: {says} (at a). 1 more finding is listed below." in poisoned
    alike = recording(*(site(ROWS, name, gamma=1e-4, **MEMORY) for name in "abc"))
    assert "(at a and 2 other places)." in answer(*alike.layers)


def test_data_that_differ_are_something_to_worry_about():
    """Fails if the last sentence finds nothing where the first says that the data differ."""
    rows = np.random.default_rng(2).normal(size=(400, 3, 20))
    near, far = (
        site(rows, name, gamma=1.5, running_mean=by, running_var=1) for name, by in (("a", 0.01), ("b", 0.4))
    )
    said = answer(near, far)
    assert "No rule found a problem" not in said
    assert said.startswith("Your inputs do not quite match the training data: at 1 of 2 norms")
    assert (
        "(b). The mismatch is significant but below the warning level. Check accuracy on these data" in said
    )
    assert "No rule found a problem." in answer(near)
    unsure = answer(site(ROWS, gamma=1.5, eps=0.0, **at(1.3)))
    assert "Any mismatch is below the warning level, and too few samples were run to judge it." in unsure
    assert "No rule found a problem" not in unsure


def test_findings_that_say_the_same_stand_together():
    """Fails if 53 layers make 53 boxes, or different sentences are thrown together."""
    flat = [site(FIVE, name, **ONE_OF_FIVE) for name in "abc"]
    spoilt = ROWS.copy()
    spoilt[0, 1, 0] = np.nan
    found = section(recording(*flat, site(spoilt, "d", call=1, gamma=1.5, **MEMORY)), "findings").blocks[0]
    assert [(card.severity, len(card.places)) for card in found.cards] == [("critical", 1), ("info", 3)]
    assert [place.name for place in found.cards[0].places] == ["d (call 2), channel 1"]
    assert [place.name for place in found.cards[1].places] == ["a, channel 0", "b, channel 0", "c, channel 0"]
    assert all(place.because for place in found.cards[1].places)


def test_a_layers_table_shows_the_most_shifted_channels_first():
    """Fails if the table of a wide layer is cut without a word, or by channel number."""
    rows = some_rows(5, 40, 3)
    memory = {
        "running_mean": rows.mean((0, 2)) - np.arange(40) * rows.std((0, 2)),
        "running_var": rows.var((0, 2)),
    }
    part = section(recording(site(rows, gamma=1, beta=0, **memory)), "layers").parts[0]
    table = next(block for block in part.blocks if isinstance(block, blocks.Table))
    heads = [name for name, _ in table.heads]
    first = [row[heads.index("channel")].text for row in table.rows]
    assert first == [str(c) for c in range(39, 34, -1)]
    assert "5 of 40 channels" in table.note
    assert "report.channels" in table.note


def test_columns_without_any_value_are_left_out():
    """Fails if a layer norm's table has an empty column for every statistic that it does not store."""
    part = section(recording(site(ROWS, "ln", "layer_norm", gamma=1)), "layers").parts[0]
    table = next(block for block in part.blocks if isinstance(block, blocks.Table))
    heads = {name for name, _ in table.heads}
    assert not heads & {"running_mean", "running_var", "shift", "beta"}
    assert heads >= {"channel", "gamma", "pre_mean", "fires"}


def test_what_is_the_same_everywhere_is_said_once():
    """Fails if a column repeats one word 53 times, or is dropped without a word."""
    table = section(recording(site(ROWS, "a", **MEMORY), site(ROWS, "b", **MEMORY)), "network").blocks[2]
    heads = [name for name, _ in table.heads]
    assert "kind" not in heads
    assert "kind batch norm" in table.note
    assert "normalized by running" in table.note
    mixed = section(recording(site(ROWS, "a", **MEMORY), site(ROWS, "b", "layer_norm")), "network").blocks[2]
    assert "kind" in [name for name, _ in mixed.heads]


def test_every_head_of_a_table_has_its_meaning():
    """Fails if a column can be seen and not be understood: its words come from the glossary."""
    page = bnprobe.report(recording(site(ROWS, gamma=1.5, beta=0, **MEMORY)))._page
    everything = [part for section in page.sections for part in (section, *section.parts)]
    for one in everything:
        for table in (block for block in one.blocks if isinstance(block, blocks.Table)):
            known = {entry.name for entry in page.sections[-1].blocks[0].entries}
            # short tables are explained by the glossary alone
            assert all(len(meaning) > 10 or table.brief for _, meaning in table.heads)
            assert all(head in known for head, _ in table.heads)


def test_what_moved_during_the_recording_is_said():
    """Fails if a reader is not told that parameters or buffers are of the beginning or the end."""
    record = site(ROWS, gamma=1.5, beta=0, **MEMORY)

    def words(**changes: object) -> str:
        part = section(recording(replace(record, **changes)), "layers").parts[0]
        return part.blocks[1].paragraphs[0]

    assert "the values shown are those at its end" in words(parameters_moved=True)
    assert "the values shown are those before it" in words(buffers_moved=True)
    assert "during the recording" not in words()
    assert "measured directly" in words(output="read")


def test_a_layer_that_was_read_because_it_is_fused_is_not_explained_by_its_kind():
    """Fails if a batch norm with a fused activation is said to be no affine map per channel, which it is."""
    fused = site(ROWS, gamma=1.5, beta=0, output="read", mismatch=0.4, **MEMORY)
    part = section(recording(fused), "layers").parts[0]
    assert "not one affine map per channel" not in part.blocks[1].paragraphs[0]


def test_a_layer_without_values_is_not_said_to_fire_dash_of_the_time():
    """Fails if a dash for "not defined" stands among the facts, or in the middle of a sentence."""
    part = section(recording(site(ROWS * np.nan, gamma=1.5, beta=0, **MEMORY)), "layers").parts[0]
    facts, words = part.blocks[:2]
    assert [name for name, _ in facts.rows] == ["|γ|, median (5 to 95%)"]
    assert "–" not in words.paragraphs[0]


def test_how_it_was_measured_tells_the_check_of_the_derived_output():
    """Fails if the largest gap is of one layer only, or of those that were read."""
    layers = [
        site(ROWS, "a", mismatch=1e-7, **MEMORY),
        site(ROWS, "b", mismatch=2.5e-6, **MEMORY),
        site(ROWS, "c", mismatch=0.4, output="read", **MEMORY),
    ]
    facts = dict(section(recording(*layers), "provenance").blocks[0].rows)
    assert "derived from the inputs at 2 layers, measured directly at 1" in facts["outputs"]
    assert "at most 2.5e−6 of the largest output" in facts["outputs"]


def test_without_histograms_the_page_does_not_explain_them():
    """Fails if a reader is told how to read curves that are not there."""
    without = section(recording(site(ROWS, histograms=False)), "layers").blocks[0].paragraphs[0]
    assert without == "Distributions were not recorded (histograms=False)."
    assert (
        "Blue: measured. Orange: expected" in section(recording(site(ROWS)), "layers").blocks[0].paragraphs[0]
    )


def test_shifts_in_both_directions_are_no_agreement():
    """Fails if the middle norm speaks for all: variances of 2.4, 1.06, 0.17 and 0.8 have the median 0.94."""
    rows = np.random.default_rng(5).normal(size=(400, 3, 20))
    layers = [
        site(rows, name, gamma=1.5, running_mean=0, running_var=1 / ratio)
        for name, ratio in zip("abcd", (2.38, 1.06, 0.17, 0.82), strict=True)
    ]
    verdicts = bnprobe.report(recording(*layers)).layers["verdict"]
    n = int(verdicts.str.contains("shifted").sum())
    assert n >= 2
    assert answer(*layers).startswith(
        f"Your inputs do not match the training data: at {n} of 4 norms the inputs differ"
    )
    # too few samples for a verdict at any norm
    few = [
        site(ROWS, name, gamma=1.5, eps=0.0, **at(scale))
        for name, scale in zip("abcd", (1.3, 1.0, 0.75, 1.0), strict=True)
    ]
    assert answer(*few).startswith(
        "As far as 40 samples can tell, your inputs do not match the training data: "
    )


def test_a_layer_that_is_called_several_times_is_one_layer():
    """Fails if calls are counted for layers."""
    calls = [site(ROWS, name, call=call, **MEMORY) for name in "ab" for call in (0, 1)]
    own = [site(ROWS, "c", "layer_norm", call=call) for call in (0, 1)]
    said = answer(*calls, *own)
    assert "Net has 3 norms (2 batch norms, 1 layer norm), called at 6 places. Measured on 40 samples" in said
    assert "Net has 1 batch norm, called at 2 places. Measured" in answer(*calls[:2])
    lead = bnprobe.report(recording(*calls, *own))._page.lead
    norms = "3 norms (2 batch norms, 1 layer norm), 9 channels, called at 6 places"
    assert lead == f"{norms}, measured on 40 samples in eval mode."


def test_sentences_and_tables_name_the_call():
    """Fails if two calls of one layer have one name."""
    own = [site(ROWS * (1 + call), "shared", "layer_norm", call=call) for call in range(3)]
    said = section(recording(*own), "per-sample").blocks[0].paragraphs[0]
    assert " at shared to " in said
    assert " at shared (call 3)." in said
    table = next(b for b in section(recording(*own), "network").blocks if isinstance(b, blocks.Table))
    assert [row[0].text for row in table.rows] == ["shared", "shared (call 2)", "shared (call 3)"]
    scales = {0: 1.0, 1: 1.1, 2: 5.0}
    called = [site(ROWS, "bn", call=call, eps=0.0, **at(scale)) for call, scale in scales.items()]
    assert "(bn (call 3))." in answer(*called)


# An untrained network


FRESH = {"running_mean": 0, "running_var": 1, "gamma": 1, "beta": 0}


def test_an_untrained_network_is_told_so_first():
    """Fails if a network that learned nothing is said to have no problem, or to match training data it never saw."""
    said = answer(site(ROWS, "a", **FRESH), site(ROWS, "b", **FRESH))
    assert said.startswith(
        "This network is untrained: every γ is 1, every β is 0, and the running statistics were never updated."
    )
    assert "training data" not in said
    assert "No rule found" not in said
    assert "typical |γ|" not in said


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([site(ROWS, "ln", "layer_norm", gamma=1, beta=0)], "every γ is 1 and every β is 0."),
        ([site(ROWS, "rms", "rms_norm", gamma=1)], "every γ is 1."),
        ([site(ROWS, running_mean=0, running_var=1)], "the running statistics were never updated."),
        (
            [site(ROWS, "a", **FRESH), site(ROWS, "b", **{**FRESH, "gamma": 0})],
            "every γ is 1 or 0, every β is 0, and the running statistics were never updated.",
        ),
    ],
    ids=["layer norm", "RMS norm", "no affine", "zero at the start"],
)
def test_what_makes_it_untrained_is_what_its_norms_have(layers, words):
    """Fails if a network of layer norms hears of running statistics, or an initial γ of 0 passes for learned."""
    who = "This network is" if "running" in words else "The norms of this network are"
    assert answer(*layers).startswith(f"{who} untrained: {words}")


@pytest.mark.parametrize(
    "changes",
    [
        {"gamma": [1, 1.01, 1]},
        {"beta": [0, 0, 0.001]},
        {"running_mean": [0, 0, 0.1]},
        {"gamma": [1, 0, 1]},
    ],
    ids=["gamma", "beta", "running mean", "some zeros"],
)
def test_a_network_that_learned_anything_is_not_untrained(changes):
    """Fails if one changed number of one norm is overlooked."""
    assert "untrained" not in answer(site(ROWS, "a", **FRESH), site(ROWS, "b", **{**FRESH, **changes}))


def test_a_network_that_has_only_begun_is_said_to_have():
    """Fails if running statistics of five batches are held against the data, or a trained network is called new."""
    stored = {"running_mean": 0.2, "running_var": 0.7, "n_batches_tracked": 5}
    said = answer(
        site(ROWS, "a", gamma=1.01, beta=0.01, **stored), site(ROWS, "b", gamma=0.99, beta=0, **stored)
    )
    assert said.startswith(
        "This network has only begun to train: its γ and β are near their initial values, after 5 batches."
    )
    assert "training data" not in said
    assert "typical |γ|" not in said
    assert "begun" not in answer(site(ROWS, "a", gamma=1.2, beta=0.01, **stored))
    alone = answer(site(ROWS, "a", **stored))
    assert alone.startswith(
        "This network has only begun to train: its running statistics are in good part their"
    )
    layer = answer(site(ROWS, "ln", "layer_norm", gamma=1.01, beta=0))
    assert layer.startswith(
        "This network has only begun to train: its γ and β are near their initial values."
    )


def test_norms_that_learn_nothing_say_nothing_of_training():
    """Fails if a network whose norms have no parameters and no statistics is called untrained."""
    assert "untrained" not in answer(site(ROWS, "a", "instance_norm"), site(ROWS, "b", "layer_norm"))


@pytest.mark.parametrize(
    ("model", "called"),
    [
        ("resnet20", "resnet20"),
        ("package.module:resnet20", "resnet20"),
        ("my net, wide", "This network"),
        ("a + b", "This network"),
        ("cifar_resnet20.th", "cifar_resnet20.th"),
    ],
)
def test_a_model_has_a_name_in_a_sentence(model, called):
    """Fails if a whole description becomes the subject of a sentence, or a name is lost."""
    assert f"{called} has 1 batch norm. Measured" in answer(site(ROWS), model=model)


def test_norms_that_could_not_be_judged_are_not_said_to_match():
    """Fails if 1 of 3 norms speaks for all: of mobilenet_v2 on 32 photographs, 11 of 52 can be judged."""
    many = np.random.default_rng(5).normal(size=(20_000, 3, 2))
    stored = {"running_mean": many.mean((0, 2)), "running_var": many.var((0, 2))}
    small = {"running_mean": many[:40].mean((0, 2)), "running_var": many[:40].var((0, 2))}
    layers = [site(many, "a", gamma=1.5, training_batch=10_000, **stored)]
    layers += [site(many[:40], name, gamma=1.5, **small) for name in "bc"]
    verdicts = bnprobe.report(recording(*layers)).layers["verdict"].tolist()
    assert verdicts == ["same", "too few samples", "too few samples"]
    said = answer(*layers)
    assert said.startswith(
        "Too few samples to say whether they match the training data at 2 of 3 norms; the other norm matches: over all 3 "
        "norms, the mean is typically off by "
    )
    assert answer(*layers[:2]).startswith(
        "Your inputs match the training data at 1 of 2 norms; 1 has too few samples to say: over both norms, the mean is "
    )


def test_a_finding_of_the_headline_is_not_said_again():
    """Fails if what follows the headline repeats its finding because it also counts the others, or loses that count."""
    found = "Warning: The inputs are not preprocessed as in training (at a.b)."
    headline = f"Your images do not match the training data. {found}"
    assert _unsaid(f"{found} 1 more finding is listed below.", headline) == ""
    assert _unsaid(found, headline) == ""
    other = "Warning: Some channels are dead (at a.c). 1 more finding is listed below."
    assert _unsaid(other, headline) == other
    assert _unsaid("Check accuracy on these data.", headline) == "Check accuracy on these data."
