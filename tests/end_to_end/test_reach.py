"""Values of float64 whose powers no float64 holds: what can be known is, and the recording is saved, loaded and shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe


@pytest.mark.parametrize("cut", [(6,), (4, 2)], ids=["one batch", "two"])
@pytest.mark.parametrize("size", [1e-300, 1e-80, 1e60, 1e71, 1e80, 1e150, 1e160, 1e300])
def test_values_without_a_fourth_power(size, cut, tmp_path):
    """Fails if they cost the file, come out as a variance of zero, or as a number that is not theirs."""
    model = nn.Sequential(nn.BatchNorm2d(3)).double().eval()
    x = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    recording = bnprobe.record(model, [(size * part, None) for part in x.split(cut)])
    recording.save(tmp_path / "far.bnp")
    report = bnprobe.report(bnprobe.load(tmp_path / "far.bnp"))
    rows = x.numpy().transpose(1, 0, 2, 3).reshape(3, -1)
    channels = report.channels
    np.testing.assert_allclose(channels["pre_mean"] / size, rows.mean(1), atol=1e-12)
    np.testing.assert_allclose(channels["pre_max"] / size, rows.max(1), rtol=1e-12)
    # what is 1 for the values themselves; as wide as it gets once squares have no float64
    variance = rows.var(1) * np.float64(size) ** 2 if size < 1e154 else np.full(3, np.inf)
    np.testing.assert_allclose(channels["pre_var"], variance, rtol=1e-9)
    if 1e-70 < size < 1e70:
        kurtosis = ((rows - rows.mean(1, keepdims=True)) ** 4).mean(1) / rows.var(1) ** 2 - 3
        np.testing.assert_allclose(channels["pre_kurtosis"], kurtosis, rtol=1e-9)
    assert report.to_html(tmp_path / "far.html").stat().st_size
