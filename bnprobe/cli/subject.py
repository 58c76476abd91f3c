"""What to probe and on which images, as options of a command, and the recording made of it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.errors import BnprobeError
from bnprobe.printing import note

if TYPE_CHECKING:
    from bnprobe.models import Subject
    from bnprobe.models.image_folder import Batches
    from bnprobe.models.user_batches import UserBatches
    from bnprobe.recording import Recording


def add_subject(
    command: argparse.ArgumentParser,
    twice: bool = False,
    reading: bool = True,
    data: str = "default: the demo's digits",
    instead: str = "",
) -> None:
    """The options; where the command has two sides (`twice`), those that may differ are lists. `reading` adds those of what
    is recorded; `data` says what happens without images, `instead` where they are named if not by these options."""
    several: dict[str, Any] = {"action": "append"} if twice else {}
    command.add_argument(
        "--weights", metavar="NAME", **several, help="torchvision weights: DEFAULT, IMAGENET1K_V1, ..."
    )
    command.add_argument(
        "--checkpoint", metavar="FILE", **several, help="state dict to load: .pt .pth .th .safetensors"
    )
    command.add_argument(
        "--data",
        metavar="DIR",
        **several,
        help=instead or f"folder of images, flat or with a sub-folder per class ({data})",
    )
    command.add_argument(
        "--batches",
        metavar="NAME",
        **several,
        help=instead
        or "instead of images: package.module:function, a function without arguments that returns batches (an iterable of "
        "x or (x, y), as for bnprobe.record), for models of text, sound, tables, ...",
    )
    command.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="use N images, spread evenly over the folder; of --batches, the first N batches",
    )
    command.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="images per batch (default 16)"
    )
    command.add_argument(
        "--size",
        type=_size,
        metavar="PX",
        help="side of the square that images are resized and cropped to, or WIDTHxHEIGHT to resize them to, as 320x240",
    )
    command.add_argument(
        "--mean",
        type=_per_channel,
        metavar="R,G,B",
        help="mean to subtract from pixels in 0..1; one number for gray images",
    )
    command.add_argument("--std", type=_per_channel, metavar="R,G,B", help="std to divide by")
    if reading:
        _add_reading(command)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--layers", metavar="PATTERN", action="append", help="record only norm layers whose path matches"
    )
    command.add_argument(
        "--loss",
        choices=("cross_entropy",),
        help="also run backward passes; labels are the positions of the class folders in sorted order",
    )
    command.add_argument("--no-histograms", action="store_true", help="do not record distributions")
    command.add_argument(
        "--mask",
        metavar="NAME",
        help="argument of the model that says which positions count, as attention_mask (~NAME: it is true for padding), or "
        "where packed sequences begin, as cu_seqlens; for --batches of dicts or tuples",
    )
    command.add_argument(
        "--sample-dim",
        type=_dimension,
        default=0,
        metavar="D",
        help="dimension of the sample in the model's first tensor (default 0; 1 for inputs of shape T, N, C)",
    )
    command.add_argument(
        "--unit",
        metavar="WORD",
        help="what a sample is called: images, sequences, tokens, clips, documents, ...",
    )


def add_exemplars(command: argparse.ArgumentParser) -> None:
    """The option --exemplars."""
    command.add_argument(
        "--exemplars",
        type=_count,
        default=0,
        metavar="N",
        help="also keep, for each channel, the N images on which its mean after the norm is highest, and lowest",
    )


def _count(text: str) -> int:
    """A whole number, 0 for none, as the type of an option."""
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number")
    return int(text)


def positive(text: str) -> int:
    """A whole number of at least 1, as the type of an option."""
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number of at least 1")
    return int(text)


def _dimension(text: str) -> int:
    """The number of a dimension."""
    if not text.isdecimal() or len(text) > 2:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not the number of a dimension, counted from 0")
    return int(text)


def _size(text: str) -> int | tuple[int, int]:
    """A side, or height and width."""
    width, times, height = text.lower().partition("x")
    try:
        return (positive(height), positive(width)) if times else positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text[:20]!r} is neither a side like 224 nor WIDTHxHEIGHT like 320x240, of at least 1"
        ) from None


def _per_channel(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a number for each channel, like 0.485,0.456,0.406, or one for gray images"
        )
    return values


def subject_and_batches(options: argparse.Namespace) -> tuple[Subject, Batches | UserBatches]:
    """The model that the options name, and the images in batches of its inputs, or the user's own batches."""
    from bnprobe import models
    from bnprobe.models import image_folder
    from bnprobe.models.user_batches import user_batches

    own = user_batches(options.batches, options.limit) if _own_batches(options) else None
    source = image_folder.find_images(options.data) if options.data else image_folder.demo_images()
    subject = models.subject(
        options.subject,
        weights=options.weights,
        checkpoint=options.checkpoint,
        size=options.size,
        mean=options.mean,
        std=options.std,
    )
    if own is not None:
        words = f"none by bnprobe: inputs as {options.batches} makes them"
        return replace(subject, preprocess_words=words, inputs_words="", normalize=None), own
    if not options.data:
        note(
            f"no --data, so {source.words} are used: the page shows how the model responds to them, not to its own data."
        )
    return subject, source.batches(subject.preprocess, options.batch_size, options.limit)


def _own_batches(options: argparse.Namespace) -> bool:
    """Whether batches come ready-made; refuses options that would change nothing then."""
    if not options.batches:
        return False
    given = [f"--{name}" for name in ("data", "size", "mean", "std") if getattr(options, name)]
    if given:
        raise BnprobeError(
            f"--batches {options.batches} makes the inputs, so {', '.join(given)} can change nothing. Leave "
            f"{'it' if len(given) == 1 else 'them'} out, or give images with --data instead."
        )
    return True


def inputs_of(subject: Subject, batches: Batches | UserBatches) -> UserBatches | _Inputs:
    """Batches as `record` takes them, to be read as often as one likes."""
    from bnprobe.models.user_batches import UserBatches

    return batches if isinstance(batches, UserBatches) else _Inputs(subject, batches)


def labels_of_the_model(
    subject: Subject, batches: Any, without: str = "decisions are compared with those of the model as it is"
) -> Any:
    """The batches without labels where the folder's classes are not the model's, which their number tells.

    `without` says what is done then.
    """
    from bnprobe.experiments.outputs import n_classes
    from bnprobe.experiments.recalibrate import output_of
    from bnprobe.models.user_batches import UserBatches

    if isinstance(batches, UserBatches) or not batches.has_labels:
        return batches
    folder, model = (
        len(batches.source.classes),
        n_classes(output_of(subject.model, next(iter(inputs_of(subject, batches))))),
    )
    if folder == model:
        return batches
    note(
        f"the folder has {folder:,} classes and the model's output {model or 'none'}, so its labels are not "
        f"the model's: {without}."
    )
    return replace(batches, source=replace(batches.source, labels=None))


@dataclass(frozen=True)
class _Inputs:
    """Images in batches of a model's inputs, with their labels; `captions` are those of the images read so far."""

    subject: Subject
    batches: Batches
    captions: list[Path | str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        import torch

        self.captions.clear()
        for batch in self.batches:
            self.captions.extend(batch.captions)
            yield self.subject.to_inputs(batch.images), torch.tensor(batch.labels or [])


def recorded(
    subject: Subject,
    batches: Batches | UserBatches,
    layers: list[str] | None,
    histograms: bool,
    train_mode: bool,
    loss: str | None,
    *,
    exemplars: int = 0,
    mask: str | None = None,
    sample_dim: int = 0,
    unit: str | None = None,
) -> Recording:
    """Record the subject on the batches; what the user's model raises becomes one line of ours."""
    import torch

    from bnprobe.norms.module_tree import set_mode
    from bnprobe.probe.record import record

    if loss and not batches.has_labels:
        raise BnprobeError(
            f"--loss {loss} needs labels. Give a folder with one sub-folder per class as --data."
        )
    model, inputs = set_mode(subject.model, train_mode), inputs_of(subject, batches)
    with running(subject, batches):
        recording = record(
            model,
            inputs,
            getattr(torch.nn.functional, loss) if loss else None,
            layers=layers,
            histograms=histograms,
            n_images=batches.n_images,
            model_name=subject.name,
            weights=subject.weights,
            data=batches.words,
            preprocessing="; ".join(filter(None, (subject.preprocess_words, subject.inputs_words))),
            normalize=subject.normalize,
            exemplars=exemplars,
            captions=inputs.captions if exemplars and isinstance(inputs, _Inputs) else None,
            mask=mask,
            sample_dim=sample_dim,
            unit=unit,
        )
    return described(recording, batches)


def samples_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options that say what counts as a sample and as a position, as `recorded` takes them."""
    return {name: getattr(options, name) for name in ("mask", "sample_dim", "unit")}


@contextmanager
def running(subject: Subject, batches: Batches | UserBatches) -> Iterator[None]:
    """What the user's model raises inside becomes one line of ours."""
    try:
        yield
    except BnprobeError:
        raise
    except Exception as error:  # the user's model may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise BnprobeError(f"{subject.name} failed on its inputs: {reason}. {batches.advice}") from error


def described(recording: Recording, batches: Batches | UserBatches) -> Recording:
    """With what is known of the images only after they were read."""
    from bnprobe.models.user_batches import UserBatches

    notes, samples = (*recording.about.notes, *_unreadable(batches)), recording.samples
    if samples is not None and batches.has_labels and not isinstance(batches, UserBatches):
        samples = replace(samples, classes=batches.source.classes)
    about = replace(recording.about, data=batches.words_read, notes=notes)
    return replace(recording, about=about, samples=samples)


def _unreadable(batches: Batches | UserBatches) -> list[str]:
    """A note on the images that could not be read, also printed."""
    bad = batches.unreadable
    if not bad:
        return []
    named = ", ".join(f"{image.path.name} ({image.reason})" for image in bad[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    said = f"{len(bad)} of {batches.n_images} images could not be read and were left out: {named}{more}."
    note(said)
    return [said]
