"""The loop around `attach`: run a model over batches with a progress bar, and return the recording."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, NothingRecorded
from bnprobe.norms import ModuleTree
from bnprobe.printing import progress
from bnprobe.probe import Probe, attach
from bnprobe.probe.batches import arguments, each_batch, moved, parts
from bnprobe.probe.captions import Captions, captions_of
from bnprobe.probe.interrupt import stoppable
from bnprobe.probe.labels import LabelsOfBatches
from bnprobe.probe.schedule import Schedule
from bnprobe.probe.tensors import first_tensor, n_samples
from bnprobe.recording import Recording

Loss = Callable[[Any, Any], Tensor]


def record(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss | None = None,
    *,
    layers: str | Sequence[str] | None = None,
    histograms: bool = True,
    n_images: int | None = None,
    model_name: str | None = None,
    weights: str = "not stated",
    data: str = "not stated",
    preprocessing: str = "not stated",
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
    training_batch: int | None = None,
    exemplars: int = 0,
    captions: Captions | None = None,
    mask: str | None = None,
    sample_dim: int = 0,
    unit: str | None = None,
    every: int = 1,
    until: int | None = None,
) -> Recording:
    """Run a model over batches, in the mode it is in, and record every norm.

    The loop around `attach` in one call, with a progress bar in terminals and notebooks. Without `loss` no gradient is
    computed. Targets that are class labels, one integer per sample, are also used as in `Probe.labels`, as long as there
    are at most 1,000 classes. Integers of another length in every batch are no class labels, and a note says so.

    Args:
        model: Any `torch.nn.Module`; batches are moved to the device of its parameters. It is not changed, except that
            a model in train mode updates its running statistics, as it would without bnprobe.
        batches: A loader or list of batches. A batch is x or (x, y); x is a tensor, a tuple of positional arguments or a
            dict of keyword arguments of the model. Wrap a single batch in a list: [batch]. A bare tuple of two tensors
            (x, y), where y holds the targets of x, is that one batch.
        loss: Function of (output, y) that returns a scalar. With it a backward pass follows each forward pass and
            gradients are recorded; every `.grad` is put back afterwards.
        layers: See `attach`.
        histograms: See `attach`.
        n_images: Total number of samples, for the progress bar only.
        model_name: Name of the model in the report, instead of its class name.
        weights: Which weights these are, in words for the report.
        data: Which data these are, in words for the report.
        preprocessing: How inputs were made, in words for the report.
        normalize: See `attach`.
        training_batch: See `attach`.
        exemplars: See `attach`.
        captions: What the samples are, in the order of the batches: one `pathlib.Path` of a file or one text per sample.
        mask: See `attach`.
        sample_dim: See `attach`.
        unit: See `attach`.
        every: Run the first of this many batches, the first of the next, and so on; the others are not run.
        until: Stop after this many batches were run; no more are asked for. None runs all.

    Returns:
        What was recorded.

    Raises:
        NoNormLayers: No normalization layer is recognized, or none matches `layers`.
        CannotProbe: The model is TorchScript or an exported graph.
        NothingRecorded: There were no batches, or no norm was called.
        BadLabels: Batches have one label per sample, and one of them more or fewer; or the loss fails on such targets.
        BnprobeError: `batches` cannot be iterated over, `loss` cannot be called or fails without targets, or there are
            fewer `captions` than samples.
        Interrupted: Ctrl-C was pressed; its `recording` holds the batches completed before.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).eval()
        >>> batches = [(torch.randn(5, 6), torch.randint(3, (5,))) for _ in range(4)]
        >>> recording = bnprobe.record(model, batches, torch.nn.functional.cross_entropy, data="random numbers")
        >>> recording.about.n_images, recording.about.data
        (20, 'random numbers')
    """
    if loss is not None and not callable(loss):
        raise BnprobeError(
            f"loss must be a function of (output, y), got {loss!r}. Pass for example torch.nn.functional.cross_entropy."
        )

    if captions is not None and not exemplars:
        raise BnprobeError("captions say what exemplars are, and none are kept. Pass exemplars=8 as well.")
    captions = None if captions is None else captions_of(captions)
    labels = LabelsOfBatches(sample_dim, packed=mask is not None)
    turns = Schedule(every, until).of(_captioned(batches, captions, sample_dim))

    def described(recording: Recording) -> Recording:
        name = model_name or recording.about.model
        notes = (*recording.about.notes, *labels.unused)
        about = replace(
            recording.about, model=name, weights=weights, data=data, preprocessing=preprocessing, notes=notes
        )
        return replace(recording, about=about)

    with (
        attach(
            model,
            layers=layers,
            histograms=histograms,
            gradients=loss is not None,
            normalize=normalize,
            training_batch=training_batch,
            exemplars=exemplars,
            mask=mask,
            sample_dim=sample_dim,
            unit=unit,
        ) as probe,
        torch.set_grad_enabled(loss is not None),
        _gradients_put_back(_parameters(model)),
        progress(n_images) as bar,
    ):
        try:
            n_run = _run(model, turns, loss, labels, probe, bar)
        except KeyboardInterrupt:
            raise Interrupted(described(probe.recording)) from None
    recording = described(probe.recording)
    if not n_run:
        raise NothingRecorded(
            "there were no batches, so the model was not run. Pass at least one batch of inputs."
        )
    if not recording.about.n_forwards:
        why = " ".join(recording.about.notes) or "Pass inputs on which the model calls its norms."
        raise NothingRecorded(f"the model was run, but no norm of inputs was called. {why}")
    return recording


def _run(
    model: nn.Module,
    batches: Iterator[tuple[Any, Captions | None]],
    loss: Loss | None,
    labels: LabelsOfBatches,
    probe: Probe,
    bar: Any,
) -> int:
    """The loop over batches; how many were run."""
    n_run = 0
    device = next((tensor.device for tensor in _parameters(model)), torch.device("cpu"))
    with stoppable() as stop:
        for batch, captions in batches:
            x, y = parts(moved(batch, device))
            by_class = labels.of(batch)
            seen = probe.n_images
            args, kwargs = arguments(x)
            with stop.begun():
                with (
                    nullcontext() if by_class is None else probe.labels(by_class),
                    nullcontext() if captions is None else probe.captions(captions),
                ):
                    output = model(*args, **kwargs)
                if loss is not None:
                    for parameter in _parameters(
                        model
                    ):  # not model.zero_grad(), a name that a class may hide
                        parameter.grad = None
                    with _gradients_put_back(_leaves(batch)), labels.to_blame():
                        torch.autograd.backward(_loss_of(loss, output, y))
                n_run += 1
                bar.update(probe.n_images - seen)
    return n_run


def _captioned(
    batches: Iterable[Any], captions: Captions | None, sample_dim: int
) -> Iterator[tuple[Any, Captions | None]]:
    """Each batch with the captions of its samples, also of batches that are not run."""
    n_given = 0
    for batch in each_batch(batches):
        if captions is None:
            yield batch, None
            continue
        args, kwargs = arguments(parts(batch)[0])
        first = first_tensor(args, kwargs)
        n = 0 if first is None else n_samples(args, first, sample_dim)
        yield batch, captions[n_given : n_given + n]
        n_given += n


def _parameters(model: nn.Module) -> Collection[Tensor]:
    return ModuleTree.of(model).parameters().values()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C was pressed while `record` ran. A `KeyboardInterrupt`, so `except Exception` does not swallow it.

    The batch that was running is completed first, so that it counts everywhere or nowhere.

    What to do: use its `recording`, which is sound and may be saved, or let the interrupt pass.

    Attributes:
        recording: What the completed batches have shown; without layers if there were none.
    """

    def __init__(self, recording: Recording) -> None:
        super().__init__(f"interrupted after {recording.about.n_images:,} images")
        self.recording = recording


def _loss_of(loss: Loss, output: Any, y: Any) -> Tensor:
    try:
        return loss(output, y)
    except (TypeError, AttributeError) as error:
        if y is not None:
            raise
        raise BnprobeError(
            f"the loss failed and the batches have no targets ({' '.join(str(error).split())[:200]}). Pass batches of "
            "(x, y), or a loss that does not use y."
        ) from error


@contextmanager
def _gradients_put_back(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put every tensor's own `.grad` back after the block, whatever backward passes run inside."""
    kept = [(tensor, tensor.grad) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, gradient in kept:
            tensor.grad = gradient


def _leaves(value: Any) -> Iterator[Tensor]:
    """Leaf tensors in nested containers that require a gradient."""
    if isinstance(value, Tensor):
        if value.is_leaf and value.requires_grad:
            yield value
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item)
