"""The one look at a model: what it finds, how often it walks the modules, and that no name of the user's is in its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from norms.test_module_tree import hide
from support.models import BY_NAME, C, FirstLayerNorm, Mixed, StrangeNorm, learn
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe import NoNormLayers
from bnprobe.probe.survey.survey import survey_of

BATCHES = BY_NAME["mixed"].batches()


class Swish(nn.Module):
    """A class of somebody's own, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


class Several(nn.Module):
    """Something of each sort that a survey tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1 = nn.Conv2d(C, C, 1), nn.Identity()
        nn.init.constant_(self.conv.bias.requires_grad_(False), 2.0)  # as fusing leaves it
        self.body = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C), Swish(), Swish())
        self.strange, self.out = StrangeNorm(), nn.GroupNorm(1, C)


@pytest.mark.parametrize(
    ("wrap", "compiled"),
    [
        (lambda model: model, False),
        (nn.DataParallel, False),
        (torch.compile, True),
        (lambda model: torch.compile(nn.DataParallel(model)), True),
        (lambda model: nn.DataParallel(torch.compile(model)), True),
    ],
    ids=["bare", "parallel", "compiled", "compiled parallel", "parallel compiled"],
)
def test_what_a_survey_finds(wrap: Any, compiled: bool):
    """Fails if the look misses a sort of module, or names one by the wrappers around the model."""
    inner = Several()
    survey = survey_of(wrap(inner))
    assert survey.model is inner
    assert survey.layers == {"body.1": inner.body[1], "out": inner.out}
    assert survey.layer_names() == {"body.1": "body.1", "out": "out"}
    assert survey.not_understood == {"strange": "StrangeNorm"}
    assert survey.folded == ("bn1",)
    assert survey.candidates == {"body.2": inner.body[2], "strange": inner.strange}
    assert survey.compiled is compiled
    assert list(dict(survey.named())) == list(dict(inner.named_modules()))


def test_what_patterns_leave_out():
    """Fails if a survey narrowed to some paths proposes layers elsewhere, or hooks a norm that was not asked for."""
    survey = survey_of(Several(), ["out"])
    assert list(survey.layers) == ["out"]
    assert survey.candidates == {}
    assert survey.not_understood == {"strange": "StrangeNorm"}, (
        "what is missing is said whatever was asked for"
    )


def test_a_part_that_was_compiled_keeps_its_path():
    """Fails if the names of wrappers inside the model are in the path of a layer, or the part is not seen to be compiled."""
    model = Several()
    model.body = torch.compile(model.body)
    survey = survey_of(model)
    assert list(survey.layers) == ["body.1", "out"]
    assert survey.layer_names() == {"body._orig_mod.1": "body.1", "out": "out"}
    assert survey.compiled
    assert not survey_of(model, ["out"]).compiled, "the only layer that was asked for is not in it"


# How often the modules are walked


class Counted(dict[str, nn.Module]):
    """The children of a module; counts how often somebody goes through them."""

    walks = 0

    def items(self) -> Any:
        Counted.walks += 1
        return super().items()

    def values(self) -> Any:
        Counted.walks += 1
        return super().values()

    def __iter__(self) -> Iterator[str]:
        Counted.walks += 1
        return super().__iter__()


class Outer(nn.Module):
    """A model around a model, which goes through no children by itself; a functional norm; a class to be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.swish = Mixed(), Swish()

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(self.block(self.swish(x)), (4,))


ATTACH, FIRST_PASS, LATER_PASS, SNAPSHOT, DETACH = 1, 1, 0, 0, 1
"""How often each child of the model is gone through; the first pass is watched, and its tensors get their names."""


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("place", ["the model", "a module inside"])
def test_how_often_the_modules_are_walked(place: str, training: bool):
    """Fails if the module tree is walked again: in attach, in each forward pass, for a snapshot, or at the end."""
    model = Outer().double().train(training)
    holder = model if place == "the model" else model.block
    vars(holder)["_modules"] = Counted(holder._modules)
    Counted.walks = 0
    walks = []

    def walked() -> None:
        walks.append(Counted.walks)
        Counted.walks = 0

    probe = bnprobe.attach(model)
    walked()
    for x in BATCHES[:2]:
        model(x).sum().backward()
        walked()
    assert len(probe.recording.layers) == 5
    walked()
    probe.detach()
    walked()
    assert walks == [ATTACH, FIRST_PASS, LATER_PASS, SNAPSHOT, DETACH]


def test_a_walk_would_be_counted():
    """Fails if the count above misses torch's own ways through the modules of a model."""
    model = Outer()
    vars(model)["_modules"] = Counted(model._modules)
    for walk in (model.modules, model.named_parameters, model.children, model.named_buffers):
        Counted.walks = 0
        assert list(walk())
        assert Counted.walks == 1


# Names that a class may hide


def plain() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(Mixed()).double()
    learn(model)
    return model


def hiding(model: nn.Module) -> nn.Module:
    """The same model with torch's names for its parts taken, in it and in every module inside."""
    for module in list(model.modules()):
        hide(module)
    return model


def recorded(model: nn.Module, **options: Any) -> bnprobe.Recording:
    torch.manual_seed(7)
    with bnprobe.attach(model, **options) as probe:
        for x in BATCHES:
            model(x).square().sum().backward()
    return probe.recording


def assert_identical(one: Any, other: Any, name: str = "") -> None:
    """Two values of plain data are the same in every field, however deep, to the last bit."""
    assert type(one) is type(other), name
    if is_dataclass(one):
        for field in fields(one):
            assert_identical(getattr(one, field.name), getattr(other, field.name), f"{name}.{field.name}")
    elif isinstance(one, tuple):
        assert len(one) == len(other), name
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_identical(*pair, f"{name}[{i}]")
    else:
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_class_that_hides_the_names_of_its_parts_is_recorded(training: bool):
    """Fails if `self.modules = [...]`, as ESPNet has it, or another such name, is called anywhere in a run."""
    found = recorded(hiding(plain().train(training)))
    expected = recorded(plain().train(training))
    assert_identical(found.layers, expected.layers)
    assert found.about.n_parameters == expected.about.n_parameters
    assert found.integrity is not None
    assert expected.integrity is not None
    assert found.integrity.n_modules == expected.integrity.n_modules
    assert found.integrity.changes == expected.integrity.changes


def test_the_loop_asks_for_no_hidden_name():
    """Fails if `record` goes to the model for its device, its parameters or `zero_grad` by a name that is taken."""
    model = hiding(plain().eval())
    model.zero_grad = None
    batches = [(x, torch.zeros(len(x), dtype=torch.int64)) for x in BATCHES]
    found = bnprobe.record(model, batches, F.cross_entropy)
    expected = bnprobe.record(plain().eval(), batches, F.cross_entropy)
    assert_identical(found.layers, expected.layers)
    assert found.layers[0].gradient is not None
    assert all(p.grad is None for p in model[0].bn._parameters.values())


def test_a_model_without_norms_is_refused_by_its_own_error():
    """Fails if the search for what comes closest trips over a hidden name."""
    with pytest.raises(NoNormLayers, match="Closest by name: StrangeNorm"):
        bnprobe.attach(hiding(nn.Sequential(StrangeNorm(), nn.Conv2d(C, C, 1))))


class Settings(nn.Module):
    """Keeps the settings of its training under torch's name for the mode."""

    def __init__(self, training: Any) -> None:
        super().__init__()
        self.bn, self.ln = nn.BatchNorm2d(C), FirstLayerNorm(C)
        self.training = self.ln.training = training

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(self.ln(self.bn(x)), 1)


class ByProperty(nn.Module):
    """Tells its mode by a property, from another flag."""

    def __init__(self) -> None:
        self.mode: list[str] = []
        super().__init__()
        self.bn = nn.BatchNorm2d(C)

    @property
    def training(self) -> list[str]:  # type: ignore[override]
        return vars(self).get("flags", [])

    @training.setter
    def training(self, value: bool) -> None:
        vars(self)["flags"] = ["train"] if value else []

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


@pytest.mark.parametrize("training", [{"epochs": 3}, {}, None, 1], ids=repr)
def test_settings_in_place_of_a_mode(training: Any):
    """Fails if the mode of a module is added, hashed or compared as it stands, and not asked whether it is true."""
    model = Settings(training).double()
    recording = recorded(model)
    batch_norm, layer_norm, function = recording.layers
    n_in_training = len(BATCHES) if training else 0
    assert batch_norm.call_log.n_calls_model_training == n_in_training
    assert batch_norm.n_calls_training == len(BATCHES), "the norm has a flag of its own"
    assert layer_norm.n_calls_training == function.n_calls_training == n_in_training
    assert recording.integrity is not None
    assert recording.integrity.unexplained == ()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_mode_given_by_a_property(training: bool):
    """Fails if a list in place of the flag is taken for more than its truth."""
    model = ByProperty().double()
    model.train(training)
    (record,) = recorded(model).layers
    assert record.call_log.n_calls_model_training == training * len(BATCHES)
