"""What a recording says of the run beside its numbers."""

from __future__ import annotations

import torch
from support.models import BY_NAME
from support.runs import recorded


def test_about_says_what_was_probed():
    """Fails if the parameters of the head are left out, or the images of one batch."""
    model = BY_NAME["mixed"].model()
    about = recorded(model, *BY_NAME["mixed"].batches()).about
    assert about.model == "Mixed"
    assert about.n_parameters == sum(p.numel() for p in model.parameters())
    assert (about.n_forwards, about.n_images) == (3, 9)
    assert about.seconds > 0
    assert "cpu" in about.device
    assert torch.__version__ in about.versions
