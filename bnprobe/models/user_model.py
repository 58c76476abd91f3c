"""A user's own model: what `package.module:function` returns."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from torch import nn

from bnprobe.errors import UnknownModel
from bnprobe.models.checkpoint_file import load_checkpoint
from bnprobe.models.inputs import guess
from bnprobe.models.load_weights import fit, provenance
from bnprobe.models.preprocessing import Given
from bnprobe.models.subject import SEED, Subject, seeded
from bnprobe.norms.module_tree import set_mode
from bnprobe.weights.messages import did_you_mean, one_line


def own_subject(name: str, path: Path | None, given: Given) -> Subject:
    """The model that the function `name` makes, with the weights of the file `path` if there is one."""
    steps = guess(given)
    with seeded(), cwd_importable():
        model = _made(name, function_of(name))
    words = f"as {name} made them (seed {SEED})"
    if path is not None:
        fit(model, load_checkpoint(path), path.name, name)
        words = f"checkpoint {provenance(path)}"
    return Subject(set_mode(model, False), name, words, *steps)


def function_of(name: str, what: str = "the model") -> Callable[[], object]:
    """The callable that `package.module:function` names, and that returns `what`."""
    module_name, _, function_name = name.partition(":")
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs the user's code: anything may come
        raise UnknownModel(
            f'{name}: cannot import "{module_name}" from {Path.cwd()} ({one_line(error)}). '
            "Run in the folder that holds it, or install it."
        ) from error
    function = getattr(module, function_name, None)
    if isinstance(function, nn.Module):  # callable, too, but it is the model already
        return lambda: function
    if callable(function):
        return cast(Callable[[], object], function)
    known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    advice = did_you_mean(function_name, known) or f" Define it, without arguments, to return {what}."
    raise UnknownModel(f'{name}: {module_name} has no function "{function_name}".{advice}')


def _made(name: str, function: Callable[[], object]) -> nn.Module:
    """The module that a user's function returns."""
    try:
        made = function()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is this call
        place = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        raise UnknownModel(
            f"{name} raised {one_line(error)}{place}. It is called without arguments: make it work alone."
        ) from error
    if isinstance(made, nn.Module):
        return made
    raise UnknownModel(
        f"{name} returned an object of type {type(made).__name__}. Let it return the torch.nn.Module to probe."
    )


@contextmanager
def cwd_importable() -> Iterator[None]:
    """Inside, modules of the current folder can be imported."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
