"""Files that earlier versions wrote: they load, and say what a recording of the same run says today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bnprobe
from bnprobe.recording import codec
from bnprobe.stats.fields import RECORDED
from recording.old import net

SCHEMA_1 = Path(net.__file__).with_name("schema_1.bnp")


@pytest.fixture(scope="module")
def old() -> bnprobe.Recording:
    return bnprobe.load(SCHEMA_1)


@pytest.fixture(scope="module")
def new(old) -> bnprobe.Recording:
    """The same run today, without the sums that were declared since."""
    run = net.record()
    since = dict.fromkeys(name for name in (*RECORDED, "tokens") if getattr(old.layers[0], name) is None)
    return replace(run, layers=tuple(replace(record, **since) for record in run.layers))


LATER = [
    *("input_dtype", "parameter_dtype", "formula_fits"),
    *("constant_rows", "zero_positions", "zero_rows", "saturated_outputs"),
    *("repeated_samples", "same_samples"),
    *("features_elsewhere", "n_last"),
    *("n_calls_labeled", "n_calls_one_class", "n_calls_in_order", "n_learned_in_eval", "first_nonfinite"),
    *("batch_effect", "batch_effect_least", "batches_recorded", "batches_different", "n_effective"),
    *("frozen", "stepped", "grad_scale"),
]
"""Columns of what was not recorded then."""


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Words exactly; numbers as far as another machine and another torch add up the same float32."""
    assert list(found.columns) == list(expected.columns)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-5, check_dtype=False)


def test_a_file_of_schema_1_says_what_it_said(old, new):
    """Fails if a field of an old file is dropped, or lands under another name: a run without random numbers is
    recorded again, and its tables are the second source."""
    assert codec.SCHEMA > 1
    then, now = bnprobe.report(old), bnprobe.report(new)
    assert then.layers["formula_fits"].isna().all()
    assert then.layers["n_calls_labeled"].isna().all()
    assert_same(then.layers.drop(columns=LATER), now.layers.drop(columns=LATER))
    assert_same(then.channels, now.channels)


@pytest.mark.parametrize("site", range(5))
def test_renamed_fields_are_there(old, new, site):
    """Fails if the parts whose fields were renamed since come back empty."""
    mine, theirs = old.layers[site], new.layers[site]
    assert (mine.layer, mine.call) == (theirs.layer, theirs.call)
    assert mine.neighbours is not None
    assert mine.neighbours.producer == theirs.neighbours.producer
    assert mine.call_log.n_calls_learning == 2
    assert (mine.gradient.producer is None) == (theirs.gradient.producer is None)
    assert old.integrity is not None
    assert old.integrity.changes == ()


def test_saving_again_writes_todays_schema(old, tmp_path):
    """Fails if a file that was read under old names is not one of today once it is saved."""
    path = old.save(tmp_path / "again.bnp")
    again = bnprobe.load(path)
    np.testing.assert_array_equal(again.layers[0].pre.mean, old.layers[0].pre.mean)
    assert b'"call_log"' in path.read_bytes().replace(b"\\", b"")
    assert b'"ledger"' not in path.read_bytes().replace(b"\\", b"")
