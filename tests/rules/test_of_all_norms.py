"""A note that every norm has is given once; what differs between norms stays with each."""

from __future__ import annotations

import torch
from torch import nn

import bnprobe
from bnprobe.rules.of_all_norms import once
from bnprobe.rules.rule import Finding


def note(layer: str, do: str = "Nothing.") -> Finding:
    return Finding("info", layer, "This norm is new.", f"{layer} has 3 channels.", do)


def test_a_note_of_every_norm_is_one() -> None:
    """Fails if a norm without the note is spoken for, other advice is lost, or the one norm of a network has no name."""
    both = [note("a"), note("b")]
    (one,) = once(both, 2, "Every norm is new.")
    assert (one.layer, one.says) == ("", "Every norm is new.")
    assert one.because == "so it is at all 2 places; at a, a has 3 channels."
    assert list(once(both, 3, "Every norm is new.")) == both
    assert list(once(both[:1], 1, "Every norm is new.")) == both[:1]
    apart = [note("a"), note("b", "Look.")]
    assert list(once(apart, 2, "Every norm is new.")) == apart
    assert list(once([], 0, "")) == []


def test_a_new_network_in_train_mode_is_told_once_of_each_fact() -> None:
    """Fails if the same is said at each of its norms, or of a norm that used other statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(part for _ in range(3) for part in (nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()))
    )
    batches = [torch.randn(32, 4) for _ in range(2)]
    new = bnprobe.report(bnprobe.record(model.eval(), batches)).findings
    assert new.loc[new["rule"] == "statistics-never-updated", "layer"].tolist() == [""]
    for part, layers in ((model, [""]), (model[:5], ["1", "4"])):
        model.eval()
        part.train()
        found = bnprobe.report(bnprobe.record(model, batches)).findings
        assert found.loc[found["rule"] == "batch-normalized", "layer"].tolist() == layers
