"""One door for two kinds of names: a torchvision model, or `package.module:function`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bnprobe.errors import UnknownModel
from bnprobe.models.preprocessing import Given, Size
from bnprobe.models.subject import Subject
from bnprobe.models.torchvision_models import torchvision_subject
from bnprobe.models.user_model import own_subject


def subject(
    name: str,
    *,
    weights: str | None = None,
    checkpoint: Path | str | None = None,
    size: Size | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Subject:
    """Build what `name` names: a torchvision model, or `package.module:function` of your own.

    `weights` names an entry of torchvision ("DEFAULT", "IMAGENET1K_V1"); `checkpoint` is a file of tensors;
    with both, the file is loaded by that entry's recipe; with neither, weights are random with a fixed seed.
    `size` (a side, or height and width), `mean` and `std` replace the preprocessing's own, for classification
    models and your own.
    Raises UnknownModel for a name, BadCheckpoint for a file, both in one line with what to do.
    """
    given = Given(size, None if mean is None else tuple(mean), None if std is None else tuple(std))
    path = None if checkpoint is None else Path(checkpoint)
    if ":" not in name:
        return torchvision_subject(name, weights, path, given)
    if weights is None:
        return own_subject(name, path, given)
    raise UnknownModel(
        f"weights {weights} is a name of torchvision, but {name} is your own model. Use --checkpoint FILE."
    )
