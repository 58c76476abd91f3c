"""The public API as readers meet it: names, versions, help with examples that run, and how objects show themselves."""

from __future__ import annotations

import ast
import doctest
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import ROOT
from torch import nn

import bnprobe
import bnprobe.errors
from bnprobe.cli.main import main
from bnprobe.notebook import facts

NAMES = sorted(set(bnprobe.__all__) - {"__version__"})
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(bnprobe, name))]
ERRORS = [
    name
    for name in NAMES
    if isinstance(getattr(bnprobe, name), type) and issubclass(getattr(bnprobe, name), BaseException)
]
CLASSES = [name for name in NAMES if name not in FUNCTIONS and name not in ERRORS]


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public functions, methods and properties of ours, with those of our classes that it derives from."""
    for owner in reversed(cls.__mro__):
        if owner.__module__.partition(".")[0] == "bnprobe":
            for name, value in vars(owner).items():
                if name[0] != "_" and (
                    isinstance(value, property | cached_property) or inspect.isfunction(value)
                ):
                    yield f"{cls.__name__}.{name}", value


MEMBERS = {name: value for one in CLASSES for name, value in members(getattr(bnprobe, one))}
CALLABLES = {name: getattr(bnprobe, name) for name in FUNCTIONS} | {
    name: value for name, value in MEMBERS.items() if inspect.isfunction(value)
}
DOCUMENTED = {name: getattr(bnprobe, name) for name in NAMES} | MEMBERS


def python(code: str, *options: str, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


# Names


def test_a_type_checker_sees_the_homes_of_lazy_names():
    """Fails if a lazy name is imported from one module at run time, and from another, or not at all, by a checker."""
    tree = ast.parse(Path(bnprobe.__file__).read_text("utf-8"))
    (checked,) = (
        node for node in tree.body if isinstance(node, ast.If) and not node.orelse and names_in(node)
    )
    seen = {name: home for home, names in imports_in(checked) for name in names}
    assert seen == bnprobe._HOMES


def names_in(node: ast.If) -> list[str]:
    return [name for _, names in imports_in(node) for name in names]


def imports_in(node: ast.If) -> list[tuple[str, list[str]]]:
    return [
        (str(one.module), [alias.name for alias in one.names])
        for one in node.body
        if isinstance(one, ast.ImportFrom)
    ]


def test_every_error_of_the_package_is_public():
    """Fails if a user must reach into a module to catch what bnprobe raises."""
    ours = {name for name, value in vars(bnprobe.errors).items() if isinstance(value, type)}
    assert ours == {name for name in ERRORS if name != "Interrupted"}
    assert {"BadLabels", "Interrupted"} <= set(bnprobe.__all__)
    assert all(issubclass(getattr(bnprobe, name), bnprobe.BnprobeError) for name in ours)
    assert issubclass(bnprobe.Interrupted, KeyboardInterrupt)


def test_a_misspelt_name_is_an_attribute_error():
    """Fails if the lazy names answer to anything."""
    with pytest.raises(AttributeError, match="module 'bnprobe' has no attribute 'atach'"):
        bnprobe.atach  # noqa: B018
    assert set(bnprobe.__all__) <= set(dir(bnprobe))


# The version


def test_the_version_is_that_of_the_project():
    """Fails if a release raises one of the two numbers and forgets the other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert bnprobe.__version__ == project["version"]


def test_a_checkout_on_the_path_knows_its_version():
    """Fails if the version needs an installed package: -S leaves out what is installed."""
    run = python(
        "import bnprobe; print(bnprobe.__version__)", "-S", path=str(Path(bnprobe.__file__).parents[1])
    )
    assert run.stdout.strip() == bnprobe.__version__, run.stderr


def test_the_command_line_prints_the_version(capsys):
    """Fails if --version needs a command, or says another version than Python does."""
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"bnprobe {bnprobe.__version__}\n"


# Signatures


@pytest.mark.parametrize("name", CALLABLES)
def test_editors_see_every_parameter(name: str):
    """Fails if a parameter has no type, or hides in *args or **kwargs."""
    found = inspect.signature(CALLABLES[name])
    for parameter in found.parameters.values():
        assert parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD), parameter
        assert parameter.name == "self" or parameter.annotation is not parameter.empty, parameter
    assert found.return_annotation is not found.empty


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_named(name: str):
    """Fails if an option with a default can be passed by its place, where a later option would move it; a function may."""
    for parameter in inspect.signature(getattr(bnprobe, name)).parameters.values():
        by_place = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert not by_place or parameter.default is parameter.empty or parameter.name in ("loss", "metric"), (
            parameter
        )


# Help


def part(doc: str, title: str) -> dict[str, str]:
    """The entries under "Args:", "Raises:" or "Attributes:" with their first words."""
    found = re.search(rf"^{title}:\n((?:[ ]{{4}}.*\n?|\n)+)", doc, re.M)
    return dict(re.findall(r"^    (\w+): (.+)$", found[1], re.M)) if found else {}


@pytest.mark.parametrize("name", CALLABLES)
def test_help_explains_every_parameter_and_the_result(name: str):
    """Fails if a parameter is added, renamed or removed and its help is left behind."""
    doc = inspect.getdoc(CALLABLES[name]) or ""
    found = inspect.signature(CALLABLES[name])
    assert list(part(doc, "Args")) == [p for p in found.parameters if p != "self"]
    assert ("\nReturns:\n" in doc) == (found.return_annotation not in ("None", None))


@pytest.mark.parametrize("name", DOCUMENTED)
def test_errors_in_help_are_public(name: str):
    """Fails if help promises an error that cannot be caught by a public name."""
    raised = part(inspect.getdoc(DOCUMENTED[name]) or "", "Raises")
    assert set(raised) <= set(ERRORS)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_help_begins_with_a_sentence(name: str):
    """Fails if a public name has no help, or help whose first line is no sentence."""
    first, _, rest = (inspect.getdoc(DOCUMENTED[name]) or "").partition("\n")
    assert len(first.split()) >= 3
    assert first.endswith(".")
    assert not rest or rest.startswith("\n")


@pytest.mark.parametrize("name", ERRORS)
def test_help_of_an_error_says_what_to_do(name: str):
    """Fails if an error is documented without its reason or without the next step."""
    reason, found, advice = (inspect.getdoc(getattr(bnprobe, name)) or "").partition("What to do: ")
    assert found
    assert len(reason.split()) >= 8
    assert len(advice.split()) >= 8


@pytest.mark.parametrize("name", [*FUNCTIONS, "Probe", "Recording", "Report", "Comparison", "NormLayer"])
def test_help_has_an_example(name: str):
    """Fails if a reader of help() must look elsewhere for a call that works."""
    doc = inspect.getdoc(getattr(bnprobe, name)) or ""
    assert "Example:\n" in doc
    assert ">>> " in doc


EXAMPLES = {name: doc for name, value in DOCUMENTED.items() if ">>> " in (doc := inspect.getdoc(value) or "")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Fails if an example, pasted into a new interpreter, does not do what help() shows."""
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], {}, name, None, 0)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted >= 2
    assert not result.failed, capsys.readouterr().out
    if "matplotlib" in sys.modules:
        import matplotlib.pyplot as plt

        plt.close("all")


# How objects show themselves


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 7, 1), nn.BatchNorm2d(7)).eval()


def test_a_probe_shows_its_state():
    """Fails if a probe does not say what it holds, whether it listens, or how much it has heard."""
    probe = bnprobe.attach(model())
    assert repr(probe) == "Probe(Sequential: 2 norms attached, 0 forward passes)"
    probe.detach()
    network = model()
    with bnprobe.attach(network) as probe:
        network(torch.ones(2, 3, 5, 5))
        assert repr(probe) == "Probe(Sequential: 2 norms attached, 1 forward pass)"
        network(torch.ones(4, 3, 5, 5))
    assert repr(probe) == "Probe(Sequential: 2 norms detached, 2 forward passes)"
    cell = probe._repr_html_()
    assert "<strong>Probe(Sequential: 2 norms detached, 2 forward passes)</strong>" in cell
    assert re.search(r">BatchNorm2d</th><td[^>]*>2<", cell)
    assert re.search(r">samples</th><td[^>]*>6<", cell)
    assert "not recognized" not in cell


def test_a_probe_names_what_it_does_not_recognize():
    """Fails if a cell says that all is well where a norm was passed over."""

    class OddNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5))

    network = model()
    network.add_module("odd", OddNorm())
    with bnprobe.attach(network) as probe:
        assert re.search(r">not recognized</th><td[^>]*>odd<", probe._repr_html_())


def test_a_norm_layer_shows_no_values_of_tensors():
    """Fails if a layer of 512 channels fills the screen with its weights, or hides what was set."""
    layer = bnprobe.NormLayer(
        "mine", "channels", 512, 1e-6, channels="last", weight=torch.rand(512), centred=False
    )
    assert repr(layer) == (
        "NormLayer(kind='mine', pools='channels', n_channels=512, eps=1e-06, channels='last', "
        "weight=<float32 (512,)>, centred=False)"
    )
    cell = layer._repr_html_()
    assert "&lt;float32 (512,)&gt;" in cell
    assert "<strong>NormLayer: mine, 512 channels</strong>" in cell
    assert "n_groups" not in cell


def test_an_error_shows_its_message_and_travels():
    """Fails if an error loses its words in a notebook, on its way from another process, or is taken for markup."""
    with pytest.raises(bnprobe.NoNormLayers) as caught:
        bnprobe.attach(nn.Linear(2, 3))
    error = caught.value
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert repr(error).startswith("NoNormLayers(")
    assert "<strong>NoNormLayers</strong>" in error._repr_html_()
    assert "&lt;b&gt;" in bnprobe.BadImages("<b>")._repr_html_()


def test_facts_are_escaped():
    """Fails if a module's name can become markup in somebody's notebook."""
    cell = facts("<i>", [("<u>", "<b>")])
    assert not re.search("<[iub]>", cell)
    assert facts("alone", []) == "<div><p><strong>alone</strong></p></div>"
