"""Norms that were folded away are found by what folding leaves."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.ao.nn.intrinsic import ConvReLU2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bnprobe.norms import ModuleTree
from bnprobe.norms.folded import _is_matrix, folded_away, has_matrix, identities_for_norms


def test_identities_that_may_stand_for_norms_are_named():
    """Fails if an identity elsewhere, or behind a convolution without bias, counts as a folded norm."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.Identity()
            self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, bias=False), nn.Identity()
            self.fc, self.q_norm = nn.Linear(4, 4), nn.Identity()
            self.conv3, self.drop = nn.Conv2d(4, 4, 3), nn.Identity()
            self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Identity())

    assert identities_for_norms(ModuleTree.of(Net())) == ("bn1", "body.1")


class Named(nn.Module):
    """A convolution, and behind it something under a name."""

    def __init__(
        self, name: str, behind: nn.Module, *, bias: bool = True, before: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=bias) if before is None else before
        self.add_module(name, behind)


class OwnIdentity(nn.Identity):
    """Not what folding leaves."""


@pytest.mark.parametrize(
    ("model", "places"),
    [
        (Named("bn1", nn.Identity()), ("bn1",)),
        (Named("BatchNorm", nn.Identity()), ("BatchNorm",)),
        (Named("norm", nn.Identity()), ("norm",)),
        (Named("dropout", nn.Identity()), ()),
        (Named("bn", nn.Identity(), bias=False), ()),
        (Named("bn", OwnIdentity()), ()),
        (Named("bn", nn.ReLU()), ()),
        (Named("bn", nn.Identity(), before=nn.Linear(3, 4)), ()),
        (Named("bn", nn.Identity(), before=nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), ("bn",)),
        (Named("bn", nn.Identity(), before=nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3))), ()),
        (Named("bn", nn.Identity(), before=nn.Sequential()), ()),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity()), ("1",)),
        (nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 3)), ()),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Identity()), ()),
        (nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity())), ("0.1",)),
        (
            nn.Sequential(OrderedDict(a=Named("bn", nn.Identity()), b=Named("norm", nn.Identity()))),
            ("a.bn", "b.norm"),
        ),
    ],
)  # fmt: skip
def test_an_identity_in_the_place_of_a_norm(model: nn.Module, places: tuple[str, ...]) -> None:
    """Fails if an identity that the architecture chose is called a folded norm, or one behind a folded pair is missed."""
    assert identities_for_norms(ModuleTree.of(model)) == places


def pair(*, behind: nn.Module | None = None, bias: bool = True, offset: float = 0.1) -> nn.Sequential:
    """A convolution with 27 inputs per filter, whose biases torch draws below 0.19, and an identity behind it."""
    convolution = nn.Conv2d(3, 4, 3, bias=bias)
    if convolution.bias is not None:
        nn.init.constant_(convolution.bias, 0.1)
        convolution.bias.data[2] = offset
    return nn.Sequential(convolution, nn.Identity() if behind is None else behind)


def fused() -> nn.Sequential:
    """What torch makes of a convolution without a bias and its norm."""
    both = nn.Conv2d(3, 4, 3, bias=False).eval(), nn.BatchNorm2d(4).eval()
    return nn.Sequential(fuse_conv_bn_eval(*both), nn.Identity())


def frozen() -> nn.Sequential:
    both = pair()
    return both.requires_grad_(False)


def of_torch() -> nn.Sequential:
    return nn.Sequential(ConvReLU2d(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Identity())


NORM, OFFSET = nn.BatchNorm2d(4), -1.0


@pytest.mark.parametrize(
    ("parts", "places"),
    [
        ([pair()], ()),
        ([pair(offset=OFFSET)], ()),
        ([fused()], ("0.1",)),
        ([frozen()], ()),
        ([of_torch()], ("0.1",)),
        ([pair(behind=NORM), pair(offset=OFFSET)], ("1.1",)),
        ([pair(behind=NORM), pair(offset=0.5)], ()),
        ([pair(behind=NORM, bias=False), pair(offset=OFFSET)], ()),
        ([pair(behind=nn.ReLU()), pair(offset=OFFSET)], ()),
        ([pair(behind=NORM), nn.Sequential(pair(offset=OFFSET))], ()),
        ([pair(behind=NORM), nn.Sequential(nn.LazyConv2d(4, 3), nn.Identity())], ()),
    ],
    ids=[
        *("alone", "large", "fused by torch", "frozen", "torch's class", "beside a norm", "beside a norm, small"),
        *("where norms have no bias before them", "beside an activation", "elsewhere", "lazy"),
    ],
)  # fmt: skip
def test_what_shows_that_a_norm_was_folded(parts: list[nn.Module], places: tuple[str, ...]) -> None:
    """Fails if an identity alone is evidence, or one that fusion left is not."""
    assert folded_away(ModuleTree.of(nn.Sequential(*parts))) == places


@pytest.mark.parametrize(
    ("shape", "mixes"),
    [
        ((3,), False),
        ((1, 3, 1, 1), False),
        ((1, 1), False),
        ((), False),
        ((3, 2), True),
        ((4, 3, 3, 3), True),
        ((2, 2), True),
    ],
)
def test_parameters_that_mix_channels(shape: tuple[int, ...], mixes: bool) -> None:
    """Fails if a vector in any shape is taken for a matrix, or a matrix for a vector."""
    assert _is_matrix(torch.ones(shape)) is mixes
    module = nn.Module()
    module.register_parameter("p", nn.Parameter(torch.ones(shape)))
    assert has_matrix([module]) is mixes


def test_a_matrix_inside_or_to_come_mixes() -> None:
    """Fails if only a module's own parameters are looked at, or a lazy one is asked for its size."""
    assert has_matrix(nn.Sequential(nn.BatchNorm2d(3), nn.Linear(2, 2)).modules())
    assert not has_matrix(nn.Sequential(nn.BatchNorm2d(3), nn.PReLU(4)).modules())
    assert has_matrix([nn.LazyLinear(3)])


def test_a_convolution_with_one_filter_has_a_bias_too() -> None:
    """Fails if the inputs of a filter are counted at a second one."""
    one = [nn.Sequential(nn.Conv2d(3, 1, 3), behind) for behind in (nn.BatchNorm2d(1), nn.Identity())]
    nn.init.constant_(one[1][0].bias, 0.6)  # type: ignore[arg-type]
    assert folded_away(ModuleTree.of(nn.Sequential(*one))) == ("1.1",)
    nn.init.constant_(one[1][0].bias, 0.57)  # type: ignore[arg-type]
    assert folded_away(ModuleTree.of(nn.Sequential(*one))) == (), "3 / √27 is 0.577"
