"""Names, weights and checkpoints of torchvision's models, and every way to get them wrong."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torchvision
from support.checkpoints import same

from bnprobe import models
from bnprobe.errors import UnknownModel

from .specimens import TINY, changed_weights, put_in_cache, raised


@pytest.mark.parametrize(
    ("pattern", "has", "lacks"),
    [
        ("NET5", "resnet50", "resnet18"),
        ("resnet1?", "resnet18", "resnet101"),
        (None, "raft_small", "resnet5"),
    ],
)
def test_names_take_a_part_or_a_glob(pattern, has, lacks):
    """Fails if a glob is taken as a substring or the other way round."""
    found = models.names(pattern)
    assert has in found
    assert lacks not in found
    assert found == sorted(found)


def test_names_of_nothing_are_none():
    assert models.names("no such thing") == []


def test_unknown_name_offers_neighbours():
    said = raised(UnknownModel, r"Did you mean resnet50.*`bnprobe list` shows all", "resnet5")
    assert said.startswith('no model is called "resnet5"')


def test_name_like_nothing_still_says_what_to_do():
    said = raised(UnknownModel, "bnprobe list.*package.module:function", "zzzzzz")
    assert "Did you mean" not in said


def test_capitals_in_a_name_are_understood():
    assert models.subject("SqueezeNet1_1").name == "torchvision squeezenet1_1"


def test_random_weights_are_the_same_every_time_and_say_so():
    """Fails if the seed is not set: builds would follow the caller's random state."""
    torch.manual_seed(1)
    first = models.subject(TINY)
    torch.manual_seed(2)
    second = models.subject(TINY)
    assert same(first.model.state_dict(), second.model.state_dict())
    assert first.weights == "random initial weights (seed 0)"
    assert not any(module.training for module in first.model.modules())


def test_building_leaves_every_random_state_alone():
    """Fails if building draws from, or seeds, a generator of the caller."""
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    models.subject(TINY)
    models.demo()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_backbones_are_not_downloaded(name):
    """Fails if weights_backbone is left at its default: the offline fixture would raise."""
    assert models.subject(name).weights.startswith("random")


def test_weights_keep_what_torchvision_sets_beside_tensors():
    """Fails if weights are loaded into the plain network: GoogLeNet's transform_input would be off."""
    plain = torchvision.models.googlenet(init_weights=True)
    put_in_cache("googlenet", changed_weights(plain))
    assert models.subject("googlenet", weights="DEFAULT").model.transform_input
    assert not models.subject("googlenet").model.transform_input


def test_quantizable_models_take_float_weights():
    """Fails if quantized weights are asked for: their norms are folded away."""
    state = torchvision.models.shufflenet_v2_x0_5().state_dict()
    put_in_cache("shufflenet_v2_x0_5", state)
    assert same(models.subject("quantized_shufflenet_v2_x0_5", weights="DEFAULT").model.state_dict(), state)


def test_unknown_weights_list_the_known():
    raised(UnknownModel, "It has: IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT", "resnet50", weights="V9")


def test_auxiliary_heads_follow_the_checkpoint(tmp_path):
    """Fails if a network with, or without, auxiliary heads is refused for its heads."""
    for aux in (True, False):
        torch.save(
            torchvision.models.googlenet(init_weights=True, aux_logits=aux).state_dict(),
            tmp_path / f"{aux}.pt",
        )
        built = models.subject("googlenet", checkpoint=tmp_path / f"{aux}.pt").model
        assert (built.aux1 is not None) is aux


def test_torchvisions_own_file_loads_by_its_recipe(tmp_path):
    """Fails if a downloaded file, given by hand, misses what torchvision sets beside tensors."""
    file = tmp_path / torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(torchvision.models.googlenet(init_weights=True).state_dict(), file)
    subject = models.subject("googlenet", checkpoint=file)
    assert subject.model.transform_input
    assert subject.weights.startswith(f"IMAGENET1K_V1 from {file.name}, sha256 ")


def test_torchvisions_own_file_brings_its_preprocessing(tmp_path):
    """Fails if resnet50's older weights are prepared for as the newer: 256 px, not 232."""
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "resnet50-0676ba61.pth")
    assert (
        "256 px" in models.subject("resnet50", checkpoint=tmp_path / "resnet50-0676ba61.pth").preprocess_words
    )


def test_named_weights_from_a_given_file(tmp_path):
    """Fails if --checkpoint, the way round a missing download, is ignored when --weights is still there."""
    state = changed_weights(torchvision.models.resnet18())
    torch.save(state, tmp_path / "renamed.pth")
    subject = models.subject("resnet18", weights="DEFAULT", checkpoint=tmp_path / "renamed.pth")
    assert same(subject.model.state_dict(), state)
    assert subject.weights.startswith("IMAGENET1K_V1 from renamed.pth")
