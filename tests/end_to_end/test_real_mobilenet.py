"""A real pretrained network of torchvision: mobilenet_v2 with its ImageNet weights, on photographs, as a user calls it.

The weights come as `scripts/mobilenet_v2.py` gets them, and lie in a cache folder of torch's that is made for the test;
nothing may be downloaded from where torchvision would. Every number has a second source in `support.mobilenet`.
"""

from __future__ import annotations

import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from report import pages
from support import mobilenet as reference
from support.paths import DATA
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

import bnprobe
from bnprobe.cli.main import main
from bnprobe.report.result import Report
from scripts import mobilenet_v2 as program

PHOTOGRAPHS = DATA / "imagenet_samples"
DEPTHWISE = "features.17.conv.1.1"
"""The norm that most channels reach with a variance below eps."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PHOTOGRAPHS.is_dir(), reason=f"the folder of photographs is absent: {PHOTOGRAPHS}"
    ),
]


@dataclass(frozen=True)
class Made:
    """What the command left: the page, and the report of the recording it saved."""

    page: str
    report: Report


@pytest.fixture(scope="module")
def weights(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's file, kept between runs; without it, a skip, or a failure where BNPROBE_WEIGHTS=required."""
    kept = getattr(pytestconfig, "cache", None)  # missing under -p no:cacheprovider
    try:
        return program.put_weights(kept.mkdir("weights") if kept else tmp_path_factory.mktemp("weights"))
    except program.NoWeights as error:
        if os.environ.get("BNPROBE_WEIGHTS") == "required":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def cache(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of torch's with this one file, and no way to download another."""
    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(weights, home / "hub" / "checkpoints" / program.FILE)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the weights are in the cache, and still something is downloaded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        patch.setattr(torch.hub, "download_url_to_file", refuse)
        yield home


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """`bnprobe report mobilenet_v2 --weights IMAGENET1K_V1 --data ...`, run once."""
    folder = tmp_path_factory.mktemp("made")
    arguments = program.command(PHOTOGRAPHS, folder / "page.html")
    assert main([*arguments, "--save", str(folder / "run.bnp")]) == 0
    return Made((folder / "page.html").read_text("utf-8"), bnprobe.report(folder / "run.bnp"))


@pytest.fixture(scope="module")
def network(weights: Path) -> nn.Module:
    return reference.network(torch.load(weights, map_location="cpu", weights_only=True))


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """The 32 photographs as torchvision prepares them, in the order of their paths; (32, 3, 224, 224)."""
    prepare = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    paths = sorted(PHOTOGRAPHS.glob("*/*.JPEG"))
    assert len(paths) == 32
    return torch.stack([prepare(Image.open(path).convert("RGB")) for path in paths])


@pytest.fixture(scope="module")
def seen(network: nn.Module, photographs: Tensor) -> dict[str, tuple[reference.Seen, reference.Seen]]:
    return reference.seen(network, photographs)


def of(report: Report, layer: str) -> pd.DataFrame:
    return report.channels[report.channels["layer"] == layer]


# The weights alone


def test_the_weights_are_torchvisions_own(weights, made):
    """Fails if the file is another, or the page does not say which file it was."""
    assert program.SHA256.startswith("b0353104")
    assert made.report.recording.about.weights == f"IMAGENET1K_V1 from {program.FILE}, sha256 b0353104…"
    assert "sha256 b0353104…" in pages.text_of(pages.parsed(made.page))
    assert Path(MobileNet_V2_Weights.IMAGENET1K_V1.url).name == program.FILE


def test_the_stored_vectors_are_those_of_the_file(made, network):
    """Fails if a vector is of another norm, another order, or rounded."""
    norms = reference.norms(network)
    assert list(norms) == made.report.layers["layer"].tolist()
    for name, norm in norms.items():
        mine = of(made.report, name)
        for column, stored in (
            ("gamma", norm.weight),
            ("beta", norm.bias),
            ("running_mean", norm.running_mean),
            ("running_var", norm.running_var),
        ):
            np.testing.assert_array_equal(mine[column], reference.vector(stored), err_msg=f"{name} {column}")
    assert (made.report.layers["eps"] == 1e-5).all()


def test_the_mean_colour_of_the_training_images(made, network):
    """Fails if the stem is solved in other units, without the zeros at the border, or the page says another colour."""
    colour = reference.training_colour(network)
    np.testing.assert_allclose(made.report.stem.mean_rgb, colour, rtol=1e-9)
    assert [f"{part:.3f}" for part in colour] == ["0.470", "0.448", "0.394"]
    assert "0.470, 0.448, 0.394" in pages.text_of(pages.parsed(made.page))


def test_the_implied_means(made, network):
    """Fails if a ReLU6, a sum, a depthwise convolution or a border is left out of what a norm's mean follows from."""
    norms, implied = reference.norms(network), reference.implied_means(network)
    layers = made.report.layers.set_index("layer")
    first = "features.0.1"
    assert set(norms) - set(implied) == {first}
    assert np.isnan(layers.loc[first, "implied_mean_r2"])
    fits = {name: reference.r_squared(norms[name], mean) for name, mean in implied.items()}
    for name, mean in implied.items():
        sigma = reference.sigma(norms[name])
        mine = of(made.report, name)
        np.testing.assert_allclose(mine["implied_mean"] / sigma, mean / sigma, atol=1e-9, err_msg=name)
        assert layers.loc[name, "implied_mean_r2"] == pytest.approx(fits[name], abs=1e-9), name
    worst = fits.pop(DEPTHWISE)
    assert round(worst, 1) == -20.9
    assert len(fits) == 50
    assert (round(min(fits.values()), 2), round(max(fits.values()), 3)) == (0.92, 0.999)


def test_variances_below_eps(made, network):
    """Fails if the 689 are counted by another threshold, or called constant: they vary, and one of them alone does not.

    float32 that is multiplied by 0.9 at every batch stops at 5.6e-45, 4 times the smallest number: such an input was a
    constant for about a thousand batches. The other 688 have a variance of 4e-7 to 1e-5, which is small, and not 0.
    """
    small = reference.vector(reference.norms(network)[DEPTHWISE].running_var)
    below = small < 1e-5
    assert (below.sum(), len(small)) == (689, 960)
    assert (small[below] < 1e-30).sum() == 1
    assert np.sort(small)[1] > 4e-7
    findings = made.report.findings
    finding, constant = findings[
        (findings["rule"] == "variance-below-eps") & (findings["layer"] == DEPTHWISE)
    ].itertuples()
    assert set(finding.channels) == set(np.flatnonzero(below & (small > 1e-30)))
    assert constant.channels == tuple(np.flatnonzero(small < 1e-30))
    assert "constant" in constant.says
    assert "688 of 960" in finding.because
    assert "688 of 960" in pages.text_of(pages.parsed(made.page))
    # it was trained like this: nothing is to be done unless eps is changed
    assert finding.severity == "info"
    assert set(findings["severity"]) == {"info"}


# The photographs


def test_every_statistic_of_every_channel(made, seen):
    """Fails if a batch is weighed wrongly, a channel is another's, or the output is derived by another formula.

    The command computes in float32, the reference in float64: what 52 layers of rounding leave is a millionth of a
    deviation. Inputs of a channel that never varies are exactly 0 in both; outputs are then beta and a rounding.
    """
    for name, sides in seen.items():
        mine = of(made.report, name)
        for side, exact in zip(("pre", "post"), sides, strict=True):
            deviation = np.sqrt(exact.var)
            slack = 1e-5 * deviation + 1e-7 * np.abs(exact.mean) + 1e-12
            assert (np.abs(mine[f"{side}_mean"] - exact.mean) <= slack).all(), (name, side)
            assert (np.abs(np.sqrt(mine[f"{side}_var"]) - deviation) <= slack).all(), (name, side)
            wide = 1e-4 * deviation + 1e-7 * np.abs(exact.mean) + 1e-12
            assert (np.abs(mine[f"{side}_min"] - exact.low) <= wide).all(), (name, side)
            assert (np.abs(mine[f"{side}_max"] - exact.high) <= wide).all(), (name, side)
        # a value within rounding of 0 may change sides: one of the 7 x 7 x 32 of the last layers
        assert (np.abs(mine["fires"] - sides[1].fires) <= 1.01 / (7 * 7 * 32)).all(), name


def test_shift_and_scale(made, network, seen):
    """Fails if what is seen is held against another norm's statistics, or without eps."""
    for name, norm in reference.norms(network).items():
        mine, (before, _) = of(made.report, name), seen[name]
        sigma = reference.sigma(norm)
        shift = (before.mean - reference.vector(norm.running_mean)) / sigma
        np.testing.assert_allclose(mine["shift"], shift, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(mine["scale_ratio"], np.sqrt(before.var) / sigma, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(mine["share_within"], before.within, atol=1e-5, err_msg=name)


def test_the_channels_that_were_never_positive(made, seen):
    """Fails if one of the 66 is missed, another called silent, or the page counts others."""
    expected = {(name, int(c)) for name, (_, after) in seen.items() for c in np.flatnonzero(after.high <= 0)}
    channels = made.report.channels
    never = channels[channels["fires"] == 0]
    assert set(zip(never["layer"], never["channel"], strict=True)) == expected
    assert len(expected) == 66
    layers = made.report.layers.set_index("layer")
    assert {layers.loc[name, "follows"] for name, _ in expected} == {"relu6"}
    assert (never["role"] == "dead").all()
    assert re.search(r"\b66 of 17,056 never do\b", pages.text_of(pages.parsed(made.page)))


def test_the_colour_of_these_photographs(made, photographs):
    """Fails if the colour decoded from what the stem saw is not that of the pixels, border effects aside."""
    pixels = reference.vector(photographs.mean((0, 2, 3))) * reference.STD + reference.MEAN
    np.testing.assert_allclose(made.report.stem.seen_pixels, pixels, atol=5e-4)


# The page


def test_the_page_is_sound_and_offline(made):
    """Fails if a page of 17,056 channels loads anything, or holds a number that no reader can read."""
    pages.assert_sound(made.page)
    assert len(made.page.encode()) < 4_000_000


def test_the_table_of_layers(made, network, seen):
    """Fails if a number in the page's table is not what the weights and the photographs say, to its three digits."""
    table = shown_table(made.page, "never_positive")
    norms = reference.norms(network)
    assert list(table.index) == list(norms)
    for name, norm in norms.items():
        gamma, (before, after) = reference.vector(norm.weight), seen[name]
        sigma = reference.sigma(norm)
        shift = (before.mean - reference.vector(norm.running_mean)) / sigma
        expected = {
            "n_channels": gamma.size,
            "gamma_abs_median": np.median(np.abs(gamma)),
            "gamma_negative": (gamma < 0).sum(),
            "fires_median": np.median(after.fires),
            "never_positive": (after.high <= 0).sum(),
            "shift_rms": np.sqrt(np.mean(shift**2)),
            "var_ratio_median": np.median((before.var + norm.eps) / sigma**2),
        }
        for column, value in expected.items():
            assert number(table.loc[name, column]) == pytest.approx(value, rel=6e-3, abs=6e-4), (name, column)


def test_the_branches(made, network):
    """Fails if a block's branch is called its skip: the norm before the block is both fed to the branch and added to it."""
    table, expected = shown_table(made.page, "branch_share"), reference.branch_shares(network)
    assert list(table.index) == list(expected)
    assert len(expected) == 10
    for name, value in expected.items():
        assert number(table.loc[name, "branch_share"]) == pytest.approx(value, abs=2e-3), name


def shown_table(page: str, column: str) -> pd.DataFrame:
    """The page's first table with this column, a row per layer, as the words in its cells."""
    for table in pages.elements(pages.parsed(page), "table"):
        head, *rows = pages.elements(table, "tr")
        names = [name_of(cell) for cell in head]
        if column in names:
            cells = [[pages.text_of(cell) for cell in row] for row in rows]
            return pd.DataFrame(cells, columns=names).set_index("layer")
    raise AssertionError(column)


def name_of(head: ET.Element) -> str:
    """The column that a head in words is about: it is there where the head is hovered over."""
    name, colon, _ = head.get("title", "").partition(": ")
    return name if colon and name.isidentifier() else pages.text_of(head)


def number(words: str) -> float:
    return float(words.replace("−", "-").replace(",", ""))
