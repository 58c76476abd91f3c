"""What a ResNet-20 loses without each vector, and gains by new statistics, beside two networks measured before.

    python -m scripts.experiment_trends --checkpoint cifar_resnet20.th --data cifar10_jpeg

Writes reports/experiment_trends.csv and experiment_trends.md: accuracies, and the trends that two other networks show,
each with whether it holds here. Those are CIFAR ResNets of 32 and 56 layers, on 500 JPEG test images as here; statistics are
renewed from as many JPEG training images with the same corruption. Some five minutes on one quiet core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import bnprobe
from scripts.recalibration_study import Images, batches, images, network, right

SAMPLES, FEW = 500, 64

VECTORS = {
    ("weight", "1"): (9.8, 10.0),
    ("weight", "mean"): (35.0, 43.4),
    ("weight", "permuted"): (14.4, 27.6),
    ("weight", "unsigned"): (77.4, 81.2),
    ("bias", "0"): (9.0, 9.6),
    ("bias", "mean"): (29.8, 12.4),
    ("bias", "permuted"): (11.4, 10.6),
    ("mean", "0"): (7.2, 7.6),
    ("var", "1"): (10.0, 21.4),
}
"""Accuracy of the two other networks, %, with a vector of all layers replaced; 83.6 and 82.8 as they are."""


def noise(x: Tensor) -> Tensor:
    return x + 0.26 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))


def blur(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (2,) * 4, mode="replicate"), 5, 1)


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "noise": noise,
    "contrast": lambda x: x.mean((2, 3), keepdim=True) * 0.85 + 0.15 * x,
    "brightness": lambda x: x + 0.3,
    "fog": lambda x: 0.4 * x + 0.5,
    "blur": blur,
}
"""Of pixels of 0 to 1, which are cut to that range afterwards."""

WAYS: dict[str, dict[str, Any]] = {
    "both": {},
    "mean": {"what": "mean"},
    "var": {"what": "var"},
    "half": {"alpha": 0.5},
}
OTHERS = {
    ("none", "as it is"): (83.6, 82.8),
    ("none", "both"): (81.8, 80.4),
    ("none", "mean"): (84.4, 83.0),
    ("none", "var"): (81.6, 81.4),
    ("none", "half"): (84.2, 84.0),
    ("none", "few"): (78.4, 79.4),
    ("none", "one class"): (72.4, 75.4),
    ("noise", "as it is"): (9.8, 10.8),
    ("noise", "both"): (29.0, 29.8),
    ("noise", "mean"): (10.0, 11.0),
    ("noise", "var"): (27.8, 27.0),
    ("noise", "half"): (17.6, 16.0),
    ("noise", "few"): (30.0, 30.2),
    ("contrast", "as it is"): (24.2, 23.0),
    ("contrast", "both"): (75.8, 73.6),
    ("contrast", "mean"): (18.6, 16.8),
    ("contrast", "var"): (66.2, 66.8),
    ("contrast", "half"): (44.2, 49.2),
    ("contrast", "few"): (74.4, 72.0),
    ("brightness", "as it is"): (73.6, 74.6),
    ("brightness", "both"): (77.4, 77.6),
    ("brightness", "mean"): (80.0, 80.0),
    ("brightness", "var"): (72.8, 72.0),
    ("brightness", "half"): (78.4, 80.8),
    ("brightness", "few"): (75.6, 77.0),
    ("fog", "as it is"): (51.2, 55.6),
    ("fog", "both"): (80.0, 77.4),
    ("fog", "mean"): (62.0, 67.4),
    ("fog", "var"): (54.4, 55.8),
    ("fog", "half"): (71.6, 72.4),
    ("fog", "few"): (78.8, 77.2),
    ("blur", "as it is"): (23.4, 20.2),
    ("blur", "both"): (61.4, 62.2),
    ("blur", "mean"): (30.6, 20.4),
    ("blur", "var"): (60.4, 63.4),
    ("blur", "half"): (44.6, 43.6),
    ("blur", "few"): (61.4, 61.6),
}
"""Accuracy of the two other networks, %, by corruption and what was renewed; "few": both, from 64 images."""

Found = dict[tuple[str, str], float]
"""Accuracies, %, by the names above."""


def recalibrated(model: nn.Module, fit: Images, tried: Images) -> Iterator[tuple[tuple[str, str], float]]:
    """Every corruption in every way."""
    for name, act in tqdm(CORRUPTIONS.items(), desc="corruptions"):
        given, test = (Images(act(some.x).clamp(0, 1), some.y) for some in (fit, tried))
        looked = batches(test, 100)
        yield (name, "as it is"), percent(right(model, looked))
        few = Images(given.x[:FEW], given.y[:FEW])
        sources = {"few": few, "one class": Images(given.x[given.y == 0], given.y[given.y == 0])}
        for way, (source, options) in {
            **{way: (given, options) for way, options in WAYS.items()},
            "few": (sources["few"], {}),
            **({"one class": (sources["one class"], {})} if name == "none" else {}),
        }.items():
            with bnprobe.recalibrate(model, batches(source, 250), **options):
                yield (name, way), percent(right(model, looked))


def percent(hits: Any) -> float:
    """Of hits and misses."""
    return 100 * float(hits.mean())


def of_network(table: pd.DataFrame) -> Found:
    """The rows of a study in which a vector of all layers is replaced."""
    whole = table[table["level"] == "network"].set_index(["vector", "replacement"])["after"]
    return {
        (str(vector), str(by)): 100 * float(after)
        for (vector, by), after in whole.items()
        if (vector, by) in VECTORS
    }


@dataclass(frozen=True)
class Trend:
    """What both other networks show, and what it is here."""

    words: str
    holds: bool
    here: str


def trends_of_vectors(found: Found, table: pd.DataFrame, before: float) -> Iterator[Trend]:
    """Of replaced vectors; `before` is the accuracy of the network as it is, %."""
    worst = max(found[at] for at in (("weight", "1"), ("bias", "0"), ("mean", "0"), ("var", "1")))
    yield Trend(
        "without γ, β, μ or σ² nothing is recognized (25% or less)", worst <= 25, f"at most {worst:.1f}%"
    )
    mean, permuted = found["weight", "mean"], found["weight", "permuted"]
    yield Trend(
        "one |γ| for all channels costs 20 points or more, and γ of other channels costs more than that",
        permuted < mean <= before - 20,
        f"{mean:.1f}% and {permuted:.1f}%",
    )
    unsigned = found["weight", "unsigned"]
    yield Trend("signs of γ are worth less than 10 points", unsigned > before - 10, f"{unsigned:.1f}%")
    layers = table[table["level"] == "layer"]
    place = layers.loc[layers["after"].idxmin()]
    yield Trend(
        "of single layers the first matters most",
        bool(place["layer"] == "bn1"),
        f"{place['layer']}: {place['vector']} → {place['replacement']}, {100 * place['after']:.1f}%",
    )
    deep = layers[layers["layer"].str.startswith("layer3.2")]
    loss = float(100 * (deep["before"] - deep["after"]).median())
    yield Trend(
        "a vector of a deep norm is worth two points or less, as a rule", loss <= 2, f"median {loss:.1f}"
    )


def trends_of_statistics(found: Found) -> Iterator[Trend]:
    """Of renewed statistics."""

    def gain(name: str, way: str) -> float:
        return found[name, way] - found[name, "as it is"]

    def said(name: str, *ways: str) -> str:
        return ", ".join(f"{way} {found[name, way]:.1f}%" for way in ("as it is", *ways))

    clean, few = gain("none", "both"), gain("none", "few")
    yield Trend("on clean images both renewed is a loss", clean < 0, said("none", "both"))
    yield Trend("and a larger one from 64 images", few < clean, said("none", "both", "few"))
    yield Trend("the means alone are no loss", gain("none", "mean") >= -0.5, said("none", "mean"))
    yield Trend("nor is half of both", gain("none", "half") >= -0.5, said("none", "half"))
    yield Trend(
        "statistics of one class cost 5 points or more",
        gain("none", "one class") <= -5,
        said("none", "one class"),
    )
    for name in ("noise", "contrast", "blur"):
        yield Trend(
            f"under {name} the variance is what must be renewed: alone it gains more than half of what both do, the mean "
            "less than a quarter",
            gain(name, "both") > 10
            and gain(name, "var") > gain(name, "both") / 2
            and gain(name, "mean") < gain(name, "both") / 4,
            said(name, "both", "mean", "var"),
        )
    yield Trend(
        "under brightness the mean is: alone it gains more than both",
        gain("brightness", "mean") > max(gain("brightness", "both"), 3),
        said("brightness", "both", "mean", "var"),
    )
    yield Trend(
        "under fog it takes both: neither alone gains two thirds of it",
        gain("fog", "both") > 10
        and max(gain("fog", "mean"), gain("fog", "var")) < gain("fog", "both") * 2 / 3,
        said("fog", "both", "mean", "var"),
    )
    for name in ("noise", "contrast", "fog", "blur"):
        yield Trend(
            f"under {name} 64 images give nine tenths of what {SAMPLES} do",
            gain(name, "few") >= 0.9 * gain(name, "both"),
            said(name, "both", "few"),
        )


def markdown(rows: pd.DataFrame, trends: list[Trend]) -> str:
    """Trends first, then the numbers."""
    text = ["# What vectors are worth and what new statistics do, on a third network", ""]
    text += [
        "Made by `python -m scripts.experiment_trends`: accuracy on 500 JPEG test images of CIFAR-10, %.",
        "",
    ]
    text += ["| shown by a ResNet-32 and a ResNet-56 | on the ResNet-20 | holds |", "|---|---|---|"]
    text += [f"| {trend.words} | {trend.here} | {'yes' if trend.holds else 'no'} |" for trend in trends]
    text += ["", "| experiment | changed | ResNet-20 | ResNet-32 | ResNet-56 |", "|---|---|---|---|---|"]
    text += [
        f"| {row.experiment} | {row.changed} | {row.resnet20:.1f} | {row.resnet32:.1f} | {row.resnet56:.1f} |"
        for row in rows.itertuples()
    ]
    return "\n".join(text) + "\n"


def table_of(
    experiment: Callable[[tuple[str, str]], tuple[str, str]], found: Found, others: Any
) -> pd.DataFrame:
    """A row per number, in the order of the other networks'."""
    rows = [(*experiment(at), found[at], *numbers) for at, numbers in others.items()]
    return pd.DataFrame(rows, columns=["experiment", "changed", "resnet20", "resnet32", "resnet56"])


def main() -> None:
    """Measure, print, and write both files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="weights of the ResNet-20"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder with train/ and test/"
    )
    parser.add_argument("--out", type=Path, default=Path("reports"), metavar="DIR", help="where to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = network(options.checkpoint)
    fit, tried = (
        Images(*(part[:SAMPLES] for part in images(options.data / name))) for name in ("train", "test")
    )
    of_statistics = dict(recalibrated(model, fit, tried))
    study = bnprobe.ablate(model, batches(tried, 100)).table
    of_vectors = of_network(study)
    trends = [
        *trends_of_vectors(of_vectors, study, 100 * float(study["before"].iloc[0])),
        *trends_of_statistics(of_statistics),
    ]
    rows = pd.concat(
        [
            table_of(lambda at: (f"all {at[0]}", at[1]), of_vectors, VECTORS),
            table_of(lambda at: (f"new statistics, {at[0]}", at[1]), of_statistics, OTHERS),
        ]
    )
    rows.to_csv(options.out / "experiment_trends.csv", index=False, float_format="%.1f")
    text = markdown(rows, trends)
    (options.out / "experiment_trends.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
