"""Which module of a model the error of its own code comes from: attributes, comparisons and metaclasses may be code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

from torch import nn

from bnprobe.errors import CannotProbe, class_name, said
from bnprobe.norms.module_tree import children_of, joined
from bnprobe.probe.survey.unwrap import shown


def cannot_look(model: nn.Module, error: BaseException) -> CannotProbe:
    """What `attach` raises where looking at a model fails: it names the module that was looked at, by its path."""
    path, module = _looked_at(model, error)
    if module is model:
        return CannotProbe(
            f"{class_name(model)} cannot be looked at ({said(error)}). Nothing of it was changed. Attach to the part of it "
            "that holds the norms."
        )
    return CannotProbe(
        f"{shown(path)}: {class_name(module)} cannot be looked at ({said(error)}). Nothing of the model was changed. Attach "
        "to a part of it without this module."
    )


def _looked_at(model: nn.Module, error: BaseException) -> tuple[str, nn.Module]:
    """The module that the innermost function of the traceback was about, by its path; the model where none was."""
    known = {id(module): (path, module) for path, module in _modules(model)}
    for frame in _innermost_first(error):
        here = [known[id(value)] for value in frame.f_locals.values() if id(value) in known]
        if here:
            return here[-1]  # of a module and what holds it, the error is of the module
    return "", model


def _innermost_first(error: BaseException) -> list[FrameType]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    return frames[::-1]


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module by its path, as far as they can be asked for what they hold."""
    met: set[int] = set()
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if id(module) not in met:
            met.add(id(module))
            yield path, module
            with suppress(Exception):
                waiting += [(joined(path, name), child) for name, child in children_of(module)]
