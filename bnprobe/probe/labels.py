"""Class labels of a batch, in whatever form they come, as one array; and whether a target is labels at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnprobe.errors import BadLabels
from bnprobe.stats.moments import Array

NONE = -1.0
"""Stands for a sample without a label, as any negative number does."""

Labels = Tensor | np.ndarray[Any, Any] | Sequence[int | np.integer[Any] | Tensor | None]
"""Class labels, one integer per sample; see `labels_of` for what is refused at run time."""

_FORM = "one whole number per sample, in a 1-D tensor, array or list, with -1 or None for a sample without"


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
        raise BadLabels(f"labels must be {_FORM}; got {said}. Of one-hot rows give y.argmax(1).")
    return np.maximum(found.astype(np.float64), NONE)


def _listed(labels: Any) -> np.ndarray[Any, Any] | None:
    """A list of whole numbers and Nones; None where it is something else."""
    if not isinstance(labels, Sequence) or isinstance(labels, str | bytes):
        return None
    values = [NONE if label is None else label.item() if _is_number(label) else label for label in labels]
    if any(isinstance(value, bool) or not isinstance(value, int) for value in values if value is not NONE):
        return None
    return np.array(values, dtype=np.float64)


def _is_number(label: Any) -> bool:
    """Whether it is a scalar of torch or numpy."""
    return isinstance(label, Tensor | np.generic) and label.ndim == 0


def check_length(labels: Array, n_samples: int) -> None:
    """Raises BadLabels where there is not one label per sample."""
    if len(labels) != n_samples:
        raise BadLabels(
            f"{len(labels)} labels were given for a batch of {n_samples} samples. "
            "Give one for each, -1 or None for those without."
        )


def class_labels(target: Any, n_samples: int) -> Array | None:
    """The labels that a target is, or None: one whole number per sample, or it is something else."""
    try:
        labels = labels_of(target)
    except BadLabels:
        return None
    return labels if len(labels) == n_samples else None
