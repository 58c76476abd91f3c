"""The embedded demo: its weights, digits and stated accuracy belong together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from support.checkpoints import same
from support.paths import ROOT

from bnprobe import models
from bnprobe.models.image_folder import demo_images
from bnprobe.report.study import Study

from .specimens import share_right


def test_demo_is_as_good_as_it_says():
    """Fails if weights, digits, preprocessing and the stated accuracy do not belong together."""
    subject, facts = models.demo(), models.demo_facts()
    measured = share_right(subject, demo_images().batches(subject.preprocess, 90))
    assert measured == pytest.approx(facts["held_out_accuracy"], abs=1e-6)
    assert measured >= 0.97
    assert f"{measured:.1%} of the 360" in subject.weights
    assert "1,437 of the 1,797" in subject.weights
    assert not subject.model.training


def test_demo_data_is_small():
    assert sum(file.stat().st_size for file in models.DEMO_WEIGHTS.parent.iterdir()) < 2e6


def test_demo_weights_can_be_trained_again(monkeypatch):
    """Fails if training is not repeatable to the bit, or its held-out digits are not the shipped ones."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(ROOT))
    from scripts import train_demo

    seen, held_out = train_demo.split()
    assert np.array_equal(held_out.images, demo_images().pixels)
    assert held_out.labels.tolist() == list(demo_images().labels or ())
    assert not {image.tobytes() for image in seen.images} & {image.tobytes() for image in held_out.images}
    inputs, labels = (part[:192] for part in train_demo.prepared(seen))
    try:
        first, second = (train_demo.train(inputs, labels, epochs=1).state_dict() for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert same(first, second)


def test_the_shipped_study_is_measured_on_the_shipped_network(monkeypatch):
    """Fails if the study is of other weights or digits, or the page of the demo leaves it out."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(ROOT))
    from scripts import train_demo

    shipped, layer = Study.load(models.DEMO_STUDY), "features.0.1"
    assert shipped.model == models.demo().name
    assert not shipped.table["estimated"].any()
    digits = demo_images()
    held_out = train_demo.Digits(digits.pixels, np.array(digits.labels))
    again = train_demo.worth(models.demo().model, held_out, layer).table
    columns = ["vector", "replacement", "n", "before", "after"]
    kept = shipped.table[shipped.table["layer"] == layer][columns].reset_index(drop=True)
    own = again[again["layer"] == layer][columns].reset_index(drop=True)
    # one image more or less may fall to the other class on another processor
    pd.testing.assert_frame_equal(kept, own, rtol=0, atol=1.5 / 360)
