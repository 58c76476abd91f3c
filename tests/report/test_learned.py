"""What was learned, in facts: each has this network's numbers, and a bar per norm in the order of the norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.measures.implied import CONTROLS
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Neighbours
from bnprobe.report.chapters import learned, per_sample
from bnprobe.report.chapters.layers import not_working, telling_table
from bnprobe.report.chapters.working import working
from bnprobe.report.numbers import number
from bnprobe.report.page import blocks
from bnprobe.stats import ClassMoments, Moments

ROWS = some_rows(40)
LABELS = (np.arange(40) % 4).astype(float)


def facts(*layers: LayerRecord, **about: Any) -> dict[str, blocks.Fact]:
    """By the section that proves them."""
    sections = bnprobe.report(recording(*layers, **about))._page.sections
    found = [one for section in sections for one in section.blocks if isinstance(one, blocks.Learned)]
    return {fact.link: fact for fact in found[0].facts} if found else {}


def labelled(rows: np.ndarray, name: str, **changes: Any) -> LayerRecord:
    classes = ClassMoments.of(Moments.of(rows, axis=2), LABELS)
    return site(rows, name, gamma=0.7, beta=0.1, classes=classes, **memory_of(rows), **changes)


def test_classes_are_told_from_the_first_norm_to_the_one_with_most():
    """Fails if the last norm stands for the one with most, a share is another norm's, or bars are in another order."""
    far = ROWS + LABELS[:, None, None]
    layers = [labelled(ROWS, "z"), labelled(far * 3, "m"), labelled(ROWS + 0.01 * far, "a")]
    found = facts(*layers)["variance"]
    channels = bnprobe.report(recording(*layers)).channels
    at = [channels[channels["layer"] == name]["share_class"].mean() for name in "zma"]
    assert at[1] == max(at)
    said = found.says.replace("\u00a0", " ")
    assert said.startswith("The 4 classes explain ")
    assert said.index(" at z and ") < said.index(" at m.")
    assert found.bars == pytest.approx(tuple(np.clip(at, 0, 1)))
    alone = facts(labelled(far, "m"), labelled(ROWS, "a"))["variance"].says
    assert alone.endswith("of a channel’s variance at m.")
    assert " and " not in alone


def test_the_scale_that_norms_undo_is_told_at_both_ends():
    """Fails if an end is another norm's, or the spread is that of the variance, twice as wide on the scale of its log."""
    rows = np.random.default_rng(2).normal(size=(300, 6, 1)) * np.exp(
        0.2 * np.random.default_rng(3).normal(size=(300, 1, 1))
    )
    layers = [site(rows * k, name, "layer_norm", gamma=1.4, beta=0.1) for name, k in (("a", 1), ("b", 10))]
    said = facts(*layers)["per-sample"].says.replace("\u00a0", " ")
    table = bnprobe.report(recording(*layers)).layers
    first, last = (number(size, 2) for size in table["own_sd"])
    assert said.startswith(f"The norms undo a scale that goes from {first} at a to {last} at b")
    own = np.log(rows.std(1)).std()
    varies = per_sample.OwnScale(table).varies("token").replace("\u00a0", " ")
    assert varies == f"by about {100 * own:.0f}% between tokens"
    assert "per-sample" not in facts(layers[0])


def test_what_varies_not_at_all_or_more_than_half_has_no_size():
    """Fails if samples of one scale are said to differ, or a spread is told that is no small part."""
    for spread, said in ((0.0, ""), (0.98, "by about 49% between samples"), (1.0, "")):
        table = pd.DataFrame({"own_sd": [1.0], "own_log_var_sd": [spread]})
        assert per_sample.OwnScale(table).varies("sample").replace("\u00a0", " ") == said


def test_silent_channels_are_counted_by_norm_in_the_order_of_the_network():
    """Fails if norms are sorted by name, a channel counts twice, or calls of one norm are joined."""
    rows = [
        ("z", 0, "dead", 0.0),
        ("z", 0, "mixed", 0.5),
        ("a", 0, "constant", 1.0),
        ("a", 0, "unknown", 0.0),
        ("a", 0, "unknown", np.nan),
        ("a", 1, "mixed", 0.5),
    ]
    table = pd.DataFrame(rows, columns=["layer", "call", "role", "passes"]).assign(
        dead_predicted=np.nan, kind="batch_norm"
    )
    found = working(table)
    assert found.silent.tolist() == [1, 2, 0]
    assert found.sizes.tolist() == [2, 3, 1]
    assert (found.n_silent, found.n_channels, found.n_known) == (3, 6, 5)
    assert found.shares.tolist() == [0.5, 2 / 3, 0.0]


def test_every_place_counts_the_same_channels_of_the_same_number():
    """Fails if two places of a page count channels that pass nothing on by other definitions, or out of another number."""
    around = Neighbours("relu", "conv")
    found = facts(
        site(ROWS, "a", gamma=[1e-4, 1, 1], beta=[-1, 0, 0], neighbours=around, **memory_of(ROWS)),
        site(ROWS, "b", gamma=[0.5, 1, 1], beta=0.1, neighbours=Neighbours("unknown"), **memory_of(ROWS)),
    )
    assert found["roles"].says == "1 of 6 channels passes nothing on (17%); of 3 it is not known."
    # the next weights make up for a small γ of a norm over features
    features = site(ROWS, "c", "layer_norm", gamma=[1e-4, 1, 1], beta=0.1, neighbours=Neighbours("linear"))
    channels = bnprobe.report(recording(features)).channels
    assert dict(not_working(working(channels), 0)) == {"pass nothing on": "no channel"}


def test_a_layer_counts_out_of_all_its_channels():
    """Fails if a layer of which one channel is known to be constant says "1 of 1", or the unknown ones go unmentioned."""
    sums = site(ROWS, "b", gamma=[1e-4, 1, 1], beta=0.1, neighbours=Neighbours("unknown"), **memory_of(ROWS))
    channels = bnprobe.report(recording(sums)).channels
    assert dict(not_working(working(channels), 0)) == {"pass nothing on": "1 of 3 channels (2 unknown)"}


def test_a_layer_that_was_never_trained_is_held_against_nothing():
    """Fails if inputs are said to be off a mean of 0 and a variance of 1 that no training has made."""
    layer = site(ROWS, gamma=1, beta=0, running_mean=0, running_var=1)
    page = bnprobe.report(recording(layer))._page
    (section,) = next(section for section in page.sections if section.id == "layers").parts
    (rows,) = (block.rows for block in section.blocks if isinstance(block, blocks.Facts))
    assert ("running statistics", "never updated") in rows
    assert not {"mean off by (rms)", "variance"} & {name for name, _ in rows}


def test_the_table_of_a_layer_calls_roles_as_sentences_do():
    """Fails if paper and readers without scripts get the values of the column, as "mixed"."""
    norm = site(
        ROWS, "a", gamma=[1e-4, 1, 1], beta=0.1, neighbours=Neighbours("relu", "conv"), **memory_of(ROWS)
    )
    table = telling_table(bnprobe.report(recording(norm)).channels)
    at = [head for head, _ in table.heads].index("role")
    assert {row[at].text for row in table.rows} == {"nearly constant", "active"}


def fits(r2: float, **controls: float) -> pd.DataFrame:
    names = {f"implied_r2_{name}": controls.get(name, np.nan) for name in CONTROLS}
    return pd.DataFrame({"layer": ["bn"], "call": 0, "implied_mean_r2": [r2], **names})


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (fits(0.9, permuted=0.1), True),
        (fits(0.9, permuted=0.895), False),
        (fits(0.49, permuted=0.1), False),
        (fits(np.nan), False),
    ],
    ids=["fits", "a control does as well", "does not fit", "unknown"],
)
def test_what_was_implied_is_a_fact_only_where_it_holds(table: pd.DataFrame, told: bool):
    """Fails if the cover claims what the chapter calls unclear."""
    found = learned._implied(table)
    assert bool(found) is told
    if told:
        assert "explain 90% of their variation" in found[0].says


def test_at_most_five_facts():
    """Fails if the list grows with the number of chapters."""
    assert learned.MOST == 5
    assert len(facts(labelled(ROWS, "a"), labelled(ROWS * 2, "b"))) <= learned.MOST
