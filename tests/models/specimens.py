"""What the tests of the zoo share: small models and state dicts, and how they say what was refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from bnprobe import models

TINY = "mobilenet_v3_small"  # builds in a tenth of a second
LINEAR = (
    "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))\n"
)


def raised(kind: type[Exception], match: str, *args: object, **options: object) -> str:
    """What `zoo.subject` says when refused; always one line."""
    with pytest.raises(kind, match=match) as error:
        models.subject(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict no initialization would make: every number moved."""
    return {
        key: value + 1 if value.is_floating_point() else value for key, value in model.state_dict().items()
    }


def put_in_cache(name: str, state: object) -> Path:
    """Save `state` where torchvision looks for the default weights of `name`."""
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    file = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return file


def share_right(subject: models.Subject, batches) -> float:
    """Share (0..1) of images that `subject` gives their own label."""
    with torch.no_grad():
        right = [
            subject.model(*subject.to_inputs(batch.images)).argmax(1) == torch.tensor(batch.labels)
            for batch in batches
        ]
    return float(torch.cat(right).float().mean())
