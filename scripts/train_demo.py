"""Train the model and keep the images that `bnprobe demo` shows.

A narrow mobilenet_v2 learns 1,437 of scikit-learn's 1,797 handwritten digits; the other 360 are held out and
shipped with it. Everything random is seeded and the threads are fixed, so two runs on one machine give the
same bits.

    python -m scripts.train_demo                 # a few minutes on two cores, into bnprobe/models/demo_data/
    python -m scripts.train_demo --out /tmp/try  # elsewhere
    python -m scripts.train_demo --study-only    # of the shipped network: measure again what its vectors are worth
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

import bnprobe
from bnprobe.models import DEMO_PREPROCESS, DEMO_STUDY, DEMO_WEIGHTS, demo, demo_network

SEED = 0
N_HELD_OUT = 360
EPOCHS = 60
BATCH_SIZE = 64
LEARNING_RATE = 0.1
WEIGHT_DECAY = 5e-4
THREADS = 2
DIGITS = 5
"""Significant digits of the study that is shipped."""


@dataclass(frozen=True)
class Digits:
    """Images (N, 8, 8) in 0..255 and their labels (N,)."""

    images: np.ndarray
    labels: np.ndarray


def split() -> tuple[Digits, Digits]:
    """Training and held-out digits: the same every time, every class in the same share."""
    images, labels = load_digits(return_X_y=True)
    # pixels are counts 0..16 of a 4 x 4 block
    images = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    train, held_out = train_test_split(
        np.arange(len(labels)), test_size=N_HELD_OUT, stratify=labels, random_state=SEED
    )
    held_out.sort()
    return Digits(images[train], labels[train]), Digits(images[held_out], labels[held_out])


def prepared(digits: Digits) -> tuple[Tensor, Tensor]:
    """Inputs (N, 3, 32, 32) by the demo's own preprocessing, and labels."""
    inputs = [DEMO_PREPROCESS(Image.fromarray(image).convert("RGB")) for image in digits.images]
    return torch.stack(inputs), torch.from_numpy(digits.labels).long()


def augmented(inputs: Tensor) -> Tensor:
    """Turn each image by up to 10 degrees, scale it by up to 10%, move it by up to 10%, on black ground."""
    n = len(inputs)
    angle = (torch.rand(n) * 2 - 1) * math.radians(10)
    scale = 1 + (torch.rand(n) * 2 - 1) * 0.1
    move = (torch.rand(n, 2, 1) * 2 - 1) * 0.2  # the grid is 2 wide
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(n, 2, 2)
    grid = F.affine_grid(
        torch.cat([turn * scale.view(n, 1, 1), move], dim=2), list(inputs.shape), align_corners=False
    )
    black = -torch.tensor(DEMO_PREPROCESS.mean).view(3, 1, 1) / torch.tensor(DEMO_PREPROCESS.std).view(
        3, 1, 1
    )
    return F.grid_sample(inputs - black, grid, align_corners=False) + black


def train(inputs: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """A trained network, in eval mode. Repeatable: seeds everything that draws."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    model = demo_network().train()
    n_steps = epochs * (len(inputs) // BATCH_SIZE)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=n_steps)
    for _ in tqdm(range(epochs), desc="training", unit="epoch", disable=None):
        # the last, smaller batch is left out: its statistics would be noisier than the others'
        for batch in torch.randperm(len(inputs)).split(BATCH_SIZE)[: len(inputs) // BATCH_SIZE]:
            optimizer.zero_grad()
            F.cross_entropy(model(augmented(inputs[batch])), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of images (0..1) whose highest score is their label's."""
    return float((model(inputs).argmax(1) == labels).float().mean())


def write(out: Path, model: nn.Module, held_out: Digits, facts: dict[str, object]) -> list[Path]:
    """Weights with their facts, and the held-out digits, into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    weights, images = out / DEMO_WEIGHTS.name, out / "held_out_digits.npz"
    # one entry, not several: safetensors writes entries in no fixed order
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    weights.write_bytes(save(state, metadata={"facts": json.dumps(facts, sort_keys=True)}))
    np.savez_compressed(images, images=held_out.images, labels=held_out.labels.astype(np.uint8))
    return [weights, images]


def worth(model: nn.Module, held_out: Digits, layers: str | None = None) -> bnprobe.Study:
    """What each vector of each norm is worth on the held-out digits; numbers are rounded, as the page shows fewer."""
    study = bnprobe.ablate(model, DataLoader(TensorDataset(*prepared(held_out)), 64), layers=layers)
    numbers = study.table.select_dtypes("float").map(lambda value: float(f"{value:.{DIGITS}g}"))
    return replace(study, table=study.table.assign(**numbers), model=demo().name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=DEMO_WEIGHTS.parent,
        metavar="DIR",
        help="where to write (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--study-only", action="store_true", help="keep the shipped network, and study it again"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    started = time.perf_counter()
    seen, held_out = split()
    if arguments.study_only:
        print(f"wrote {worth(demo().model, held_out).save(arguments.out / DEMO_STUDY.name)}")
        return
    inputs, labels = prepared(seen)
    model = train(inputs, labels, arguments.epochs)
    facts: dict[str, object] = {
        "data": "handwritten digits of 8 x 8 pixels that come with scikit-learn",
        "epochs": arguments.epochs,
        "held_out_accuracy": accuracy(model, *prepared(held_out)),
        "n_held_out": len(held_out.labels),
        "n_train": len(seen.labels),
        "train_accuracy": accuracy(model, inputs, labels),
    }
    study = worth(model, held_out).save(arguments.out / DEMO_STUDY.name)
    for path in (*write(arguments.out, model, held_out, facts), study):
        print(f"wrote {path} ({path.stat().st_size / 1024:.0f} KiB)")
    print(f"train accuracy    {facts['train_accuracy']:.2%} of {facts['n_train']:,}")
    print(f"held-out accuracy {facts['held_out_accuracy']:.2%} of {facts['n_held_out']:,}")
    print(f"{time.perf_counter() - started:.0f} seconds, {arguments.epochs} epochs, {THREADS} threads")


if __name__ == "__main__":
    main()
