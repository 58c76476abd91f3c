"""What the vectors of a real network are worth: the CIFAR ResNet-20 on JPEG test images, whose trends were known before."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from support.paths import DATA
from torchvision.transforms.functional import normalize, to_tensor

import bnprobe
from scripts.cifar_resnet import resnet20

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")

N_PER_CLASS = 10


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """The first of each class of the held-out images, as the network was trained on."""
    x, y = [], []
    for label, folder in enumerate(sorted((DATA / "cifar10_jpeg" / "test").iterdir())):
        for path in sorted(folder.glob("*.jpg"))[:N_PER_CLASS]:
            x.append(normalize(to_tensor(Image.open(path)), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
            y.append(label)
    return torch.stack(x), torch.tensor(y)


def test_the_first_and_all_norms_need_their_vectors_and_the_last_does_not() -> None:
    """Two CIFAR ResNets of other depths: all γ as 1, permuted β or μ = 0 is chance, dropped signs of γ cost little; β of the
    first norm permuted costs most of all single vectors, and deep norms next to nothing."""
    saved = torch.load(DATA / "cifar_resnet20.th", map_location="cpu", weights_only=True)["state_dict"]
    model = resnet20()
    model.load_state_dict({name.removeprefix("module."): t for name, t in saved.items()}, strict=False)
    study = bnprobe.ablate(
        model.eval(), [images()], vectors=("weight", "bias"), layers=["bn1", "layer3.2.bn?", "layer1.0.bn1"]
    )
    table = study.table.set_index(["layer", "vector", "replacement"])
    before = table["before"].iloc[0]
    assert before > 0.7
    assert table.loc[("bn1", "bias", "permuted"), "after"] < before - 0.05
    assert table.loc[("layer3.2.bn2", "bias", "permuted"), "after"] > before - 0.06
    assert table.loc[("layer3.2.bn2", "weight", "permuted"), "after"] > before - 0.06
    assert table.loc[("", "weight", "unsigned"), "agreement"] > table.loc[("", "weight", "1"), "agreement"]
    assert table.loc[("", "bias", "permuted"), "after"] < table.loc[("", "weight", "unsigned"), "after"]
