"""One model of the zoo, tried in full: bare and with a probe, in evaluation and in a training step.

Everything that a pass leaves behind is compared bit by bit: outputs, gradients, buffers, random state, hooks.
"""

from __future__ import annotations

import hashlib
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bnprobe
from scripts.zoo.entries import Call, Entry

OK, REFUSED, ATTACHED = "as expected", "no norms: refused", "attached only"
"""Outcomes that are no fault."""

TRUE_HERE = ("few-values", "statistics-not-updated")
"""Rules that warn rightly of two samples in a training step whose running statistics are put back; all others would be
false, since nothing was ever trained."""

DONE = "done"

FIGURES = 12
"""Sites of a page, unless all are asked for: every site has figures of its own, half a second each."""

HOOKS = (
    *("_forward_pre_hooks", "_forward_hooks", "_forward_hooks_always_called", "_backward_hooks"),
    *("_backward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs"),
)

Left = dict[str, str]
"""What a pass leaves behind, as digests by name, so that little memory is held."""


@dataclass
class Row:
    """What came of one model; the columns of the table.

    `norms` are the layers found, of these `classes`; `uncalled` those that no pass reached. `sites` are
    layers at calls; `known` of them have followers that the executed graph told, `gradients` a record of the
    backward pass, `read` an output that was read and not derived. `mismatch` is the largest difference
    between an output and the formula of its kind, in units of the largest output. `megabytes` is the most
    memory that the process held.
    """

    model: str
    library: str
    family: str
    outcome: str = ""
    size: str = ""
    parameters: int = 0
    norms: int = 0
    classes: str = ""
    uncalled: int = 0
    sites: int = 0
    kinds: str = ""
    known: int = 0
    gradients: int = 0
    read: int = 0
    mismatch: str = ""
    forward: str = ""
    backward: str = ""
    page: str = ""
    seconds: float = 0.0
    megabytes: int = 0
    says: str = ""


def try_model(entry: Entry, whole: bool = False) -> Row:
    """Build, run, compare, report. An exception, of ours or of the model, becomes the outcome."""
    row, started = Row(entry.name, entry.library, entry.family), time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks of the libraries on their own defaults
            _try(entry, row, whole)
    except bnprobe.NoNormLayers as error:
        row.outcome, row.says = REFUSED, one_line(error)
    except Changed as error:
        row.outcome, row.says = "changed by the probe", one_line(error)
    except Exception as error:
        row.outcome, row.says = f"failed: {type(error).__name__}", one_line(error)
    row.seconds = round(time.perf_counter() - started, 1)
    row.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


class Changed(Exception):
    """Something is not, bit for bit, what it is without the probe."""


def _try(entry: Entry, row: Row, whole: bool) -> None:
    model = entry.model(entry.sizes[0])
    row.parameters = sum(parameter.numel() for parameter in model.parameters())
    before = _surface(model)
    with bnprobe.attach(model) as probe:
        pass
    _demand_same("attaching and detaching", before, _surface(model))
    _count(row, model, probe.recording)
    if entry.on_meta:
        row.forward = row.backward = row.page = "no: too large, on the meta device"
        row.outcome = ATTACHED
        return
    size, model, bare = _smallest(entry, model)
    row.size = _shape(entry.call(size, False))
    with bnprobe.attach(model) as probe:
        probed = _passes(entry, model, size)
    if probed != bare and _passes(entry, model, size) != bare:
        raise RuntimeError("two runs without the probe differ from one another, so nothing can be compared")
    _demand_same("running", bare, probed)
    _demand_same("running and detaching", before, _surface(model))
    row.forward, row.backward = DONE, entry.not_trained or DONE
    row.outcome = _report(row, probe.recording, whole)


def _smallest(entry: Entry, model: nn.Module) -> tuple[int, nn.Module, Left]:
    """The first size that both passes accept, the model built for it, and what bare passes leave."""
    for size in entry.sizes[:-1]:
        try:
            return size, model, _passes(entry, model, size)
        except Exception:  # too small: each architecture says so in its own way
            model = entry.model(entry.sizes[entry.sizes.index(size) + 1])
    return entry.sizes[-1], model, _passes(entry, model, entry.sizes[-1])


def _passes(entry: Entry, model: nn.Module, size: int) -> Left:
    """An evaluation and, where the entry trains, one step without an update; the model is then as it was."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    left: Left = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(23)
        model.eval()
        with torch.no_grad():
            left |= _digests("output", entry.call(size, False).of(model))
        if not entry.not_trained:
            output = entry.call(size, True).of(model.train())
            left |= _digests("training output", output)
            loss_of(output).backward()
        left |= _digests("gradient", {name: p.grad for name, p in model.named_parameters()})
        left |= _digests("buffer", dict(model.named_buffers()))
        left |= _digests("random state", torch.get_rng_state())
    model.zero_grad(set_to_none=True)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    model.eval()
    return left


def loss_of(output: Any) -> Tensor:
    return torch.stack([t.square().mean() for _, t in tensors(output) if t.requires_grad]).sum()


def tensors(value: Any, at: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors in nested containers, with their places."""
    if isinstance(value, Tensor):
        yield at, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors(item, f"{at}.{key}")
    elif isinstance(value, tuple | list):
        for number, item in enumerate(value):
            yield from tensors(item, f"{at}.{number}")


def _digests(what: str, value: Any) -> Left:
    return {
        f"{what}{at}": hashlib.sha256(
            tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
        ).hexdigest()
        for at, tensor in tensors(value)
    }


def _demand_same(doing: str, before: Left, after: Left) -> None:
    different = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    if different:
        raise Changed(f"{doing} changed {len(different)} of {len(before)}: {', '.join(different[:4])}")


def _surface(model: nn.Module) -> Left:
    """What can be seen of each module: its attributes, mode and hooks."""
    return {
        f"{name} ({type(module).__name__})": repr(
            [sorted(vars(module)), module.training, *(len(vars(module)[hooks]) for hooks in HOOKS)]
        )
        for name, module in model.named_modules()
    }


def _count(row: Row, model: nn.Module, recording: bnprobe.Recording) -> None:
    """What was found before anything ran."""
    classes = Counter(type(model.get_submodule(path)).__name__ for path in recording.never_called)
    row.norms = len(recording.never_called)
    row.classes = ", ".join(f"{n} {name}" for name, n in classes.most_common())


def _report(row: Row, recording: bnprobe.Recording, whole: bool) -> str:
    """The tables and the page, and what they say of the model; returns the outcome."""
    report, records = bnprobe.report(recording), recording.layers
    if len(report.layers) != len(records) or len(report.channels) != sum(r.n_channels for r in records):
        raise RuntimeError("the tables do not have a row per site and per channel")
    report.to_text()
    row.page = _page(recording, whole)
    row.sites, row.uncalled = len(records), len(recording.never_called)
    kinds = Counter(record.kind for record in records)
    row.kinds = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    row.known = sum(
        record.neighbours is not None and record.neighbours.follows != "unknown" for record in records
    )
    row.read = sum(record.output == "read" for record in records)
    row.mismatch = f"{max((r.mismatch for r in records if r.mismatch == r.mismatch), default=0.0):.0e}"
    row.gradients = sum(record.gradient is not None for record in records)
    row.says = "; ".join(recording.about.notes)
    warned = dict.fromkeys(report.findings.query("severity != 'info'")["rule"])
    false = [rule for rule in warned if rule not in TRUE_HERE]
    return f"false: {', '.join(false)}" if false else OK


def _page(recording: bnprobe.Recording, whole: bool) -> str:
    """Draw the page, of FIGURES sites spread over the depth of a deep model: each has figures of its own."""
    n, some = len(recording.layers), len(recording.layers) if whole else min(FIGURES, len(recording.layers))
    part = replace(recording, layers=tuple(recording.layers[i * n // some] for i in range(some)))
    with tempfile.TemporaryDirectory() as folder:
        size = bnprobe.report(part).to_html(Path(folder, "page.html")).stat().st_size
    return f"{DONE}, {size / 1024:,.0f} kB" + (f", {some} of {n} sites" if some < n else "")


def _shape(call: Call) -> str:
    first = next(tensor for _, tensor in tensors((call.args, call.kwargs or {})))
    return " x ".join(map(str, first.shape))
