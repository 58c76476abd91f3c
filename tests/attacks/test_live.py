"""Models whose modules lie, refuse to answer or run in circles: recorded, or refused by name, and never changed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError
from bnprobe.norms import NormLayer, registry


class Holder(nn.Module):
    """One healthy norm in something strange."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


class Circle(Holder):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU())
        self.inner._modules["back"] = self


class Secretive(Holder):
    """Every attribute that torch does not find is an error of another kind."""

    def __getattr__(self, name: str) -> Any:
        if name == "bn":
            return super().__getattr__(name)
        raise RuntimeError(f"you asked for {name}")


class Hiding(Holder):
    """Attributes in place of torch's methods."""

    def __init__(self) -> None:
        super().__init__()
        for name in (
            "modules",
            "named_modules",
            "parameters",
            "buffers",
            "children",
            "state_dict",
            "eval",
            "apply",
        ):
            setattr(self, name, [])


class Uncountable(Holder):
    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class SecretEps(nn.BatchNorm2d):
    eps = property(lambda self: 1 / 0, lambda self, value: None)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.running_mean, self.running_var)


class SecretLayerNorm(nn.LayerNorm):
    eps = property(lambda self: 1 / 0, lambda self, value: None)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, self.normalized_shape)


class NoMode(Holder):
    training = property(lambda self: 1 / 0, lambda self, value: None)  # type: ignore[assignment]


class NoHash(Holder):
    def __hash__(self) -> int:
        raise RuntimeError("no number")


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain[:, None, None]


def plan(**changes: Any) -> Callable[[Any], NormLayer]:
    return lambda module: NormLayer(
        **{"kind": "own", "pools": "batch", "n_channels": 3, "eps": 1e-5, **changes}
    )


DESCRIBED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "raises": (lambda module: 1 / 0, "failed .ZeroDivisionError: division by zero"),
    "a text": (lambda module: "batch_norm", "returned str, not a NormLayer"),
    "nothing": (lambda module: None, "returned NoneType, not a NormLayer"),
    "a generator": (lambda module: iter(()), "returned tuple_iterator, not a NormLayer"),
    "a number for a kind": (plan(kind=3), "kind=3"),
    "a text for channels": (plan(n_channels="3"), "failed .TypeError"),
    "channels below zero": (plan(n_channels=-3), "n_channels=-3"),
    "no eps": (plan(eps=None), "eps=None, not a number"),
    "a list for a weight": (plan(weight=[1, 1, 1]), "gave weight as list, not a tensor"),
    "a long weight": (plan(weight=torch.ones(5)), "gave weight of 5 numbers for 3 channels"),
    "a pool of its own": (plan(pools="everything"), "Use|pools"),
}


def state_of(model: nn.Module) -> list[Any]:
    """Every number and every hook of a model, read without asking it."""
    met, waiting, found = set(), [model], []
    while waiting:
        module = waiting.pop()
        if id(module) in met:
            continue
        met.add(id(module))
        waiting += [child for child in module._modules.values() if child is not None]
        tensors = {**module._parameters, **module._buffers}
        found.append({name: numbers_of(t) for name, t in tensors.items() if t is not None})
        found.append(
            [len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)]
        )
        found.append(sorted(vars(module)))
    return found


def numbers_of(value: Any) -> Any:
    """What a tensor holds; another thing itself."""
    if not isinstance(value, Tensor) or value.is_meta:
        return value if isinstance(value, str) else id(value)
    return value.to_dense().tolist()


def probed(model: nn.Module) -> list[str]:
    """The layers that are recorded. Raises BnprobeError only; the model is as it was in either case."""
    x = torch.randn(2, 3, 8, 8)
    for module in (model.__dict__["_modules"]["bn"],) if isinstance(model, Holder) else ():
        module.training = False
    before = state_of(model)
    try:
        with torch.no_grad(), bnprobe.attach(model) as probe:
            model(x)
        return list(bnprobe.report(probe).layers["layer"])
    finally:
        assert state_of(model) == before


@pytest.mark.parametrize("cls", [Circle, Hiding, Uncountable])
def test_a_norm_inside_something_strange_is_recorded(cls):
    """Fails if what surrounds a norm keeps it from being seen."""
    assert probed(cls()) == ["bn"]


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (NoMode, "NoMode cannot be looked at"),
        (NoHash, "NoHash cannot be looked at"),
        (Secretive, "Secretive cannot be looked at .RuntimeError: you asked for"),
    ],
)
def test_what_cannot_be_looked_at_is_named(cls, words):
    """Fails if the error of a model's own code is all that is said."""
    with pytest.raises(BnprobeError, match=words):
        probed(cls())


def boom(*args: Any) -> Any:
    raise RuntimeError("boom")


class Untold(Exception):
    __str__ = boom


def refuse(module: nn.Module, name: str) -> Any:
    """What torch calls for its own names, too."""
    return nn.Module.__getattr__(module, name) if name == "bn" else boom()


def untold(*args: Any) -> Any:
    raise Untold


class Text(str):
    lower = startswith = partition = boom


def holder(metaclass: type = type, **members: Any) -> nn.Module:
    """A module of a class made to order, with one healthy norm inside."""
    made = metaclass("Weird", (Holder,), members)()
    made._modules["bn"].training = False
    return made


def meta(**members: Any) -> type:
    return type("Meta", (type,), members)


READABLE: dict[str, Callable[[], nn.Module]] = {
    "a name that is a number": lambda: holder(meta(__name__=property(lambda cls: 3))),
    "a name with its own methods": lambda: holder(meta(__name__=property(lambda cls: Text("norm")))),
    "a class of classes with no bases": lambda: holder(meta(__mro__=property(boom))),
    "a home that raises": lambda: holder(meta(__module__=property(boom))),
    "a home that is a number": lambda: holder(__module__=3),
    "a home that is a property": lambda: holder(__module__=property(boom)),
    "a home with its own methods": lambda: holder(__module__=Text("torch.")),
    "a class that lies": lambda: holder(__class__=property(lambda self: nn.LayerNorm)),
    "nothing to show": lambda: holder(__repr__=boom, __str__=boom, extra_repr=boom, __dir__=boom),
    "walks that raise": lambda: holder(
        **dict.fromkeys(("named_modules", "modules", "children", "parameters", "buffers", "state_dict"), boom)
    ),
    "comparisons that raise": lambda: holder(__eq__=boom, __hash__=lambda self: 5),
}


@pytest.mark.parametrize("name", READABLE)
def test_a_class_that_lies_about_itself_keeps_no_norm_from_being_recorded(name):
    """Fails if names, homes and bases of classes are asked of the class, which may raise or say anything."""
    assert probed(nn.Sequential(nn.ReLU(), READABLE[name]())) == ["1.bn"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: holder(__class__=property(boom)), "RuntimeError: boom"),
        (lambda: holder(__class__=property(untold)), "Untold"),
        (lambda: holder(meta(__hash__=boom)), "RuntimeError: boom"),
        (lambda: holder(__getattr__=refuse), "RuntimeError: boom"),
        (lambda: holder(training=property(boom, lambda self, value: None)), "RuntimeError: boom"),
        (lambda: holder(meta(__name__=property(lambda cls: sys.exit(3)))), "SystemExit: 3"),
    ],
)
def test_what_cannot_be_looked_at_is_named_by_its_path(make, words):
    """Fails if nobody can tell which of a thousand modules raises, or if it ends the program."""
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.BatchNorm2d(3).eval(), make()))
    with pytest.raises(BnprobeError, match=rf"1\.1: Weird cannot be looked at .{words}.*Attach to a part"):
        probed(model)


@pytest.mark.parametrize("norm", [SecretEps(3), SecretLayerNorm(8)], ids=lambda norm: type(norm).__name__)
def test_a_norm_that_does_not_answer_is_named(norm):
    """Fails if nobody can tell which of a thousand modules it is, or what to do."""
    words = rf"1: {type(norm).__name__}, a \w+Norm, does not tell its formula .*Describe it with bnprobe.register_norm"
    with pytest.raises(BnprobeError, match=words):
        probed(nn.Sequential(nn.BatchNorm2d(3).eval(), norm))


@pytest.mark.parametrize("name", DESCRIBED)
def test_descriptions_that_cannot_be(name, monkeypatch):
    """Fails if what a describe function returns is believed before it is looked at."""
    describe, words = DESCRIBED[name]
    monkeypatch.setitem(registry._registered, Own, describe)
    with pytest.raises(BnprobeError, match=rf"1: the describe function of Own .*{words}"):
        probed(nn.Sequential(nn.BatchNorm2d(3).eval(), Own()))


class PassesOn(nn.BatchNorm2d):
    """Computes nothing with what it holds, so that torch does not mind."""

    def forward(self, x: Tensor) -> Any:
        return x * 1


class Unopenable(tuple):
    def __iter__(self) -> Any:
        raise RuntimeError("closed")

    def __getitem__(self, index: Any) -> Any:
        raise RuntimeError("closed")


class ReturnsUnopenable(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Any:
        return Unopenable([super().forward(x)])


class Closed(Tensor):
    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function.__name__ == "detach":
            raise RuntimeError("closed")
        return super().__torch_function__(function, types, arguments, named or {})


class Subclassed(Holder):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.as_subclass(Closed))


def holding(**tensors: Any) -> nn.Sequential:
    """A subclass of a norm with other tensors in the places that torch knows."""
    norm = PassesOn(3).eval()
    for name, value in tensors.items():
        (norm._buffers if name in norm._buffers else norm._parameters)[name] = value
    return nn.Sequential(norm)


ODD_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "long": ({"running_var": torch.ones(5)}, "it holds running_var of 5 numbers for 3 channels"),
    "of two dimensions": ({"weight": torch.ones(3, 3)}, "it holds weight of 9 numbers for 3 channels"),
    "without numbers": ({"running_mean": torch.ones(3, device="meta")}, "0: what it .* cannot be read"),
    "sparse": ({"weight": torch.ones(3).to_sparse()}, "0: what it .* cannot be read"),
    "no tensor": ({"bias": "x"}, r"0\.bias is a str among the parameters"),
}


@pytest.mark.parametrize("name", ODD_TENSORS)
def test_a_norm_that_holds_something_else_is_named(name):
    """Fails if an error of numpy's is all that is said of a subclass with tensors of its own."""
    tensors, words = ODD_TENSORS[name]
    with pytest.raises(BnprobeError, match=words):
        probed(holding(**tensors))


def test_a_tensor_that_cannot_be_read_is_named():
    """Fails if the error of a class of tensors does not say at which norm."""
    with pytest.raises(BnprobeError, match=r"bn: what it is called with.*closed"):
        probed(Subclassed())


@pytest.mark.parametrize(
    "counter", [torch.ones((), device="meta"), torch.tensor(0.5), torch.ones(3), torch.tensor(torch.inf)]
)
def test_counters_that_are_no_numbers_are_none(counter):
    """Fails if a counter of batches that counts nothing ends a forward pass."""
    assert probed(holding(num_batches_tracked=counter)) == ["0"]


def test_containers_whose_own_code_fails_hold_no_tensors():
    """Fails if what a norm returns is opened, and its error is the user's."""
    assert probed(nn.Sequential(ReturnsUnopenable(3).eval())) == ["0"]


def test_a_name_of_half_a_character_can_be_saved(tmp_path):
    """Fails if a recording is written that nobody can read again."""
    model = nn.Sequential()
    model.add_module("a\ud800", nn.BatchNorm2d(3).eval())
    recording = bnprobe.record(model, [torch.randn(2, 3, 8, 8)])
    assert bnprobe.load(recording.save(tmp_path / "a.bnp")).layers[0].layer == r"a\ud800"


def test_a_momentum_that_is_no_number():
    """Fails if a report cannot be made of it."""
    norm = nn.BatchNorm2d(3, momentum=float("nan")).eval()
    assert probed(nn.Sequential(norm)) == ["0"]
    x = torch.randn(2, 3, 8, 8)
    assert bnprobe.report(bnprobe.record(norm, [x])).to_text()


def test_a_description_that_fails_later(monkeypatch):
    """Fails if a describe function that works once can end a forward pass with an error of its own, or leave hooks."""
    calls = []

    def describe(module: Own) -> NormLayer:
        calls.append(1)
        if len(calls) > 1:
            raise OSError("gone")
        return plan(weight=module.gain)(module)

    monkeypatch.setitem(registry._registered, Own, describe)
    with pytest.raises(BnprobeError, match=r"the describe function of Own failed \(OSError: gone\)"):
        probed(nn.Sequential(nn.BatchNorm2d(3).eval(), Own()))
