"""No recording makes a rule raise: missing fields, no images, NaN and infinity everywhere, one channel, 1e-300."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measures.sites import POOLS, call_log, gradient, recording, site, some_rows

from bnprobe.checkpoints.records import without_calls
from bnprobe.measures import tables
from bnprobe.recording import LayerRecord, Normalize, Recording
from bnprobe.recording.neighbours import Folded, Neighbours, Stem
from bnprobe.rules import RULES, judge
from bnprobe.rules.rule import Evidence
from bnprobe.severity import SEVERITIES

AWKWARD = (0.0, 1.0, -1.0, 0.5, 1e-300, -1e-30, 1e5, 7e4, 1e300, np.nan, np.inf, -np.inf)
FOLLOWS = ("relu", "relu6", "gelu", "add", "add, relu", "relu | add", "none", "unknown", "hardtanh(-1,1)")
NAMES = ("bn1", "a.b", "", "layer one")


@st.composite
def vectors(draw: st.DrawFn, c: int, missing: bool = True) -> Any:
    """A vector of awkward numbers, one of them for all channels now and then, or None."""
    shape = draw(st.sampled_from(("each", "all", "none" if missing else "all")))
    if shape == "none":
        return None
    if shape == "all":
        return np.full(c, draw(st.sampled_from(AWKWARD)))
    return np.array([draw(st.sampled_from(AWKWARD)) for _ in range(c)])


@st.composite
def ledgers(draw: st.DrawFn, c: int) -> Any:
    number = st.sampled_from((0, 1, 2, 7))
    return call_log(
        n_calls_learning=draw(number),
        n_calls_model_training=draw(number),
        n_calls_labeled=draw(number),
        n_calls_one_class=draw(number),
        n_calls_in_order=draw(number),
        n_learned_in_eval=draw(number),
        fewest_values=draw(st.sampled_from((None, 0.5, 1.0, 2.0, 31.0, 1e9))),
        fewest_call=draw(number),
        fewest_images=draw(number),
        first_nonfinite=draw(st.one_of(st.none(), number)),
        n_updates=draw(st.one_of(st.none(), number)),
        gamma_learns=draw(st.sampled_from((None, True, False))),
        beta_learns=draw(st.sampled_from((None, True, False))),
        running_mean_after=draw(vectors(c)),
        running_var_after=draw(vectors(c)),
    )


@st.composite
def neighbours_of(draw: st.DrawFn, c: int) -> Neighbours:
    row = vectors(c, missing=False)
    folded = Folded(draw(row), draw(row), draw(row), draw(vectors(c)))
    n_inputs = draw(st.sampled_from((1, 3)))
    matrix = np.stack([draw(row) for _ in range(n_inputs)], axis=1)
    return Neighbours(
        draw(st.sampled_from(FOLLOWS)),
        draw(st.sampled_from(("", "conv"))),
        skip=draw(st.sampled_from(("", "bn0"))),
        features_elsewhere=draw(st.sampled_from(("", "recurrent before, linear after"))),
        n_last=draw(st.sampled_from((0, 7))),
        folded=draw(st.sampled_from((None, folded))),
        stem=draw(st.sampled_from((None, Stem(matrix, draw(vectors(c)))))),
        skip_var=draw(vectors(c)),
        skip_var_initial=draw(vectors(c)),
    )


@st.composite
def records(draw: st.DrawFn, layer: str, call: int) -> LayerRecord:
    c, n = draw(st.sampled_from((1, 2, 5))), draw(st.sampled_from((1, 2, 40)))
    rows = np.random.default_rng(draw(st.integers(0, 9))).normal(size=(n, c, draw(st.sampled_from((1, 4)))))
    rows = rows * np.abs(draw(st.sampled_from(AWKWARD[:9])))
    if draw(st.booleans()):
        rows.flat[:: draw(st.sampled_from((1, 3)))] = draw(st.sampled_from(AWKWARD))
    stored = {name: draw(vectors(c)) for name in ("gamma", "beta", "running_mean", "running_var")}
    kind = draw(st.sampled_from(list(POOLS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the oracle that makes the record
        record = site(
            rows,
            layer,
            kind,
            call=call,
            momentum=draw(st.sampled_from((None, 0.0, 0.1, 0.9, 1.0, np.nan))),
            n_batches_tracked=draw(st.sampled_from((None, 0, 1, 10**12))),
            eps=draw(st.sampled_from((0.0, 1e-5, 1e300))),
            n_calls_training=draw(st.sampled_from((0, 1))),
            mismatch=draw(st.sampled_from((0.0, 0.5, np.nan, np.inf))),
            output=draw(st.sampled_from(("read", "derived"))),
            class_name=draw(st.sampled_from(("BatchNorm2d", "SyncBatchNorm"))),
            call_log=draw(st.one_of(st.none(), ledgers(c))),
            neighbours=draw(st.one_of(st.none(), neighbours_of(c))),
            gradient=draw(
                st.one_of(st.none(), st.just(gradient(rows, n_passes=draw(st.sampled_from((1, 9))))))
            ),
            **stored,
        )
    return without_calls(record) if draw(st.integers(0, 4)) == 0 else record


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=2))
    layers = [draw(records(name, names[:i].count(name))) for i, name in enumerate(names)]
    some = st.sampled_from(((), ("x",), ("bn1", "y (Odd)")))
    return recording(
        *layers,
        never_called=draw(some),
        not_understood=draw(some),
        folded=draw(some),
        normalize=draw(
            st.sampled_from((None, Normalize((0.5,) * 3, (0.2,) * 3), Normalize((0.1,), (1e-300,))))
        ),
    )


@pytest.mark.insane  # values of 1e300, whose squares no number holds
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(recordings())
def test_no_recording_makes_a_rule_raise(whole):
    """Fails if a rule takes NaN for a number, divides by nothing, or expects a first row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow in measures of 1e300
        measured = tables(whole)
    evidence = Evidence.of(measured)
    for rule in RULES:
        for finding in rule.find(evidence):
            assert finding.severity in SEVERITIES
            for words in (finding.says, finding.because, finding.do):
                assert words.endswith("."), (rule.id, words)
    assert len(judge(measured)) >= 0


def test_every_field_of_a_call_log_is_drawn():
    """Fails if a new field of the call log is never missing or odd in the test above."""
    drawn = {field.name for field in fields(call_log())}
    assert drawn == {
        *(
            "n_calls_learning",
            "n_calls_model_training",
            "n_calls_labeled",
            "n_calls_one_class",
            "n_calls_in_order",
            "n_learned_in_eval",
            "n_ranks",
            "fewest_values",
            "fewest_call",
            "fewest_images",
            "first_nonfinite",
        ),
        *("gamma_learns", "beta_learns", "n_updates", "running_mean_after", "running_var_after"),
    }


def test_a_negative_variance_and_what_no_half_holds():
    """Fails if the root of a negative running variance, which Python makes complex, is compared with a number."""
    rows = some_rows() * 1e5
    judge(tables(recording(site(rows, gamma=1, beta=0, running_mean=0, running_var=-1))))
