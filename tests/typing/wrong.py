"""Uses that a type checker must refuse, each for the reason behind it; nothing here is run.

Where versions of mypy have different codes for one reason, both stand there.
"""

import torch
from torch import nn

import bnprobe
from bnprobe import Attach  # expect: attr-defined


class Scale(nn.Module):
    """A norm of the user's own."""


def describe(module: nn.BatchNorm2d) -> bnprobe.NormLayer:
    """Of another class."""
    return bnprobe.NormLayer("mine", "batch", 3, 1e-5)


def name(module: Scale) -> str:
    """Returns no description."""
    return "scale"


def use(model: nn.Module, probe: bnprobe.Probe, recording: bnprobe.Recording, report: bnprobe.Report) -> None:
    """Each line is wrong once."""
    bnprobe.atach(model)  # expect: attr-defined
    bnprobe.attach(3)  # expect: arg-type
    bnprobe.attach(model, foo=1)  # expect: call-arg
    bnprobe.attach(model, "layer4.*")  # expect: call-arg or misc
    bnprobe.attach(model, layers=4)  # expect: arg-type
    bnprobe.attach(model, histograms="yes")  # expect: arg-type
    bnprobe.attach(model, scaler=2.0)  # expect: arg-type
    bnprobe.attach(model, normalize=[0.5, 0.2])  # expect: arg-type
    probe.recordings  # expect: attr-defined
    probe.labels("cat")  # expect: arg-type
    probe.labels([0.5])  # expect: list-item
    probe.recording = recording  # expect: misc
    bnprobe.record(model)  # expect: call-arg
    bnprobe.record(model, 3)  # expect: arg-type
    bnprobe.record(model, [], "cross_entropy")  # expect: arg-type
    bnprobe.record(model, [], n_images="10")  # expect: arg-type
    recording.merge("other.bnp")  # expect: arg-type
    bnprobe.gather("run.bnp")  # expect: arg-type
    recording.save(3)  # expect: arg-type
    recording.layers = ()  # expect: misc
    bnprobe.load(torch.ones(3))  # expect: arg-type
    bnprobe.report(model)  # expect: arg-type
    bnprobe.report(probe, "settings.toml")  # expect: call-arg or misc
    bnprobe.report(probe, settings="settings.toml")  # expect: call-arg
    report.tables  # expect: attr-defined
    report.to_html()  # expect: call-arg
    report.to_text("80")  # expect: arg-type
    report.plot(y=3)  # expect: arg-type
    bnprobe.check(model)  # expect: arg-type
    bnprobe.check({1: 2})  # expect: dict-item
    bnprobe.compare(probe)  # expect: call-arg
    bnprobe.compare(probe, 3)  # expect: arg-type
    bnprobe.compare(probe, probe).difference  # expect: attr-defined
    bnprobe.register_norm(Scale, describe)  # expect: arg-type
    bnprobe.register_norm(Scale, name)  # expect: arg-type
    bnprobe.register_norm(3, describe)  # expect: arg-type
    bnprobe.NormLayer("mine", "batch")  # expect: call-arg
    bnprobe.NormLayer("mine", "batch", 3, 1e-5, momentum="0.1")  # expect: arg-type
