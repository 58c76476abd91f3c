"""Pruning: only channels that give later layers nothing but zeros go, out of every layer at once, and outputs stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.fingerprint import Fingerprint
from experiments.surgery.models import lived_in, pictures


def chain(*behind: nn.Module) -> nn.Sequential:
    """A convolution with eight channels, a norm, a ReLU, and what reads them; channels 1 and 6 are always 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *behind)
    lived_in(model)
    with torch.no_grad():
        model[1].bias[4] = 1
        model[1].weight[[1, 6, 4]] = 0
        model[1].bias[[1, 6]] = -0.5
    return model


BEHIND = {
    "convolution": [nn.Conv2d(8, 5, 3, padding=1)],
    "pooled": [nn.MaxPool2d(2), nn.Conv2d(8, 5, 1)],
    "mean": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)],
    "flattened": [nn.Dropout(), nn.Flatten(), nn.Linear(8 * 5 * 3, 3)],
}


@pytest.mark.parametrize("name", BEHIND)
def test_channels_without_effect_go_and_outputs_stay(name: str) -> None:
    """Fails if other rows or columns are cut: in float64 the outputs are the same, on inputs that pruning never saw."""
    model = chain(*BEHIND[name]).double()
    found = bnprobe.prune(model, [pictures().double()])
    assert found.layers["done"].tolist() == ["2 of 8 channels removed"]
    assert (found.model[0].out_channels, found.model[1].num_features) == (6, 6)
    assert found.model[0].weight.shape == (6, 4, 3, 3)
    other = pictures(seed=5).double() * 7 - 3
    torch.testing.assert_close(found.model(other), model(other), rtol=1e-12, atol=1e-12)
    assert found.effect.largest_relative < 1e-12


def test_what_is_removed_is_what_numpy_says() -> None:
    model = chain(nn.Conv2d(8, 5, 3))
    made = bnprobe.prune(model, [pictures()]).model
    kept = [0, 2, 3, 4, 5, 7]
    np.testing.assert_array_equal(made[0].weight.detach(), model[0].weight.detach()[kept])
    np.testing.assert_array_equal(made[1].running_var, model[1].running_var[kept])
    np.testing.assert_array_equal(made[3].weight.detach(), model[3].weight.detach()[:, kept])


def test_a_filter_of_zeros_counts_by_its_constant() -> None:
    model = chain(nn.Conv2d(8, 5, 3))
    with torch.no_grad():
        for channel, target in ((0, -2.0), (2, 2.0)):
            model[0].weight[channel] = 0
            model[0].bias[channel] = model[1].running_mean[channel]
            model[1].bias[channel] = target
    found = bnprobe.prune(model, [pictures()])
    assert found.layers["done"].tolist() == ["3 of 8 channels removed"]
    assert found.effect.largest_relative < 1e-5


def test_data_remove_what_weights_cannot_prove() -> None:
    """A channel far below 0 on these batches, which larger inputs would turn on."""
    model = chain(nn.Conv2d(8, 5, 3))
    with torch.no_grad():
        model[1].weight[3], model[1].bias[3] = 1, -30
    assert bnprobe.prune(model, [pictures()]).layers["done"].tolist() == ["2 of 8 channels removed"]
    found = bnprobe.prune(model, [pictures(), pictures(seed=1)], proof="data")
    x = torch.cat([pictures(), pictures(seed=1)])
    never = (model[:2](x).amax((0, 2, 3)) <= 0).sum().item()
    assert never == 3
    assert found.layers["done"].tolist() == ["3 of 8 channels removed"]
    assert found.effect.largest_relative < 1e-5


class Joined(nn.Module):
    """What else reads the channels, by name."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.how = chain(), how
        self.next, self.depthwise = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first[1](self.first[0](x))
        z = y.relu()
        match self.how:
            case "sum":
                return self.next(z) + z
            case "before":
                return self.next(z) + self.next(y)
            case "grouped":
                return self.depthwise(z)
            case "output":
                return z
            case "sigmoid":
                return self.next(y.sigmoid())
            case "channels":
                return self.next(z) * z.mean(1, keepdim=True)
            case "two inputs":
                return self.next(z) + self.next(torch.ones_like(z))
            case _:
                return torch.cat([z, x[:, :, 1:-1, 1:-1]], 1)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("sum", "its output enters a sum"),
        ("before", "before a ReLU"),
        ("grouped", "is grouped, transposed or reads tokens"),
        ("output", "is an output of the model"),
        ("sigmoid", "its output enters sigmoid before a ReLU"),
        ("channels", "its output enters avg_pool"),
        ("two inputs", "next also reads other values"),
        ("cat", "its output enters a concatenation"),
    ],
)
def test_channels_that_others_read_stay(how: str, says: str) -> None:
    model = Joined(how).eval()
    found = bnprobe.prune(model, [pictures()])
    assert found.layers["done"].tolist() == [""]
    assert says in found.layers["why"][0]
    assert found.effect.largest_change == 0


def test_one_channel_is_kept_and_the_model_is_as_it_was() -> None:
    model = chain(nn.Conv2d(8, 5, 3))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(-1)
    before = dict(Fingerprint.of(ModuleTree.of(model)).states)
    found = bnprobe.prune(model, [pictures()])
    assert dict(Fingerprint.of(ModuleTree.of(model)).states) == before
    assert found.model[1].num_features == 1
    assert found.effect.largest_change < 1e-6


def test_wrong_uses_are_one_line() -> None:
    with pytest.raises(BnprobeError, match="proof='all' is neither"):
        bnprobe.prune(chain(nn.Conv2d(8, 5, 3)), [pictures()], proof="all")
    with pytest.raises(NoNormLayers, match="can be pruned: 1: a group norm"):
        bnprobe.prune(nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8)).eval(), [pictures()])

    class Numbered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.head = chain(), nn.Linear(8 * 15, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.net(x).reshape(-1, 8 * 15))

    with pytest.raises(BnprobeError, match="does not run with fewer channels"):
        bnprobe.prune(Numbered().eval(), [pictures()])
