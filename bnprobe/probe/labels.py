"""Class labels of a batch, in any accepted form, as one array; and whether a target is class labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnprobe.errors import BadLabels
from bnprobe.probe.batches import arguments, parts
from bnprobe.probe.tensors import first_tensor, n_samples
from bnprobe.stats.moments import Array

MOST_CLASSES = 1000
"""Up to this many distinct targets are taken for class labels; each class costs one number per channel."""

NONE = -1.0
"""Marks an unlabeled sample, as any negative number does."""

Labels = Tensor | np.ndarray[Any, Any] | Sequence[int | np.integer[Any] | Tensor | None]
"""Class labels, one integer per sample; see `labels_of` for what is refused at run time."""

_FORM = "one integer per sample, as a 1-D tensor, array or list, with -1 or None for unlabeled samples"


def labels_of(labels: Any) -> Array:
    """Labels as float64, shape (N,), negative where a sample has none.

    Raises BadLabels for anything but a 1-D integer tensor, array, or list.
    """
    if isinstance(labels, Tensor):
        whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        found = np.asarray(labels.detach().cpu()) if whole and labels.dim() == 1 else None
        said = f"a {labels.dtype} tensor of shape {tuple(labels.shape)}"
    elif isinstance(labels, np.ndarray):
        found = labels if labels.dtype.kind in "iu" and labels.ndim == 1 else None
        said = f"an array of {labels.dtype}, shape {labels.shape}"
    else:
        found, said = _listed(labels), type(labels).__name__
    if found is None:
        raise BadLabels(f"labels must be {_FORM}, got {said}. For one-hot rows pass y.argmax(1).")
    return np.maximum(found.astype(np.float64), NONE)


def _listed(labels: Any) -> np.ndarray[Any, Any] | None:
    """A list of integers and Nones as an array; None for anything else."""
    if not isinstance(labels, Sequence) or isinstance(labels, str | bytes):
        return None
    values = [NONE if label is None else label.item() if _is_number(label) else label for label in labels]
    if any(isinstance(value, bool) or not isinstance(value, int) for value in values if value is not NONE):
        return None
    return np.array(values, dtype=np.float64)


def _is_number(label: Any) -> bool:
    """Whether it is a torch or numpy scalar."""
    return isinstance(label, Tensor | np.generic) and label.ndim == 0


def check_length(n_labels: int, n_samples: int) -> None:
    """Raises BadLabels unless there is one label per sample."""
    if n_labels != n_samples:
        raise BadLabels(
            f"got {n_labels} labels for a batch of {n_samples} samples. Pass one label per sample, -1 or None for "
            "unlabeled samples."
        )


class LabelsOfBatches:
    """The class labels of batches, for as long as the targets look like classes.

    `sample_dim` is that of `attach`. Targets of some batches that are one integer per sample make those of all class
    labels, so that another number of them is an error; not if `packed`, where sequences are samples that only a mask tells.
    """

    def __init__(self, sample_dim: int = 0, packed: bool = False) -> None:
        self._known: set[float] = set()
        self._sample_dim, self._packed = sample_dim, packed
        self._unfit: tuple[int, int] | None = None

    def of(self, batch: Any) -> Any:
        """The target, if it is one label per sample; None for any other form, and once there are too many classes.

        Raises BadLabels for a list of labels of another length, where those of other batches have one per sample.
        """
        x, y = parts(batch)
        args, kwargs = arguments(x)
        first = first_tensor(args, kwargs)
        if y is None or first is None or not first.dim() or len(self._known) > MOST_CLASSES:
            return None
        try:
            labels = labels_of(y)
        except BadLabels:
            return None
        n = n_samples(args, first, self._sample_dim)
        if len(labels) == n:
            self._known.update(labels.tolist())
        else:
            self._unfit = self._unfit or (len(labels), n)
        if self._unfit and self._known and not self._packed:
            check_length(*self._unfit)
        return y if len(labels) == n and len(self._known) <= MOST_CLASSES else None

    @contextmanager
    def to_blame(self) -> Iterator[None]:
        """Raises BadLabels where a loss fails inside, after labels that are not one per sample."""
        try:
            yield
        except Exception:
            if self._unfit:
                check_length(*self._unfit)
            raise

    @property
    def unused(self) -> tuple[str, ...]:
        """A note on integers that are no class labels, as there is not one per sample."""
        if self._unfit is None:
            return ()
        n_labels, n = self._unfit
        return (
            f"Targets are integers, but not one per sample ({n_labels:,} for {n:,} samples in the first such batch), so "
            "they were not used as class labels.",
        )
