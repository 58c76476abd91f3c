"""Loss scaling: gradients are recorded unscaled, or a note says that they may not be."""

from __future__ import annotations

import pytest
import torch
from support.gradients import assert_same_gradients, loss_of
from support.models import BY_NAME, C
from support.runs import case_and_mode
from torch import nn

import bnprobe
from probe.backward.runs import images, probed, trained, wanted


@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
def test_a_loss_scaler_is_divided_out(training):
    """Fails if gradients stay scaled, are unscaled twice, or energy is not divided by the square."""
    case = BY_NAME["mixed"]
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    plain = trained(case, case.model(training), case.batches())
    model = case.model(training)
    with bnprobe.attach(model, scaler=scaler) as probe:
        for i, x in enumerate(case.batches()):
            torch.manual_seed(i)
            scaler.scale(loss_of(model(wanted(x)))).backward()
    for found, expected in zip(probe.recording.layers, plain.layers, strict=True):
        assert_same_gradients(found.gradient, expected.gradient, rtol=1e-12)
    assert plain.layers[0].gradient.producer is not None


def test_a_scaler_whose_scale_changes_between_passes():
    """Fails if the scale is read once: it grows and halves during training."""
    case = BY_NAME["mixed"]

    class Changing:
        scale = 2.0

        def get_scale(self) -> float:
            return self.scale

    plain = trained(case, case.model(True), case.batches())
    model, scaler = case.model(True), Changing()
    with bnprobe.attach(model, scaler=scaler) as probe:
        for i, x in enumerate(case.batches()):
            torch.manual_seed(i)
            scaler.scale = 2.0 ** (3 * i)
            (loss_of(model(wanted(x))) * scaler.scale).backward()
            scaler.scale = 7.0  # as update() may, after the pass
    for found, expected in zip(probe.recording.layers, plain.layers, strict=True):
        assert_same_gradients(found.gradient, expected.gradient, rtol=1e-12)


def test_a_scaler_that_is_switched_off_scales_nothing():
    """Fails if enabled=False is not respected."""
    model, x = BY_NAME["batch norm"].model(True), images()
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0, enabled=False)
    with bnprobe.attach(model, scaler=scaler) as probe:
        scaler.scale(loss_of(model(wanted(x)))).backward()
    again = BY_NAME["batch norm"].model(True)
    expected = probed(again, lambda: loss_of(again(wanted(x)))).layers[0].gradient
    assert_same_gradients(probe.recording.layers[0].gradient, expected)


@pytest.mark.parametrize(
    ("dtype", "with_scaler", "noted"),
    [(torch.float16, False, True), (torch.float16, True, False), (torch.bfloat16, False, False)],
    ids=["float16", "float16 with scaler", "bfloat16"],
)
def test_a_note_where_gradients_may_be_scaled(dtype, with_scaler, noted):
    """Fails if scaled gradients are shown without a word, or bfloat16, which needs no scaler, is warned of."""
    model = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if with_scaler else None
    with bnprobe.attach(model, scaler=scaler) as probe:
        with torch.autocast("cpu", dtype=dtype):
            y = model(images(4, dtype=torch.float32))
        assert not any("scale" in note for note in probe.recording.about.notes), "no gradient yet"
        y.float().sum().backward()
    notes = [note for note in probe.recording.about.notes if "attach(model, scaler=...)" in note]
    assert len(notes) == noted
