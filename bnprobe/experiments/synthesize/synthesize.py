"""Images made from the statistics alone: four ways, of which three are controls, judged by another network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, class_name
from bnprobe.experiments.held_vectors import demand_one_device
from bnprobe.experiments.measure_variants import INTERRUPTED, Deadline
from bnprobe.experiments.put_back import in_eval_mode
from bnprobe.experiments.snapshot import all_put_back
from bnprobe.experiments.synthesize.drawing import Drawer
from bnprobe.experiments.synthesize.inputs import (
    Constants,
    Inputs,
    inputs_of,
    is_large,
    n_classes,
    names_of_classes,
    stages_of,
    target_classes,
)
from bnprobe.experiments.synthesize.judging import judge_of
from bnprobe.experiments.synthesize.made import Made
from bnprobe.experiments.synthesize.making import Making
from bnprobe.experiments.synthesize.matching import reached
from bnprobe.experiments.synthesize.measuring import Measuring, sheets_of, table_of
from bnprobe.experiments.synthesize.pyramid import Pyramid
from bnprobe.experiments.synthesize.real import nearest_of, real_batch, shape_of
from bnprobe.experiments.synthesize.recipe import NOISE_FOR_LARGE, WAYS, WITHOUT_CLASSES, Recipe
from bnprobe.experiments.synthesize.state_file import read_state
from bnprobe.experiments.synthesize.stored import Stored, n_dead, n_never_updated, stored_statistics
from bnprobe.files import check_outputs, is_folder
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.checksums import digests
from bnprobe.probe.survey.unwrap import unwrap
from bnprobe.probe.tensors import is_lazy
from bnprobe.report.numbers import count

MOST = 4096
"""Images of one call: they are one batch."""


def synthesize(
    model: nn.Module,
    *,
    n: int = 64,
    targets: int | Sequence[int] | Tensor | None = None,
    steps: int = 150,
    judge: nn.Module | None = None,
    shape: int | Sequence[int] | None = None,
    normalize: Constants | None = None,
    judge_normalize: Constants | None = None,
    data: Iterable[Any] | None = None,
    controls: bool = True,
    seed: int = 0,
    budget_s: float | None = None,
    state: str | Path | None = None,
    class_names: Sequence[str] = (),
) -> Made:
    """Make images from the running statistics and classes of a trained network, which nobody gave them to.

    From noise, the inputs are optimized until in each batch norm the mean and variance of the batch are the running mean and
    variance, and the network gives each image the class that is asked for. Three controls say which of the two did it: the
    classes without the statistics, the statistics without the classes, and the classes with the statistics of other
    channels. Another network, the judge, says what it sees in each; the network itself recognizes whatever was optimized
    for it.

    The model runs in eval mode and is afterwards as it was, bit for bit, also after an exception. Channels whose running
    variance is about 0 are left out, as their input was dead. The same seed gives the same images on the same machine.

    Args:
        model: A trained `torch.nn.Module` with batch norms that store running statistics.
        n: Number of images; they are one batch, so they share its RAM, and many have better statistics than few.
        targets: The class of each image; fewer than n are repeated in turn. None takes all classes by turns.
        steps: Of the optimization, for each of the four ways.
        judge: Another trained network of the same classes: another architecture, or another training run.
        shape: Of one input, (channels, height, width); a side, or height and width, where the first layer tells the
            channels. None is the shape of `data`; without data the usual sides are tried.
        normalize: Mean and std per channel by which pixels of 0 to 1 became inputs, so that images stay within valid
            pixels. None leaves the range open.
        judge_normalize: The same of the judge, where it differs.
        data: Real batches, as for `bnprobe.record`, that can be read several times: adds the row of a real batch, and the
            nearest real image of each.
        controls: Whether to make the three controls, which take three times as long again.
        seed: Of the noise, the moves and the permutation.
        budget_s: Seconds after which making stops, after the step that is under way. Images of most use come first.
        state: A file that keeps the run, written every half minute and at the end; a later call with the same arguments
            goes on from there.
        class_names: What the classes are called, one text for each, for the page.

    Returns:
        The images, the table of all ways and the page. After Ctrl-C, or where time ran out, they are as far as they came,
        and a note says so.

    Raises:
        NoNormLayers: No batch norm stores running statistics.
        BadRecordingFile: `state` is another file, or of another run.
        CannotWrite: `state` cannot be written.
        BnprobeError: The statistics were never updated, an argument is out of range, the model refuses such inputs, the
            judge is the network itself or does not fit, or the budget ends before the first step.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 2)
        ... )
        >>> _ = model(torch.randn(50, 3, 8, 8))  # in train mode: the running statistics are updated
        >>> made = bnprobe.synthesize(model, n=4, steps=3, shape=8)
        >>> made.images.shape, made.targets.tolist()
        (torch.Size([4, 3, 8, 8]), [0, 1, 0, 1])
        >>> made.table["images"].tolist()[:2]
        ['statistics and classes', 'classes only']
    """
    _demand(model, n, steps, seed, budget_s)
    if isinstance(data, Iterator):
        raise BnprobeError(
            f"data is a {type(data).__name__}, which runs out after one use, and two are needed. Pass a list or a "
            "DataLoader."
        )
    path = _path(state)
    if path is not None and not is_folder(path):  # which is said where it is read
        check_outputs([path])
    deadline = Deadline(budget_s)
    inner = unwrap(model)[0]
    with all_put_back(model), torch.inference_mode(False), torch.enable_grad():
        _still(inner)
        stored = stored_statistics(inner)
        first = None if data is None or shape is not None else shape_of(data)
        inputs = inputs_of(inner, shape if first is None else first, normalize, stored)
        norms = reached(inner, inputs, stored)
        classes = n_classes(inner, inputs)
        chosen = target_classes(targets, n, classes)
        names = names_of_classes(class_names, classes)
        judging = judge_of(judge, inner, inputs, classes, judge_normalize)
        real = None if data is None else real_batch(data, inputs, n, classes)
        ways = WAYS if chosen is not None else WITHOUT_CLASSES
        own = None if chosen is None else chosen.to(inputs.device)
        usual = Recipe()
        noise = NOISE_FOR_LARGE if is_large(inputs) else usual.noise
        recipe = replace(usual, stages=stages_of(inner, inputs, usual.stages), noise=noise)
        pyramid = Pyramid(inputs, recipe.levels)
        drawers = [
            Drawer(inner, pyramid, own, way, norms, steps, seed, recipe)
            for way in (ways if controls else ways[:1])
        ]
        settings = _settings(inner, inputs, chosen, n, steps, seed)
        drawings = {} if path is None else read_state(path, settings, drawers[0])
        making = Making(drawers, n, deadline, path, settings, drawings)
        making.draw()
        rows = Measuring(inner, pyramid, norms, judging, seed).rows(making.drawings, chosen, n, real)
        unused = _unused(n_never_updated(inner), len(stored) - len(norms))
        near = None if data is None or real is None else nearest_of(data, inputs, rows[0].pixels, real)
    return Made(
        images=inputs.of(rows[0].pixels.to(inputs.device)).float().cpu(),
        targets=chosen,
        table=table_of(rows),
        sheets=sheets_of(rows, near),
        model=class_name(inner),
        judge="" if judging is None else judging.name,
        n_classes=classes,
        shape=inputs.shape,
        steps=steps,
        seed=seed,
        seconds=deadline.spent,
        nearest=None if near is None else near.table,
        n_real=0 if near is None else near.n_seen,
        notes=(*_notes(making, norms, inputs), *unused),
        interrupted=making.stopped == INTERRUPTED,
        class_names=names,
    )


def _demand(model: nn.Module, n: int, steps: int, seed: int, budget_s: float | None) -> None:
    """Raises BnprobeError for arguments that are none."""
    if not isinstance(model, nn.Module):
        raise BnprobeError(
            f"synthesize needs a torch.nn.Module, got {class_name(model)}. Pass the model itself."
        )
    for name, value, least, most in (
        ("n", n, 2, MOST),
        ("steps", steps, 1, 10**6),
        ("seed", seed, 0, 2**63 - 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise BnprobeError(f"{name}={value!r:.40} is no whole number of {least:,} to {most:,}. Pass one.")
    number = isinstance(budget_s, int | float) and not isinstance(budget_s, bool)
    if budget_s is not None and not (number and 0 < budget_s < inf):
        raise BnprobeError(
            f"budget_s={budget_s!r:.40} is not a number of seconds. Leave it out for no limit."
        )
    demand_one_device(model)


def _path(state: str | Path | None) -> Path | None:
    """Raises BnprobeError where it is no name of a file."""
    try:
        return None if state is None else Path(state)
    except TypeError:
        raise BnprobeError(
            f"state={state!r:.40} is no path. Pass the file that keeps the run, like run.safetensors."
        ) from None


def _still(model: nn.Module) -> None:
    """In eval mode, and without gradients of its parameters, which nobody needs."""
    in_eval_mode(model)
    for parameter in ModuleTree.of(model).parameters().values():
        if not is_lazy(parameter):
            parameter.requires_grad_(False)


def _settings(
    model: nn.Module, inputs: Inputs, targets: Tensor | None, n: int, steps: int, seed: int
) -> dict[str, Any]:
    """By which a run is known again."""
    tree = ModuleTree.of(model)
    tensors = (*tree.parameters().values(), *tree.buffers().values())
    return {
        "model": hashlib.sha256(repr(digests(tensors)).encode()).hexdigest(),
        "shape": inputs.shape,
        "normalize": [inputs.mean.flatten().tolist(), inputs.std.flatten().tolist(), inputs.bounded],
        "targets": None if targets is None else targets.tolist(),
        "n": n,
        "steps": steps,
        "seed": seed,
        "recipe": asdict(Recipe()),
    }


def _notes(making: Making, norms: Sequence[Stored], inputs: Inputs) -> Iterator[str]:
    """What a reader should know."""
    dead = n_dead(norms)
    if making.stopped:
        why = "Interrupted" if making.stopped == INTERRUPTED else "Time ran out"
        again = (
            f"the same call goes on from {making.path.name}"
            if making.path
            else "state= keeps a run that can go on"
        )
        done = [
            f"{drawing.step:,} of {making.steps:,} steps of {name}"
            for name, drawing in making.drawings.items()
        ]
        yield f"{why} after {', '.join(done)}; {again}."
    if dead:
        yield f"{count(dead, 'channel')} of {count(len(norms), 'norm')} had a dead input and were left out."
    if not inputs.bounded:
        yield (
            "normalize was not given, so the range of valid pixels is not known: values are not bounded, and colors "
            "shown are a guess."
        )


def _unused(never_updated: int, not_called: int) -> Iterator[str]:
    """Which batch norms took no part, and why."""
    if never_updated:
        yield f"Left out: {count(never_updated, 'batch norm')} with the running statistics of initialization."
    if not_called:
        yield f"Left out: {count(not_called, 'batch norm')} that a pass does not call."
