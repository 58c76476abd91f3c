"""Norms that were folded away are found by what folding leaves."""

from __future__ import annotations

from torch import nn

from bnprobe.norms import ModuleTree, folded_away


def test_norms_that_were_folded_are_named():
    """Fails if an identity elsewhere, or behind a convolution without bias, counts as a folded norm."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.Identity()
            self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, bias=False), nn.Identity()
            self.fc, self.q_norm = nn.Linear(4, 4), nn.Identity()
            self.conv3, self.drop = nn.Conv2d(4, 4, 3), nn.Identity()
            self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Identity())

    assert folded_away(ModuleTree.of(Net())) == ("bn1", "body.1")
