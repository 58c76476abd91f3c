"""The subject that comes with bnprobe: a small network, trained on handwritten digits, and the facts of its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn
from torchvision import models

from bnprobe.files import open_input
from bnprobe.files.header import read_header
from bnprobe.models.checkpoint_file import load_checkpoint
from bnprobe.models.load_weights import fit, sha256
from bnprobe.models.preprocessing import CropAndScale
from bnprobe.models.subject import Subject, seeded

DEMO_WEIGHTS = Path(__file__).parent / "demo_data" / "digits_mobilenet_v2.safetensors"
DEMO_STUDY = DEMO_WEIGHTS.with_name("digits_worth.json")
"""What each vector of the demo network is worth on its 360 digits, by `scripts/train_demo.py`."""

DEMO_PREPROCESS = CropAndScale(size=32, resize=32, mean=(0.3, 0.3, 0.3), std=(0.35, 0.35, 0.35))


def demo() -> Subject:
    """The shipped default: a narrow mobilenet_v2 that reads 8 x 8 handwritten digits."""
    with seeded():
        model = demo_network()
    fit(model, load_checkpoint(DEMO_WEIGHTS), DEMO_WEIGHTS.name, "the demo network")
    return Subject(
        model=model.eval(),
        name="mobilenet_v2 (digits demo)",
        weights=_weights_words(),
        preprocess=DEMO_PREPROCESS,
        preprocess_words=DEMO_PREPROCESS.words,
        normalize=DEMO_PREPROCESS.constants,
    )


def demo_facts() -> dict[str, Any]:
    """What training stored with the shipped weights: data, n_train, n_held_out, accuracies (0..1)."""
    with open_input(DEMO_WEIGHTS) as file:
        facts: dict[str, Any] = json.loads(read_header(file).metadata["facts"])
    return facts


def demo_network() -> nn.Module:
    """The architecture of the demo, untrained; at 32 x 32 its last stage still has 2 x 2 positions."""
    # t expansion, c channels, n blocks, s stride: torchvision's own table, with stage 2 at stride 1
    stages = [
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    network: nn.Module = models.mobilenet_v2(
        num_classes=10, width_mult=0.25, inverted_residual_setting=stages
    )
    return network


def _weights_words() -> str:
    facts = demo_facts()
    return (
        f"shipped with bnprobe, sha256 {sha256(DEMO_WEIGHTS)[:8]}…: trained by scripts/train_demo.py on "
        f"{facts['n_train']:,} of the {facts['n_train'] + facts['n_held_out']:,} {facts['data']}; classifies "
        f"{facts['held_out_accuracy']:.1%} of the {facts['n_held_out']} held-out ones correctly "
        f"({facts['train_accuracy']:.1%} of the training ones)"
    )
