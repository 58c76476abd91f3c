"""When do new running statistics help? A CIFAR ResNet-20 under five corruptions at five strengths.

    python -m scripts.recalibration_study --data cifar10_jpeg --checkpoint cifar_resnet20.th
    python -m scripts.recalibration_study --table reports/recalibration.csv     # the page alone, from what was measured

Statistics are made from images of DATA/train, accuracies measured on those of DATA/test under the same corruption, with the
network as it is and with new statistics: the means alone, the variances alone, both, both by half (alpha = 0.5), and both as
a mixture in which the stored ones count for 64 images (prior). Writes recalibration.csv and recalibration.html to --out.
The checkpoint and the images are those of reports/README.md. Some six minutes on a quiet core.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

import bnprobe
from bnprobe.models import image_folder
from bnprobe.report.colours import EXPECTED, GREEN, MEASURED, MUTED, ROSE, VIOLET
from bnprobe.report.figures.specs import Curve, Plot, Plots
from bnprobe.report.formats.html import to_html
from bnprobe.report.page.blocks import Cell, Figure, Page, Prose, Section, Table
from bnprobe.stats.bootstrap import paired_interval
from scripts.cifar_resnet import resnet20
from scripts.corruptions import CORRUPTIONS, STRENGTHS, corrupted

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The network's preprocessing."""

SAMPLES = 1000
"""Images that the statistics are made from, where nothing else is said."""
FEWER = (16, 64, 256)
PRIOR = 64
MIDDLE = 3
"""The strength at which fewer images are tried."""
BATCH, TRIED_AT_ONCE = 250, 100

WAYS: dict[str, dict[str, Any]] = {
    "mean": {"what": "mean"},
    "variance": {"what": "var"},
    "both": {},
    "half": {"alpha": 0.5},
    "prior": {"prior": PRIOR},
}
"""What is renewed, and how, as arguments of bnprobe.recalibrate."""

WORDS = {
    "mean": "the means alone",
    "variance": "the variances alone",
    "both": "both",
    "half": "both mixed half and half with the stored ones",
    "prior": f"both mixed with the stored ones as if these were of {PRIOR} images",
}
"""The same in sentences."""

HEADS = {
    "mean": "mean",
    "variance": "variance",
    "both": "both",
    "half": "half and half",
    "prior": f"stored as {PRIOR} images",
}
"""The same as heads of columns."""
BY_NUMBER = ("both", "prior")
"""Ways that are also tried with fewer images."""

COLOURS = {
    "noise": EXPECTED,
    "blur": GREEN,
    "fog": MEASURED,
    "brightness": ROSE,
    "contrast": VIOLET,
    "none": MUTED,
}


class Images(NamedTuple):
    """Shape (N, 3, 32, 32), 0 to 1, and N labels."""

    x: Tensor
    y: Tensor


def images(folder: Path) -> Images:
    """Every image below a folder, in an order that mixes the classes."""
    source = image_folder.find_images(folder)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0)).tolist()
    pixels = np.stack([np.asarray(source.image(i).convert("RGB")) for i in order])
    labels = source.labels or ()
    return Images(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, torch.tensor([labels[i] for i in order])
    )


def batches(some: Images, size: int) -> list[tuple[Tensor, Tensor]]:
    """Normalized as the network wants it."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return [((some.x[i : i + size] - mean) / std, some.y[i : i + size]) for i in range(0, len(some.x), size)]


def conditions() -> list[tuple[str, int]]:
    """Clean images once, and each corruption at each strength."""
    return [("none", 0), *((name, strength) for name in CORRUPTIONS for strength in STRENGTHS)]


def measure(model: nn.Module, fit: Images, tried: Images) -> pd.DataFrame:
    """A row per corruption, strength, number of images and way."""
    rows = [
        row
        for name, strength in tqdm(conditions(), desc="corruptions")
        for row in _measured(model, fit, tried, name, strength)
    ]
    return pd.DataFrame(rows)


def _measured(
    model: nn.Module, fit: Images, tried: Images, name: str, strength: int
) -> Iterator[dict[str, Any]]:
    given = Images(corrupted(fit.x, name, strength, seed=1), fit.y)
    test = batches(Images(corrupted(tried.x, name, strength, seed=2), tried.y), TRIED_AT_ONCE)
    before = right(model, test)
    for n in (SAMPLES, *(FEWER if strength in (0, MIDDLE) else ())):
        # train mode updates running statistics, so a copy is run; one recording serves every way
        few = batches(Images(given.x[:n], given.y[:n]), BATCH)
        recording = bnprobe.record(copy.deepcopy(model).train(), few, histograms=False)
        distance = _distance(bnprobe.recalibrate(model, recording))
        for way in WAYS if n == SAMPLES else BY_NUMBER:
            with bnprobe.recalibrate(model, recording, **WAYS[way]):
                after = right(model, test)
            interval = paired_interval(after - before)
            yield {
                "corruption": name,
                "strength": strength,
                "images": n,
                "way": way,
                "before": before.mean(),
                "after": after.mean(),
                "difference": (after - before).mean(),
                "low": interval.low,
                "high": interval.high,
                "distance": distance,
            }


def right(model: nn.Module, some: list[tuple[Tensor, Tensor]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Whether each image gets its class, 0 or 1."""
    with torch.no_grad():
        return np.concatenate([(model(x).argmax(1) == y).double().numpy() for x, y in some])


def _distance(plan: bnprobe.Plan) -> float:
    """How far the inputs of the typical channel are from its running statistics: Gaussian KL divergence, in nats."""
    ratio = plan.channels["var_ratio"].clip(lower=1e-12)
    kl = 0.5 * (ratio + plan.channels["shift"] ** 2 - 1 - np.log(ratio))
    return float(kl.median())


# The page


def page(table: pd.DataFrame) -> Page:
    """The verdict, the picture that explains it, the numbers."""
    full = table[table["images"] == SAMPLES]
    answer = Prose((verdict(full), *_details(table, full)))
    return Page(
        title="When do new running statistics help?",
        lead="A CIFAR-10 ResNet-20 on 1,000 test images under five corruptions at five strengths; running statistics "
        "renewed from 1,000 other images under the same corruption, without labels.",
        sections=(
            Section("answer", "The answer", (answer, picture(full))),
            Section("numbers", "All numbers", (_accuracies(full), _by_number(table))),
            Section("how", "How it was measured", (Prose(HOW),)),
        ),
        footer="Made by python -m scripts.recalibration_study of bnprobe from recalibration.csv.",
    )


def verdict(full: pd.DataFrame) -> str:
    """The first sentence: in how many cases both statistics help and hurt, and where the border lies."""
    both = full[full["way"] == "both"]
    helped, hurt, rest = both[both["low"] > 0], both[both["high"] < 0], both[both["low"] <= 0]
    most, least = 100 * helped["before"].max(), 100 * rest["before"].min()
    where = (
        f"exactly those in which the stored ones leave less than {least:.0f}% accuracy"
        if most < least
        else f"all those below {least:.0f}% accuracy and some up to {most:.0f}%"
    )
    clean = 100 * both.loc[both["corruption"] == "none", "before"].iloc[0]
    return (
        f"New statistics help where the old ones already fail: they raise the accuracy in {len(helped)} of "
        f"{len(both)} cases, {where} ({clean:.0f}% without corruption). They lower it in {len(hurt)}, and in "
        f"{len(both) - len(helped) - len(hurt)} the 95% interval includes 0."
    )


def _details(table: pd.DataFrame, full: pd.DataFrame) -> tuple[str, ...]:
    by_way = full.pivot_table(index=["corruption", "strength"], columns="way", values="difference")
    best = by_way.idxmax(axis=1).value_counts()
    clean = full[full["corruption"] == "none"].set_index("way")
    strong = full[(full["strength"] == STRENGTHS[-1]) & (full["way"] == "both")]
    gain = strong.set_index("corruption")["difference"]
    few = table[(table["images"] == FEWER[0]) & (table["strength"] > 0)]
    few_gain = few.groupby("way")["difference"].mean()
    least = full[full["strength"] > 0].groupby("way")["difference"].min()
    return (
        f"On images without corruption both statistics together change the accuracy by {_points(clean.loc['both'])}, the "
        f"means alone by {_points(clean.loc['mean'])}. At the largest strength both give {_signed(gain.max())} points "
        f"under {gain.idxmax()} and {_signed(gain.min())} under {gain.idxmin()}.",
        f"Which part to renew depends on the corruption: of {len(by_way)} cases, the best was "
        f"{', '.join(f'{WORDS[str(way)]} in {n}' for way, n in best.items())}. Half and half is the careful choice: its "
        f"worst case under a corruption is {_signed(least['half'])} points, that of both {_signed(least['both'])}.",
        f"With {FEWER[0]} images instead of 1,000, both change the accuracy by {_signed(few_gain['both'])} points on "
        f"average over the corruptions at strength {MIDDLE}, and by {_signed(few_gain['prior'])} where the stored "
        f"statistics count for {PRIOR} images.",
        _about_distance(full),
    )


def _about_distance(full: pd.DataFrame) -> str:
    """Whether the size of the change tells the gain beforehand: the two cases that lie nearest and differ most."""
    both = full[full["way"] == "both"].reset_index(drop=True)
    near = both[both["distance"] <= 1.1 * both["distance"].min()].set_index("difference").sort_index()
    low, high = (f"{row['corruption']} {row['strength']}" for _, row in near.iloc[[0, -1]].iterrows())
    return (
        "How far the typical channel's new statistics are from the stored ones does not tell the gain: at about the same "
        f"distance, {low} changes by {_signed(near.index[0])} points and {high} by {_signed(near.index[-1])}. "
        "Plan.preview measures the gain where there are labels, before anything is written."
    )


def _points(row: Any) -> str:
    low, high = (_signed(row[end]) for end in ("low", "high"))
    return f"{_signed(row['difference'])} points (95% interval {low} to {high})"


def _signed(change: float) -> str:
    """A change of a share in points, with a sign; none is neither more nor less."""
    points = f"{100 * change:+.1f}".replace("-", "−")
    return "0.0" if points[1:] == "0.0" else points


def picture(full: pd.DataFrame) -> Figure:
    """The gain against what the stored statistics leave, a point with its interval for each case."""
    both = full[full["way"] == "both"].sort_values("before")
    curves = [Curve(100 * both["before"].to_numpy()[[0, -1]], np.zeros(2), "", MUTED, dashed=True)]
    for name, some in both.groupby("corruption", sort=False):
        x, low, high = (100 * some[column].to_numpy() for column in ("before", "low", "high"))
        bars = np.column_stack([low, high, np.full(len(x), np.nan)]).ravel()
        label = "no corruption" if name == "none" else str(name)
        curves.append(Curve(np.repeat(x, 3), bars, "", COLOURS[str(name)], dashed=True))
        curves.append(Curve(x, 100 * some["difference"].to_numpy(), label, COLOURS[str(name)], dots=True))
    plot = Plot(
        "Gain of renewing both statistics",
        "accuracy with the stored statistics (%)",
        "change of accuracy (points)",
        tuple(curves),
    )
    return Figure(
        "gain-by-accuracy",
        "Change of accuracy against the accuracy with the stored statistics: tens of points where that is low, none or a "
        "loss where it is near that of images without corruption.",
        Plots((plot,), narrow=True),
        "A point for each corruption and strength, with its 95% interval (paired bootstrap over 1,000 images). On the "
        "right, where the stored statistics still serve, renewing them costs as much as it mends.",
    )


def _accuracies(full: pd.DataFrame) -> Table:
    rows = []
    for (name, strength), some in full.groupby(["corruption", "strength"], sort=False):
        by_way = some.set_index("way")
        cells = [Cell("none" if name == "none" else f"{name} {strength}", number=False)]
        cells.append(Cell(f"{100 * by_way['before'].iloc[0]:.1f}"))
        for way in WAYS:
            row = by_way.loc[way]
            sign = "" if row["low"] <= 0 <= row["high"] else "▲ " if row["difference"] > 0 else "▼ "
            cells.append(Cell(f"{sign}{100 * row['after']:.1f}"))
        cells.append(Cell(f"{by_way['distance'].iloc[0]:.2g}"))
        rows.append(tuple(cells))
    heads = (
        ("corruption", "kind and strength, 1 to 5"),
        ("as it is", "accuracy with the stored statistics, %"),
        ("mean", "accuracy with new means, %"),
        ("variance", "accuracy with new variances, %"),
        ("both", "accuracy with new means and variances, %"),
        (HEADS["half"], "both, mixed with the stored ones half and half (alpha = 0.5), %"),
        (
            HEADS["prior"],
            f"both, mixed with the stored ones as if these were from {PRIOR} images (prior = {PRIOR}), %",
        ),
        ("distance", "of the inputs of the typical channel from its running statistics, nats"),
    )
    return Table(heads, tuple(rows), "Accuracy in %. ▲ and ▼: the 95% interval of the change leaves out 0.")


def _by_number(table: pd.DataFrame) -> Table:
    shown = table[table["way"].isin(BY_NUMBER) & (table["strength"] == MIDDLE)]
    means = shown.pivot_table(index="corruption", columns=["way", "images"], values="difference", sort=False)
    numbers = (*FEWER, SAMPLES)
    heads = [("corruption", f"kind, at strength {MIDDLE}")]
    heads += [
        (f"{HEADS[way]}; {n:,} new", f"change of accuracy with {n:,} images, points")
        for way in BY_NUMBER
        for n in numbers
    ]
    rows = [
        (
            Cell(str(name), number=False),
            *(Cell(_signed(row[way, n])) for way in BY_NUMBER for n in numbers),
        )
        for name, row in means.iterrows()
    ]
    return Table(
        tuple(heads),
        tuple(rows),
        "Change of accuracy in points, by the number of new images: both renewed, and both mixed with the stored ones as "
        f"if these were of {PRIOR} images.",
    )


HOW = (
    "The corruptions are written after the definitions of Hendrycks & Dietterich 2019 (arXiv:1903.12261) with the strengths "
    "published for 32 x 32 images (scripts/corruptions.py says where they differ), so the numbers are not those of "
    "CIFAR-10-C. Renewing statistics on corrupted images is the method of Li et al. 2016 (AdaBN, arXiv:1603.04779) and "
    "Schneider et al. 2020 (arXiv:2006.16971), who also mix the new with the stored ones as if these were of some number "
    "of images.",
    "The network is a ResNet-20 trained by others on CIFAR-10 (91.8% on its test images). The images are the same "
    "re-encoded as JPEG, a mild shift of its own, 100 per class for the statistics and 100 others per class for the "
    "accuracy. Statistics are those of a pass in train mode in batches of 250 (or one batch of fewer), pooled exactly.",
    "One network and one data set: where the border lies elsewhere is for a preview to say.",
)


def network(checkpoint: Path) -> nn.Module:
    model = resnet20()
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): v for name, v in loaded.items()}, strict=False)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with train/ and test/")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of the ResNet-20")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="what was measured before, instead of both"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reports"), metavar="DIR", help="where to write (default reports)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table:
        table = pd.read_csv(options.table, keep_default_na=False)
    else:
        if not options.data or not options.checkpoint:
            parser.error("--data and --checkpoint are needed, or --table")
        fit, tried = (images(options.data / part) for part in ("train", "test"))
        table = measure(network(options.checkpoint), fit, tried)
        table.to_csv(options.out / "recalibration.csv", index=False, float_format="%.6g")
    (options.out / "recalibration.html").write_text(to_html(page(table)), "utf-8")
    print(verdict(table[table["images"] == SAMPLES]))


if __name__ == "__main__":
    main()
