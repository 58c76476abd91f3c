"""Uses of the public API that a type checker must accept as they are; nothing here is run."""

from pathlib import Path
from typing import Any, assert_type

import matplotlib.axes
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

import bnprobe
from bnprobe import BnprobeError, Interrupted, Recording


class Scale(nn.Module):
    """A norm of the user's own."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_channels))


def describe(module: Scale) -> bnprobe.NormLayer:
    """Takes the user's class, not any module."""
    return bnprobe.NormLayer(
        "scale", "channels", module.gain.numel(), 1e-6, weight=module.gain, centred=False
    )


def record_all(model: nn.Module, batches: list[tuple[Tensor, Tensor]], path: Path) -> None:
    """From a model to a recording."""
    assert_type(bnprobe.__version__, str)
    bnprobe.register_norm(Scale, describe)
    with bnprobe.attach(model) as probe:
        assert_type(probe, bnprobe.Probe)
        for x, y in batches:
            with probe.labels(y):
                model(x)
    probe = bnprobe.attach(model, layers=["layer4.*"], histograms=False, scaler=GradScaler())
    with probe, probe.labels([0, 1, None]), probe.labels(np.array([1, 2])):
        model(batches[0][0])
    probe.detach()
    assert_type(probe.n_images, int)
    assert_type(probe.recording, Recording)
    recording = bnprobe.record(model, batches, nn.functional.cross_entropy, layers="layer4.*", n_images=10)
    assert_type(recording, Recording)
    assert_type(recording.save(path), Path)
    assert_type(bnprobe.load(str(path)).merge(recording), Recording)
    assert_type(bnprobe.gather(recording), Recording)
    bnprobe.gather(recording, group=torch.distributed.group.WORLD)
    assert_type(recording.about.n_images, int)
    try:
        bnprobe.record(model, (x for x, _ in batches), normalize=([0.5], [0.2]))
    except Interrupted as stop:
        assert_type(stop.recording, Recording)
    except BnprobeError as error:
        print(error)


def look(model: nn.Module, probe: bnprobe.Probe, path: Path) -> None:
    """From a recording to tables and pages."""
    report = bnprobe.report(probe)
    assert_type(report, bnprobe.Report)
    assert_type(report.layers, pd.DataFrame)
    assert_type(report.channels, pd.DataFrame)
    assert_type(report.findings, pd.DataFrame)
    assert_type(report.gradient_imbalance, float)
    assert_type(report.stem.mean_rgb, tuple[float, float, float] | None)
    assert_type(report.plot("gamma", layer="bn1"), matplotlib.axes.Axes)
    assert_type(report.figures.save(path), list[Path])
    assert_type(report.to_html("page.html"), Path)
    assert_type(report.to_text(80), str)
    assert_type(report.summary(), str)
    for source in (probe.recording, path, "run.bnp", report):
        bnprobe.report(source, config="pyproject.toml")
    assert_type(bnprobe.check(model.state_dict()), bnprobe.Report)
    bnprobe.check("model.safetensors", arch="torchvision:resnet50")


def compare(model: nn.Module, probe: bnprobe.Probe, state: dict[str, Tensor]) -> None:
    """Two sides."""
    comparison = bnprobe.compare(probe, "after.bnp")
    assert_type(comparison, bnprobe.Comparison)
    assert_type(comparison.identical, bool)
    assert_type(comparison.unmatched, pd.DataFrame)
    assert_type(comparison.answer, tuple[str, ...])
    if comparison.opens is not None:
        assert_type(comparison.opens.layer, str)
    bnprobe.compare(state, model.state_dict())
    bnprobe.compare(bnprobe.report(probe), Path("model.pt"), config=Path("settings.toml"))


def catch(errors: tuple[type[BnprobeError], ...] = (bnprobe.BadLabels, bnprobe.NoNormLayers)) -> Any:
    """Errors are classes of one family."""
    return errors
