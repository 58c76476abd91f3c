"""The options of `attach`: checked in one place, the same for `attach` and `record`."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest
import torch
from support.models import C
from torch import nn

import bnprobe
from bnprobe import BnprobeError
from bnprobe.probe.options import AttachOptions
from bnprobe.recording import Normalize

ONLY_WITH_A_LOOP_OF_ONES_OWN = {"gradients", "scaler", "phase"}
"""`record` has a loss, scales none, and continues no sequences with a cache."""


def test_attach_and_record_take_the_same_options():
    """Fails if an option is added in one of the three places only, or has another default there."""
    options = {one.name: one.default for one in fields(AttachOptions) if one.init}
    parameters = {
        function: {name: p.default for name, p in inspect.signature(function).parameters.items()}
        for function in (bnprobe.attach, bnprobe.record)
    }
    of_attach = parameters[bnprobe.attach]
    assert of_attach.pop("model") is inspect.Parameter.empty
    assert of_attach == options
    of_record = {name: value for name, value in parameters[bnprobe.record].items() if name in options}
    assert of_record == {
        name: value for name, value in options.items() if name not in ONLY_WITH_A_LOOP_OF_ONES_OWN
    }


@pytest.mark.parametrize(
    ("layers", "patterns"),
    [
        (None, None),
        ("layer4.*", ("layer4.*",)),
        (["a", "b"], ("a", "b")),
        ((name for name in "ab"), ("a", "b")),
    ],
    ids=["none", "one", "list", "generator"],
)
def test_patterns(layers: Any, patterns: tuple[str, ...] | None):
    """Fails if one pattern is taken for its letters, or a generator is read twice."""
    assert AttachOptions(layers=layers).patterns == patterns


def test_constants():
    """Fails if mean and std change places, or whole numbers stay whole."""
    assert AttachOptions().constants is None
    assert AttachOptions(normalize=([0, 1], [1, 2])).constants == Normalize((0.0, 1.0), (1.0, 2.0))


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"layers": 5}, "Pass a path or a shell-style pattern"),
        ({"layers": [nn.ReLU()]}, "Pass a path or a shell-style pattern"),
        ({"layers": []}, "Omit it to record all norms"),
        ({"normalize": (0.5, 0.5)}, r"Pass \(mean, std\)"),
        ({"normalize": ((0.5,),)}, r"Pass \(mean, std\)"),
        ({"normalize": (("a",), (1.0,))}, r"Pass \(mean, std\)"),
        ({"normalize": ((0.5, 0.5), (1.0,))}, "one number of each per channel"),
        ({"scaler": 1024.0}, "Pass the loss scaler itself"),
        ({"phase": "val"}, "for others run the passes inside with probe.phase"),
        ({"training_batch": 0}, "Pass the samples per batch and device"),
        *(({"every": value}, "Pass 10 to record every tenth") for value in (0, -3, 2.0, True, None, "2")),
        *(({"until": value}, "Pass 100 to record no more than") for value in (0, -3, 2.0, True, "2")),
    ],
    ids=str,
)
def test_a_wrong_option_says_what_to_give(options: dict[str, Any], advice: str):
    """Fails if a wrong option is believed, and fails later, in the middle of the user's own pass."""
    with pytest.raises(BnprobeError, match=advice):
        AttachOptions(**options)
    with pytest.raises(BnprobeError, match=advice):
        bnprobe.attach(nn.Sequential(nn.BatchNorm2d(3)), **options)


def test_a_scaler_is_what_has_a_scale():
    """Fails if torch's own loss scaler is refused."""
    scaler = torch.amp.GradScaler("cpu")
    assert AttachOptions(scaler=scaler).scaler is scaler


@pytest.mark.parametrize(
    ("layers", "word"), [(3, "not a path"), ([3], "not a path"), ([], "empty"), ((), "empty")]
)
def test_layers_that_name_nothing_are_refused(layers, word):
    """Fails if a slip in `layers` ends in a TypeError, or in a probe of nothing."""
    with pytest.raises(BnprobeError, match=word):
        bnprobe.attach(nn.Sequential(nn.BatchNorm2d(C)), layers=layers)


@pytest.mark.parametrize("name", ["histograms", "gradients"])
def test_switches_are_true_or_false(name):
    """Fails if a word such as "no" switches something on."""
    with pytest.raises(BnprobeError, match=f"{name}='no' is neither True nor False"):
        AttachOptions(**{name: "no"})
