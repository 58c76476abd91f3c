"""The laws of the gradients on a trained network."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from support.paths import DATA, ROOT
from support.runs import case_and_mode
from torch.nn import functional as F

import bnprobe
from bnprobe import models
from bnprobe.measures import tables
from bnprobe.models.image_folder import Batches, find_images, spread


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")
@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
def test_identities_hold_on_a_trained_network(training):
    """Fails if the identities, which are exact, are off by more than float32 rounding on real weights and images."""
    spec = importlib.util.spec_from_file_location("cifar_resnet", ROOT / "scripts" / "cifar_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.resnet20().train(training)
    model.load_state_dict(models.load_checkpoint(DATA / "cifar_resnet20.th"), strict=False)
    source = find_images(DATA / "cifar10_jpeg" / "test")
    preprocess = models.CropAndScale(size=32, resize=32)
    # batches of few classes, of whose gradient a norm in train mode removes more
    by_class = Batches(source, preprocess, 64, spread(len(source), 128))
    labelled = ((torch.stack(batch.images), torch.tensor(batch.labels)) for batch in by_class)
    recording = bnprobe.record(model, labelled, F.cross_entropy)
    layers = tables(recording).layers
    assert len(layers) == 19
    assert (layers["n_backward"] == 2).all()
    kept, other = ("gap_centre", "gap_map")[:: 1 if training else -1]
    assert layers[other].isna().all()
    # the stem's input is the image, which wants no gradient: its dx is still there, behind the convolution
    assert layers[kept].notna().all()
    assert layers["gap_weight"].notna().all()
    assert layers[kept].max() < 1e-4
    assert layers["gap_weight"].max() < 1e-4
    assert layers["energy_removed_layer"].between(-1e-6, 1).all()
    if not training:
        np.testing.assert_allclose(layers["energy_removed_layer"], 0, atol=1e-5)
    else:
        assert layers["energy_removed_layer"].max() > 0.05
