"""The size of training's batches: kept with every site, in files and merges, and refused where it is none."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from measures import drawn
from measures.sites import recording, running_stats_of, site, some_rows
from torch import nn

import bnprobe
from bnprobe import BnprobeError
from bnprobe.measures import scale, shift
from bnprobe.recording import Recording, training_batch

ROWS = some_rows(12)
NONE = (0, -1, -32, 1.5, 32.0, True, "32", Fraction(5), float("nan"), [32])


def of(batch: int | None) -> Recording:
    record = site(ROWS, momentum=0.2, **running_stats_of(ROWS))
    return recording(record, record_of_layer_norm()).with_training_batch(batch)


def record_of_layer_norm():
    return site(ROWS, layer="ln", kind="layer_norm")


def model() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3)).eval()


@pytest.mark.parametrize("wrong", NONE, ids=str)
def test_what_is_no_size_is_refused_in_one_line(wrong):
    """Fails if 0, a negative number or a fraction makes an error infinite, NaN, or a traceback from the middle of a run."""
    for call in (
        lambda: bnprobe.attach(model(), training_batch=wrong),
        lambda: bnprobe.record(model(), [torch.randn(4, 3)], training_batch=wrong),
        lambda: bnprobe.report(of(None), training_batch=wrong),
        lambda: of(wrong),
    ):
        with pytest.raises(BnprobeError, match="is not a whole number of at least 1") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_it_is_kept_by_probes_files_and_reports(tmp_path):
    """Fails if one way of giving it is lost; a size that a report is given replaces that of the recording."""
    x = [torch.randn(4, 3)]
    net = model()
    with bnprobe.attach(net, training_batch=np.int64(8)) as probe:
        net(x[0])
    assert [record.training_batch for record in probe.recording.layers] == [8, 8]
    run = bnprobe.record(model(), x, training_batch=8)
    again = bnprobe.load(run.save(tmp_path / "run.bnp"))
    assert [record.training_batch for record in again.layers] == [8, 8]
    assert type(again.layers[0].training_batch) is int
    for batch, given in ((8, None), (64, 64)):
        layers = bnprobe.report(again, training_batch=given).layers
        assert layers["training_batch"].tolist() == pytest.approx([batch, np.nan], nan_ok=True)
        assert layers["n_running"].tolist() == pytest.approx([19 * batch, np.nan], nan_ok=True)


@pytest.mark.parametrize("mine", [None, 8, 32])
@pytest.mark.parametrize("theirs", [None, 8, 32])
def test_parts_keep_the_smaller(mine, theirs):
    """Fails if a part that says nothing erases what the other says, or the order of parts matters."""
    known = [batch for batch in (mine, theirs) if batch is not None]
    merged = of(mine).merge(of(theirs))
    assert {record.training_batch for record in merged.layers} == {min(known) if known else None}
    assert training_batch.merged(mine, theirs) == merged.layers[0].training_batch


@pytest.mark.parametrize(("batch", "images"), [(None, 9 * 32), (8, 9 * 8), (256, 9 * 256)])
def test_the_errors_use_it(batch, images):
    """Fails if an error keeps to the assumed 32: momentum 0.2 averages 9 batches."""
    record = of(batch).layers[0]
    found = {**shift.channel_columns(record), **scale.channel_columns(record)}
    between, var = ROWS.mean(2).var(0, ddof=1), ROWS.var((0, 2))
    squares = ((ROWS - ROWS.mean((0, 2))[:, None]) ** 2).mean(2).var(0, ddof=1)
    part = np.sqrt(1 / 12 + 1 / images)
    np.testing.assert_allclose(found["shift_se"], np.sqrt(between / (var + 1e-5)) * part, rtol=1e-9)
    expected = np.sqrt(squares * var / (var + 1e-5)) / (2 * var) * part
    np.testing.assert_allclose(found["scale_se"], expected, rtol=1e-9)


@pytest.mark.parametrize("batch", [8, 32, 128])
def test_z_has_variance_one_where_the_size_is_right(batch):
    """Fails if the noise or the bias of running variances is that of batches of 32: 30 trainings, 24 channels each."""
    rng = np.random.default_rng(batch)
    z = []
    for _ in range(30):
        learned = drawn.statistics(rng, batch=batch, common=0.0)
        record = drawn.record_of(drawn.images(rng, 1000, common=0.0), **learned)
        (record,) = recording(record).with_training_batch(batch).layers
        z.append([shift.channel_columns(record)["shift_z"], scale.channel_columns(record)["scale_z"]])
    for of_one in np.swapaxes(z, 0, 1):
        assert 0.85 < of_one.std() < 1.2
        # channels share the contrast of their images: 30 trainings are worth little more than 30 independent z
        assert abs(of_one.mean()) < 0.5


def test_a_batch_of_one_value_has_no_variance():
    """Fails if a scale is called surely smaller, because a batch of one sample with one value would store none."""
    rows = some_rows(12, n_positions=1)
    (record,) = recording(site(rows, **running_stats_of(rows))).with_training_batch(1).layers
    assert np.isnan(scale.channel_columns(record)["scale_p"]).all()
    assert np.isfinite(shift.channel_columns(record)["shift_p"]).all()
