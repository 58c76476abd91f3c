"""Calibrating a quantized network without data: real images, noise, and images made from its running statistics.

    python -m scripts.quantization --checkpoint cifar_resnet20.th --data cifar10_jpeg

The CIFAR ResNet-20 is quantized to 8 bits by torch.ao (post-training, static, per-tensor activations), and its activations
alone are rounded to 4 bits. Their ranges are taken from 64 images: real ones of DATA/train, noise, or images that
`bnprobe.synthesize` makes of the network itself. Accuracy is that of the images of DATA/test. Writes quantization.csv and
quantization.svg to --out. Some minutes of one core, most of them for making the images; --images FILE takes those of a file
that `made.save` wrote.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor, nn

import bnprobe
from bnprobe.report.colours import EXPECTED, INK, MEASURED, MUTED
from bnprobe.stats.bootstrap import paired_interval
from scripts.made_images import cifar_network
from scripts.recalibration_study import MEAN, STD, Images, batches, images, right

N = 64
"""Images that ranges are taken from."""

SEEDS = (0, 1, 2)
"""Of the noise, and of the choice among the real images; made images are one set."""


def quantized(network: nn.Module, calibration: Tensor) -> nn.Module:
    """Eight bits for weights and activations, ranges from a pass of these inputs."""
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this will move to another package
        kind = get_default_qconfig_mapping("x86")
        prepared = quantize_fx.prepare_fx(copy.deepcopy(network), kind, (calibration[:1],))
        with torch.no_grad():
            prepared(calibration)
        found: nn.Module = quantize_fx.convert_fx(prepared)
    return found


def coarse(network: nn.Module, calibration: Tensor) -> nn.Module:
    """Activations rounded to sixteen values between the extremes of a pass of these inputs; weights as they are."""
    from torch.ao import quantization as q

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sixteen = q.FakeQuantize.with_args(
            observer=q.MinMaxObserver, quant_min=0, quant_max=15, dtype=torch.quint8
        )
        kind = q.QConfigMapping().set_global(q.QConfig(activation=sixteen, weight=q.default_weight_observer))
        prepared = q.quantize_fx.prepare_fx(copy.deepcopy(network), kind, (calibration[:1],))
        prepared.apply(q.disable_fake_quant)
        with torch.no_grad():
            prepared(calibration)
        prepared.apply(q.disable_observer).apply(q.enable_fake_quant)
    found: nn.Module = prepared
    return found


HOW = {8: quantized, 4: coarse}
"""By bits of an activation: eight with torch.ao's integer kernels, four as rounding in float32."""


def sources(real: Images, made: Tensor) -> dict[str, Callable[[int], Tensor]]:
    """Where inputs for calibration come from, by seed."""
    (inputs, _), *_ = batches(real, len(real.x))

    def drawn(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    return {
        "real images": lambda seed: inputs[torch.randperm(len(inputs), generator=drawn(seed))[:N]],
        "made images": lambda _: made,
        "noise": lambda seed: torch.randn(N, *inputs.shape[1:], generator=drawn(seed)),
    }


def measure(network: nn.Module, real: Images, made: Tensor, test: Images) -> pd.DataFrame:
    """A row per source and seed, after one of the network itself."""
    tried = batches(test, 100)
    before = right(network, tried)
    rows = [
        {
            "bits": 32,
            "calibrated on": "not quantized",
            "seed": 0,
            "accuracy": before.mean(),
            "difference": 0.0,
        }
    ]
    for bits, (name, of) in product(HOW, sources(real, made).items()):
        for seed in SEEDS if name != "made images" else SEEDS[:1]:
            after = right(HOW[bits](network, of(seed)), tried)
            interval = paired_interval(after - before)
            rows.append(
                {
                    "bits": bits,
                    "calibrated on": name,
                    "seed": seed,
                    "accuracy": after.mean(),
                    "difference": (after - before).mean(),
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return pd.DataFrame(rows)


def drawn(table: pd.DataFrame, n: int) -> Figure:
    """A bar per source, a dot per seed; the line is the network before."""
    whole = table["accuracy"].iloc[0]
    places = list(product(HOW, sources_named(table)))
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    colors = {"real images": EXPECTED, "made images": MEASURED, "noise": MUTED}
    for y, (bits, name) in enumerate(places):
        rows = (table["calibrated on"] == name) & (table["bits"] == bits)
        found = 100 * table.loc[rows, "accuracy"]
        axes.barh(y, found.mean(), color=colors[name], height=0.6)
        axes.plot(found, [y] * len(found), ".", color=INK)
        axes.text(2, y, f"{found.mean():.1f}%", va="center", color="white")
    axes.axvline(100 * whole, color=INK, linewidth=1)
    axes.set(
        yticks=range(len(places)),
        yticklabels=[f"{bits} bits, {name}" for bits, name in places],
        xlim=(0, 100),
        xlabel=f"accuracy, % of {n:,} test images (line: not quantized, {100 * whole:.1f}%)",
    )
    axes.invert_yaxis()
    return figure


def sources_named(table: pd.DataFrame) -> list[str]:
    """Where ranges come from, in the order of the table."""
    return [name for name in table["calibrated on"].unique() if name != "not quantized"]


def made_images(network: nn.Module, file: Path | None) -> Tensor:
    """Of a file, or made now."""
    if file is not None:
        return load_file(file)["images"]
    return bnprobe.synthesize(network, n=N, shape=32, normalize=(MEAN, STD), controls=False).images


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=Path, metavar="FILE", help="made images, NAME.safetensors")
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR")
    options = parser.parse_args()
    network = cifar_network(options.checkpoint)
    test = images(options.data / "test")
    table = measure(network, images(options.data / "train"), made_images(network, options.images), test)
    print(table.round(4).to_string())
    options.out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(options.out / "quantization.csv", index=False)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "quantization"}):
        drawn(table, len(test.x)).savefig(
            options.out / "quantization.svg", metadata={"Date": None}, facecolor="white"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
