"""The tables: every column against its reference from raw tensors, the contract, and the glossary."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from support.models import BY_NAME, CASES, Case
from support.reference_probe import ReferenceProbe

import bnprobe
from bnprobe.measures import glossary, tables
from bnprobe.measures.tables import by_site
from bnprobe.recording import Recording
from bnprobe.recording.tensors import TensorTable
from measures import reference
from measures.expected import assert_tables_true
from measures.sites import recording, running_stats_of, site, some_rows

CHANNELS = {
    "layer": "O",
    "call": "i",
    "channel": "i",
    "kind": "O",
    "gamma": "f",
    "beta": "f",
    "running_mean": "f",
    "running_var": "f",
    "n_values": "i",
    "n_nonfinite": "i",
    **{f"{s}_{n}": "f" for s in ("pre", "post") for n in ("mean", "var", "skew", "kurtosis", "min", "max")},
    "fires": "f",
    "shift": "f",
    "scale_ratio": "f",
    "kl": "f",
    "shift_z": "f",
    "shift_q": "f",
}
LAYERS = {
    "layer": "O",
    "call": "i",
    "kind": "O",
    "n_channels": "i",
    "n_calls": "i",
    "n_values": "i",
    "mode": "O",
}
"""The contract: columns that must be there, and what they hold."""


def dtype_kind(column: pd.Series) -> str:
    """O for words, however pandas stores them."""
    return "O" if column.dtype.kind in "OUT" or pd.api.types.is_string_dtype(column) else column.dtype.kind


def recorded(case: Case, training: bool) -> tuple[Recording, ReferenceProbe]:
    """A recording and the raw tensors of the same calls."""
    model = case.model(training)
    kept = ReferenceProbe(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x in case.batches():
            with kept.watching():
                case.call(model, x)
    return probe.recording, kept


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_column_agrees_with_its_reference(case, training):
    """Fails if any formula, divisor, sign, axis or order of channels is wrong in any column of any kind of norm."""
    found, kept = recorded(case, training)
    assert_tables_true(found, case.norms, kept)


def test_q_is_of_the_whole_network():
    """Fails if each norm is a family of its own: of 40 norms that match, some channel would be called shifted in most
    recordings. With a shift elsewhere the others' q may only fall."""
    rng = np.random.default_rng(2)
    sites = [
        site(x, f"n{i}", **running_stats_of(x + 0.3 * rng.normal(size=(1, 3, 1))), eps=0.0)
        for i, x in enumerate(rng.normal(size=(40, 30, 3, 4)))
    ]
    whole = tables(recording(*sites)).channels
    p = np.concatenate([whole["shift_p"], whole["scale_p"]])
    q = np.concatenate([whole["shift_q"], whole["scale_q"]])
    np.testing.assert_allclose(q, reference.adjusted(p), rtol=1e-9)
    alone = pd.concat([tables(recording(one)).channels for one in sites], ignore_index=True)
    assert (alone["shift_q"] < whole["shift_q"]).any()
    np.testing.assert_array_equal(alone["shift_p"], whole["shift_p"])


@pytest.mark.parametrize(
    "name", ["mixed", "batch norm", "layer norm", "group norm", "instance norm", "RMS norm"]
)
def test_the_contract_holds_for_every_kind(name):
    """Fails if a column of the contract is renamed, left out for some kind, or changes its type."""
    found, _ = recorded(BY_NAME[name], False)
    measured = tables(found)
    for table, contract in ((measured.channels, CHANNELS), (measured.layers, LAYERS)):
        assert set(contract) <= set(table.columns)
        assert {column: dtype_kind(table[column]) for column in contract} == contract
        assert table.columns.is_unique
        assert table.index.tolist() == list(range(len(table)))


def test_columns_do_not_depend_on_what_was_recorded():
    """Fails if two reports of different networks cannot be put under one another."""
    heads = {name: tables(recorded(BY_NAME[name], False)[0]) for name in ("batch norm", "RMS norm", "mixed")}
    assert len({tuple(t.channels.columns) for t in heads.values()}) == 1
    assert len({tuple(t.layers.columns) for t in heads.values()}) == 1
    kinds = [{c: dtype_kind(t.channels[c]) for c in t.channels} for t in heads.values()]
    assert kinds[0] == kinds[1] == kinds[2]


def test_every_column_has_one_glossary_entry_and_every_entry_its_column():
    """Fails if a measure lands without its line for the reader, or a line outlives its measure."""
    measured = tables(recorded(BY_NAME["mixed"], False)[0])
    entries = glossary()
    assert len({entry.name for entry in entries}) == len(entries)
    assert {entry.table for entry in entries} == {"channels", "layers", "both"}
    for table, heads in (("channels", measured.channels.columns), ("layers", measured.layers.columns)):
        described = [entry.name for entry in entries if entry.table in (table, "both")]
        assert sorted(described) == sorted(heads), set(described) ^ set(heads)


@pytest.mark.parametrize("entry", glossary(), ids=lambda entry: entry.name)
def test_a_glossary_line_is_a_sentence(entry):
    """Fails if a meaning is a fragment, too long to be read under a pointer, or repeats the name only."""
    assert entry.meaning[0].isupper() or entry.meaning[0] in "γβ"
    assert entry.meaning.endswith(".")
    assert 15 <= len(entry.meaning) <= 130
    assert "{" not in entry.meaning
    assert entry.name.isidentifier()


def test_rows_stand_in_the_order_in_which_the_sites_were_reached():
    """Fails if sites are sorted by name, or calls of one layer are put together."""
    rows = some_rows()
    order = [("z", 0), ("a", 0), ("z", 1), ("m", 0)]
    measured = tables(recording(*(site(rows, name, call=call) for name, call in order)))
    assert list(zip(measured.layers["layer"], measured.layers["call"], strict=True)) == order
    found = list(zip(measured.channels["layer"], measured.channels["call"], strict=True))
    assert found == [place for place in order for _ in range(3)]
    assert measured.channels["channel"].tolist() == [0, 1, 2] * 4


def test_sites_are_parted_where_channels_are_counted_again():
    """Fails if a site takes a channel of its neighbour, or calls of one layer are taken together."""
    x = some_rows(8, 3)
    found = tables(recording(site(x, "b"), site(x[:, :1], "a"), site(x, "b", call=1))).channels
    wanted = [part for _, part in found.groupby(["layer", "call"], sort=False)]
    parts = by_site(found)
    assert [len(part) for part in parts] == [3, 1, 3]
    for part, one in zip(parts, wanted, strict=True):
        pd.testing.assert_frame_equal(part, one)


def test_layers_that_gave_no_numbers_are_told_with_the_reason():
    """Fails if the two reasons are swapped: their remedies differ."""
    found = tables(
        recording(site(some_rows()), never_called=("spare", "b"), not_understood=("odd (Strange)",))
    )
    assert found.unread[["layer", "why"]].values.tolist() == [
        ["spare", "never called"],
        ["b", "never called"],
        ["odd (Strange)", "not understood"],
    ]
    assert not found.unread["trained"].any()


def test_norms_that_were_not_called_may_have_learned():
    """Fails if what the sizes of the model's parameters say of a norm that no pass reached is not asked."""
    names = ("a.weight", "a.bias", "b.weight", "b.bias")
    sizes, sums = np.array([0.4, 0.3, 1.0, 0.0]), np.arange(4.0)
    tensors = TensorTable(names, ("float32",) * 4, ("3",) * 4, sums, sizes)
    whole = replace(recording(site(some_rows()), never_called=("a", "b")), tensors=tensors)
    assert list(tables(whole).unread["trained"]) == [True, False]


def test_a_recording_of_nothing_has_empty_tables():
    """Fails if a machine that saw nothing cannot be tabulated: columns stay, rows are none."""
    measured = tables(recording())
    assert len(measured.channels) == len(measured.layers) == len(measured.unread) == 0
    assert {"layer", "call", "channel", "kind"} <= set(measured.channels.columns)
    assert set(LAYERS) <= set(measured.layers.columns)


def test_modes_and_what_normalized():
    """Fails if the layer's flag and the statistics in use are taken for the same thing."""
    rows = some_rows()
    statistics = running_stats_of(rows)
    changes = [
        {"n_calls": 4},
        {"n_calls": 4, "n_calls_training": 4, "n_calls_running": 0},
        {"n_calls": 4, "n_calls_training": 1, "n_calls_running": 3},
        {"n_calls": 4, "n_calls_training": 4, "n_calls_running": 4},
    ]
    layers = [site(rows, str(i), **{"n_calls_running": 4, **c}, **statistics) for i, c in enumerate(changes)]
    found = tables(recording(*layers, site(rows, "ln", "layer_norm"))).layers
    assert found["mode"].tolist() == ["eval", "train", "mixed", "train", "eval"]
    assert found["normalized_by"].tolist() == ["running", "batch", "both", "running", "sample"]
    assert found["n_calls"].tolist() == [4, 4, 4, 4, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_counted_and_nowhere_else(value):
    """Fails if one NaN spoils the statistics of its channel, is not counted, or is counted as a value."""
    rows, spoilt = some_rows(), some_rows()
    spoilt[1, 2, 3:7] = value
    model = torch.nn.BatchNorm2d(3).double().eval()
    with bnprobe.attach(model) as probe:
        model(torch.tensor(spoilt)[..., None])
    found = tables(probe.recording).channels
    assert found["n_values"].tolist() == [70, 70, 66]
    assert found["n_nonfinite"].tolist() == [0, 0, 4]
    expected = reference.six(spoilt[:, 2].ravel())
    assert found["pre_mean"][2] == pytest.approx(expected["mean"], rel=1e-12)
    assert found["pre_var"][2] == pytest.approx(expected["var"], rel=1e-12)
    assert found["pre_var"][0] == pytest.approx(rows[:, 0].var(), rel=1e-12)
    assert tables(probe.recording).layers["n_nonfinite"].tolist() == [4]


def test_a_channel_without_a_finite_value_is_nan_and_not_zero():
    """Fails if "nothing seen" reads as mean 0, smallest value inf, or never positive."""
    rows = some_rows()
    rows[:, 1] = np.nan
    found = tables(recording(site(rows, gamma=1, beta=0, running_mean=0, running_var=1)))
    row = found.channels.iloc[1]
    undefined = [n for n in CHANNELS if n.startswith(("pre_", "post_"))] + [
        "fires",
        "shift",
        "scale_ratio",
        "kl",
    ]
    assert row[undefined].isna().all()
    assert row["n_values"] == 0
    assert found.channels.iloc[[0, 2]][undefined].notna().all(axis=None)
    assert found.layers["never_positive"][0] == (found.channels["fires"] == 0).sum()
    summaries = [
        "pre_sd_median",
        "fires_median",
        "shift_rms",
        "var_ratio_median",
        "kl_median",
        "shifted_share",
    ]
    assert found.layers[summaries].notna().all(axis=None)


def test_the_name_of_a_layer_is_held_once():
    """Fails if every channel has a copy of its layer's name, as in Arrow's strings: of a million channels, 100 MB."""
    channels = tables(recording(site(some_rows(), "a name that is long"))).channels
    first, second = (channels["layer"].iloc[i] for i in range(2))
    assert first == "a name that is long"
    assert first is second
