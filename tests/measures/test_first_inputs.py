"""What enters the first norm, whatever it is: images of any number of channels, sequences, volumes, measurements."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.measures import preprocessing

INPUTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "measurements": (lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)), (8,)),
    "three measurements": (lambda: nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16)), (3,)),
    "a sequence": (lambda: nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16)), (3, 20)),
    "a sequence of four": (lambda: nn.Sequential(nn.Conv1d(4, 16, 3), nn.BatchNorm1d(16)), (4, 20)),
    "a volume": (lambda: nn.Sequential(nn.Conv3d(3, 16, 3), nn.BatchNorm3d(16)), (3, 5, 8, 8)),
    **{
        f"images of {c} channels": (
            lambda c=c: nn.Sequential(nn.Conv2d(c, 16, 3), nn.BatchNorm2d(16)),  # type: ignore[misc]
            (c, 8, 8),
        )
        for c in (1, 2, 3, 4, 5, 12)
    },
}


@pytest.mark.parametrize("moved", [False, True], ids=["as in training", "moved"])
@pytest.mark.parametrize("what", INPUTS)
def test_any_input_has_a_report(what, moved, tmp_path):
    """Fails if the constants of photographs meet channels that they do not have, or explain what is no photograph."""
    make, shape = INPUTS[what]

    def some() -> Tensor:
        return torch.randn(64, *shape)

    model = make().train()
    for _ in range(60):
        model(some())
    batches = [(3 * some() + 2 if moved else some(), None) for _ in range(2)]
    recording = bnprobe.record(model.eval(), batches)
    report = bnprobe.report(recording)
    assert ("data-shifted" in set(report.findings["rule"])) == moved
    assert report.to_html(tmp_path / "page.html").stat().st_size
    if what not in ("images of 1 channels", "images of 3 channels"):
        assert not set(preprocessing.preprocessing(recording)["mistake"]) - {""}
