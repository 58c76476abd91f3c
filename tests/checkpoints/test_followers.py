"""A PReLU after a norm is seen in the file by its weight, and only there."""

from __future__ import annotations

import pytest
import torch
from support.checkpoints import as_read
from torch import Tensor, nn

import bnprobe
from bnprobe.checkpoints.followers import activations
from bnprobe.checkpoints.groups import grouped


def seen(state: dict[str, Tensor]) -> dict[str, str]:
    read = as_read(state)
    return activations(read, grouped(read).norms)


def norm(path: str, n: int = 4) -> dict[str, Tensor]:
    return {f"{path}.{k}": torch.ones(n) for k in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({**norm("bn"), "act.weight": torch.ones(4)}, {"bn": "prelu"}),
        ({"act.weight": torch.ones(4), **norm("bn")}, {"bn": "prelu"}),  # sorted names: act stands before bn
        ({**norm("a.bn"), "a.act.weight": torch.ones(1)}, {"a.bn": "prelu"}),
        ({**norm("a.bn1"), **norm("a.bn2"), "a.act2.weight": torch.ones(4)}, {"a.bn2": "prelu"}),
        ({"0.weight": torch.ones(4, 3), **norm("1"), "2.weight": torch.ones(4)}, {"1": "prelu"}),
        ({**norm("bn"), "act.weight": torch.ones(3)}, {}),  # of another width
        ({**norm("a.bn"), "b.act.weight": torch.ones(4)}, {}),
        ({**norm("bn"), "act.weight": torch.ones(4), "act.bias": torch.ones(4)}, {}),
        ({**norm("bn"), "norm2.weight": torch.ones(4)}, {}),  # an RMS norm has a lone weight, too
        ({"z.weight": torch.ones(4, 4), **norm("1"), "3.weight": torch.ones(4, 4)}, {}),
    ],
)
def test_a_lone_vector_beside_a_norm_is_its_activation(state, expected):
    """Fails if a PReLU is missed, or that of another norm, or another layer, is taken for one."""
    assert seen(state) == expected


def test_channels_before_a_prelu_are_not_called_dead():
    """Fails if "if a ReLU follows" is said where the file shows another activation."""
    for act, found in ((nn.PReLU(6), False), (nn.ReLU(), True)):
        model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), act)
        nn.init.constant_(model[1].bias, -9)
        rules = set(bnprobe.check(model.state_dict()).findings["rule"])
        assert ("channels-dead" in rules) is found
