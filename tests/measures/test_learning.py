"""What of a norm could learn, and did, beside the rest of the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.measures import learning
from bnprobe.recording import Recording
from bnprobe.recording.integrity import Change, IntegrityReport
from bnprobe.recording.tensors import TensorTable
from measures.sites import call_log, recording, site, some_rows

NAN = float("nan")
ROWS = some_rows(7)


@pytest.mark.parametrize(
    ("gamma", "beta", "n_learning", "frozen"),
    [
        (False, False, 5, 1.0),
        (False, None, 5, 1.0),
        (False, False, 0, 0.0),
        (False, False, None, NAN),
        (True, False, 5, 0.0),
        (None, None, 5, NAN),
    ],
)
def test_what_is_frozen_on_purpose(gamma, beta, n_learning, frozen):
    """Fails if a model none of whose parameters learns counts as frozen in part, or a missing vector as one that learns."""
    layer = site(ROWS, call_log=call_log(gamma_learns=gamma, beta_learns=beta))
    np.testing.assert_equal(
        learning.site_columns(recording(layer, n_learning=n_learning))["frozen"], [frozen]
    )
    no_log = recording(replace(layer, call_log=None), n_learning=5)
    assert np.isnan(learning.site_columns(no_log)["frozen"]).all()


def changed(*changes: Change, names: tuple[str, ...] = ("bn.weight", "head.weight")) -> Recording:
    """A recording of the norm `bn` after which this had changed."""
    report = IntegrityReport(2, 0, 8, 2, 0.1, changes)
    zeros = np.zeros(len(names))
    table = TensorTable(names, ("float32",) * len(names), ("3",) * len(names), zeros, zeros)
    return replace(recording(site(ROWS, "bn")), integrity=report, tensors=table)


def parameters(*names: str) -> Change:
    return Change("parameters", names)


@pytest.mark.parametrize(
    ("found", "stepped"),
    [
        (changed(parameters("head.weight")), 0.0),
        (changed(parameters("bn.weight", "head.weight")), 1.0),
        (changed(parameters("bn1.weight")), 0.0),
        (changed(), NAN),
        (changed(Change("buffers", ("head.mean",))), NAN),
        (changed(Change("parameters", ("head.weight",), "a lazy layer")), NAN),
        (changed(parameters("_orig_mod.head.weight")), NAN),
        (changed(parameters("head.weight"), names=("head.weight",)), NAN),
        (replace(changed(parameters("head.weight")), tensors=None), NAN),
        (replace(changed(parameters("head.weight")), integrity=None), NAN),
    ],
)
def test_whether_steps_changed_a_norm(found, stepped):
    """Fails if running statistics count as learning, or a name that is not the site's says that the site stands still."""
    np.testing.assert_equal(learning.site_columns(found)["stepped"], [stepped])


def test_parameters_that_learn_are_counted_at_the_start():
    """Fails if frozen parameters count, or those that are frozen later do not."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model[1].requires_grad_(False)
    with bnprobe.attach(model) as probe:
        model(torch.randn(6, 4))
        model.requires_grad_(False)
    assert probe.recording.about.n_learning == 15
    one = probe.recording.about
    assert one.merge(one).n_learning == 15
    assert one.merge(replace(one, n_learning=3)).n_learning is None
