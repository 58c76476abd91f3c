"""Real networks: a trained CIFAR ResNet-20 on a thousand images, decoders of Hugging Face, torchvision's families.

Expected digits were measured from the parameters of the same checkpoint by
other code. The statistics of the data have a slow reference here: hooks of our own, float64, two passes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import reduce
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from report import pages
from scipy.stats import norm as gaussian
from support.paths import DATA, ROOT
from torch import Tensor, nn

import bnprobe
from bnprobe import models
from bnprobe.cli.main import main
from bnprobe.models.image_folder import find_images
from bnprobe.recording import Recording

CHECKPOINT = DATA / "cifar_resnet20.th"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")
slow = pytest.mark.slow


# The CIFAR ResNet-20


@pytest.fixture(scope="module")
def resnet20() -> nn.Module:
    """The checkpoint in the network that examples use, in eval mode."""
    spec = importlib.util.spec_from_file_location("cifar_resnet", ROOT / "scripts" / "cifar_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.resnet20()
    saved = models.load_checkpoint(CHECKPOINT)
    left = model.load_state_dict(saved, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in left.missing_keys)
    assert not left.unexpected_keys
    return model.eval()


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    """The 1,000 test images in ten batches, prepared as the checkpoint was trained."""
    preprocess = models.CropAndScale(size=32, resize=32)
    source = find_images(DATA / "cifar10_jpeg" / "test")
    assert len(source) == 1000
    return [torch.stack(batch.images) for batch in source.batches(preprocess, 100)]


@pytest.fixture(scope="module")
def whole(resnet20: nn.Module, images: list[Tensor]) -> Recording:
    return recorded(resnet20, images)


@pytest.fixture(scope="module")
def channels(whole: Recording) -> pd.DataFrame:
    return bnprobe.report(whole).channels


@pytest.fixture(scope="module")
def inside_blocks(channels: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The norms of the blocks by their place: bn1 stands before a ReLU, bn2 before the addition."""
    return {name: channels[channels["layer"].str.match(rf"layer\d\.\d\.{name}")] for name in ("bn1", "bn2")}


def recorded(model: nn.Module, batches: list[Tensor]) -> Recording:
    with bnprobe.attach(model) as probe, torch.no_grad():
        for x in batches:
            model(x)
    return probe.recording


class TwoPasses:
    """Reference of one norm: the mean in a first run of the model, sums of powers about it in a second.

    Three streams per channel: "pre" the input, "formula" the float64 formula on it, "post" the real
    float32 output.
    """

    def __init__(self, module: nn.BatchNorm2d) -> None:
        numbers = (module.running_mean, module.running_var, module.weight, module.bias)
        self.vectors = [v.detach().double().numpy()[:, None] for v in numbers]
        self.eps = module.eps
        self.n = 0
        self.sums: dict[str, np.ndarray] = {}
        self.powers: dict[str, np.ndarray] = {}
        self.low: dict[str, np.ndarray] = {}
        self.high: dict[str, np.ndarray] = {}
        self.positive: dict[str, np.ndarray] = {}

    def streams(self, x: Tensor, y: Tensor) -> dict[str, np.ndarray]:
        """Values of one call as (C, N * H * W), float64."""
        pre, post = (v.detach().transpose(0, 1).flatten(1).double().numpy() for v in (x, y))
        mean, var, gamma, beta = self.vectors
        return {"pre": pre, "formula": gamma * (pre - mean) / np.sqrt(var + self.eps) + beta, "post": post}

    def first(self, x: Tensor, y: Tensor) -> None:
        for name, values in self.streams(x, y).items():
            self.sums[name] = self.sums.get(name, 0.0) + values.sum(1)
        self.n += values.shape[1]

    def second(self, x: Tensor, y: Tensor) -> None:
        for name, values in self.streams(x, y).items():
            d = values - (self.sums[name] / self.n)[:, None]
            squares = d * d
            sums = np.stack([squares.sum(1), (squares * d).sum(1), (squares * squares).sum(1)])
            self.powers[name] = self.powers.get(name, 0.0) + sums
            self.low[name] = np.minimum(self.low.get(name, np.inf), values.min(1))
            self.high[name] = np.maximum(self.high.get(name, -np.inf), values.max(1))
            self.positive[name] = self.positive.get(name, 0.0) + (values > 0).sum(1)

    def columns(self, stream: str) -> dict[str, np.ndarray]:
        m2, m3, m4 = self.powers[stream] / self.n
        return {
            "mean": self.sums[stream] / self.n,
            "var": m2,
            "skew": m3 / m2**1.5,
            "kurtosis": m4 / m2**2 - 3,
            "min": self.low[stream],
            "max": self.high[stream],
            "fires": self.positive[stream] / self.n,
        }


@pytest.fixture(scope="module")
def exactly(resnet20: nn.Module, images: list[Tensor]) -> dict[str, TwoPasses]:
    norms = {name: module for name, module in resnet20.named_modules() if isinstance(module, nn.BatchNorm2d)}
    exactly = {name: TwoPasses(module) for name, module in norms.items()}

    def run(watch: Callable[[TwoPasses, Tensor, Tensor], None]) -> None:
        handles = [
            module.register_forward_hook(lambda _, args, y, name=name: watch(exactly[name], args[0], y))
            for name, module in norms.items()
        ]
        with torch.no_grad():
            for x in images:
                resnet20(x)
        for handle in handles:
            handle.remove()

    run(TwoPasses.first)
    run(TwoPasses.second)
    assert len(exactly) == 19
    return exactly


def assert_distribution(
    mine: pd.DataFrame, side: str, exact: dict[str, np.ndarray], rounding: np.ndarray | float
) -> None:
    """The six numbers of one side; `rounding` is the absolute error that every value may carry itself.

    A mean then moves by at most `rounding`, a deviation too, and a standardized moment of order k by k
    times rounding / deviation times its own size.
    """
    found = {
        name: mine[f"{side}_{name}"].to_numpy() for name in ("mean", "var", "skew", "kurtosis", "min", "max")
    }
    deviation = np.sqrt(exact["var"])
    relative = rounding / deviation
    assert (np.abs(found["mean"] - exact["mean"]) <= 1e-5 * deviation + rounding).all()
    assert (np.abs(np.sqrt(found["var"]) - deviation) <= 0.5e-5 * deviation + rounding).all()
    for name, order, base in (("skew", 3, 0.0), ("kurtosis", 4, 3.0)):
        size = 1 + np.abs(exact[name]) + base
        slack = 1e-4 * size + 2 * order * relative * size
        assert (np.abs(found[name] - exact[name]) <= slack).all(), name
    for name in ("min", "max"):
        assert (np.abs(found[name] - exact[name]) <= 1e-9 * np.abs(exact[name]) + rounding).all(), name


@slow
@needs_data
def test_every_statistic_of_the_inputs_agrees_with_two_passes_in_float64(channels, exactly):
    """Fails if any channel of any layer is summed in float32, or a batch is weighed or dropped."""
    assert len(channels) == 688
    for name, exact in exactly.items():
        mine = channels[channels["layer"] == name]
        expected = exact.columns("pre")
        assert (mine["n_values"] == exact.n).all()
        assert_distribution(mine, "pre", expected, rounding=0.0)
        np.testing.assert_array_equal(mine["pre_min"], expected["min"])
        np.testing.assert_array_equal(mine["pre_max"], expected["max"])


@slow
@needs_data
def test_every_statistic_of_the_outputs_agrees_with_the_formula(channels, exactly):
    """Fails if the derived output forgets eps, the sign of gamma (26 channels) or swaps the extremes."""
    for name, exact in exactly.items():
        mine = channels[channels["layer"] == name]
        expected = exact.columns("formula")
        # beta + gamma * xh is itself rounded to a double
        assert_distribution(mine, "post", expected, rounding=4e-16 * (1 + np.abs(expected["mean"])))
        np.testing.assert_allclose(mine["fires"], expected["fires"], atol=1e-6)


@slow
@needs_data
def test_every_statistic_of_the_outputs_agrees_with_what_the_network_computed(channels, exactly):
    """Fails if the formula that is believed is not the one that the network runs.

    The network rounds to float32: x - mean, its product and the sum with beta carry about 2^-22 of the
    largest of |beta| and |y|. Where gamma is tiny beside beta (13 channels have |gamma| < 1e-2 and some
    1e-6) that rounding is a visible part of the deviation, or all of it: such channels are compared as
    far as float32 can tell, through `rounding`.
    """
    for name, exact in exactly.items():
        mine = channels[channels["layer"] == name]
        expected = exact.columns("post")
        far = np.maximum(np.abs(expected["min"]), np.abs(expected["max"]))
        shifted = np.abs(mine["gamma"] * mine["running_mean"]) / np.sqrt(mine["running_var"] + 1e-5)
        assert_distribution(mine, "post", expected, rounding=2.0**-22 * (far + shifted.to_numpy()))
        np.testing.assert_allclose(mine["fires"], expected["fires"], atol=1e-5)


@slow
@needs_data
def test_what_the_parameters_say_is_what_was_published_of_them(channels, inside_blocks):
    """Fails if gamma or beta is read from another layer, in another order, or with another sign."""
    gamma, bn1, bn2 = channels["gamma"], inside_blocks["bn1"], inside_blocks["bn2"]
    assert (len(channels), channels["layer"].nunique(), len(bn1)) == (688, 19, 336)
    assert (gamma < 0).sum() == 26
    assert round(100 * (gamma < 0).mean(), 1) == 3.8
    assert round(100 * (gamma.abs() < 1e-2).mean(), 1) == 2.6
    assert round(bn1["gamma"].median(), 2) == 0.65
    assert round(bn2["gamma"].median(), 2) == 0.71
    assert round(100 * (bn1["beta"] < 0).mean()) == 91


@slow
@needs_data
def test_channels_that_can_never_fire_did_not(inside_blocks):
    """Fails if `fires` counts y >= 0, or takes the input's sign: 11 channels are dead by their parameters."""
    bn1 = inside_blocks["bn1"]
    dead = bn1["beta"] + 6 * bn1["gamma"].abs() < 1e-4
    assert dead.sum() == 11
    assert ((bn1["gamma"].abs() < 1e-2) & ~dead).sum() == 2
    assert (bn1.loc[dead, "fires"] == 0).all()


@slow
@needs_data
def test_firing_is_what_gamma_and_beta_predict(channels, inside_blocks):
    """Fails if `fires` is of another channel or layer: Phi(beta / |gamma|) tells it within .05 per layer."""
    predicted = pd.Series(gaussian.cdf(channels["beta"] / channels["gamma"].abs()), channels.index)
    bn1 = inside_blocks["bn1"]
    live = bn1[bn1["beta"] + 6 * bn1["gamma"].abs() >= 1e-4]
    stages = predicted[live.index].groupby(live["layer"].str[:6]).mean().round(2)
    assert stages.tolist() == [0.46, 0.33, 0.27]
    both = (
        pd.DataFrame({"predicted": predicted, "fires": channels["fires"]}).groupby(channels["layer"]).mean()
    )
    assert (both["predicted"] - both["fires"]).abs().max() < 0.05


@slow
@needs_data
def test_compression_took_variance_from_the_first_blocks_and_not_from_the_last(channels):
    """Fails if scale_ratio is a ratio of variances, or inverted: the JPEG images lost their fine detail."""
    ratio = (channels["scale_ratio"] ** 2).groupby(channels["layer"]).mean()
    assert ratio[["bn1", "layer1.0.bn1", "layer1.0.bn2"]].between(0.61, 0.76).all()
    assert round(ratio["layer1.0.bn1"], 2) == 0.68
    assert ratio["layer3.2.bn1"] > 0.95
    assert ratio["layer3.1.bn1"] > 0.95


@slow
@needs_data
def test_the_stem_is_shifted_by_what_the_augmentation_explains(whole):
    """Fails if shift is in other units: the black padding of training moves the stem by .12 to .16 sigma."""
    layers = bnprobe.report(whole).layers.set_index("layer")
    assert 0.12 <= layers.loc["bn1", "shift_rms"] <= 0.16


@slow
@needs_data
def test_no_rule_cries_wolf_about_a_mild_shift(whole):
    """Fails if JPEG compression, which recalibration would make worse, is called a serious shift."""
    findings = bnprobe.report(whole).findings
    assert set(findings["severity"]) == {"info"}
    named = {
        rule: {(f["layer"], c) for _, f in found.iterrows() for c in f["channels"]}
        for rule, found in findings.groupby("rule")
    }
    of_channels = {"channels-constant", "channels-dead", "channels-silent", "filters-decayed"}
    assert set(named) == of_channels | {"data-shifted"}
    (slight,) = findings[findings["rule"] == "data-shifted"].itertuples()
    assert slight.layer == "bn1"
    assert "compression" in slight.do
    channels = bnprobe.report(whole).channels
    flat = channels[channels["gamma"].abs() < 1e-2]
    assert named["channels-constant"] == set(zip(flat["layer"], flat["channel"], strict=True))
    assert len(named["channels-constant"]) == 18
    silent = channels[channels["fires"] == 0]
    assert named["channels-dead"] | named["channels-silent"] <= set(
        zip(silent["layer"], silent["channel"], strict=True)
    )
    assert not named["channels-dead"] & named["channels-silent"]
    assert named["filters-decayed"] <= named["channels-constant"]


@slow
@needs_data
def test_parts_saved_loaded_and_merged_in_any_order_are_the_whole(resnet20, images, tmp_path):
    """Fails if a table of three machines' files differs from that of one run by more than 1e-9.

    Histograms count every fourth image once a run has seen enough, and a part starts anew: what is read
    from them agrees within their sampling error.
    """
    # the same batches in both: a convolution of another batch size rounds otherwise
    batches = list(torch.cat(images[:2]).split([1, 37, 162]))
    whole = bnprobe.report(recorded(resnet20, batches))
    parts = [recorded(resnet20, [x]).save(tmp_path / f"{i}.bnp") for i, x in enumerate(batches)]
    for order in permutations(parts):
        merged = bnprobe.report(reduce(Recording.merge, map(bnprobe.load, order)))
        assert_same_table(merged.channels, whole.channels)
        assert_same_table(merged.layers, whole.layers)
        assert merged.recording.about.n_images == 200


def assert_same_table(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Words and counts exactly, numbers to 1e-9; `mismatch` is of one call, not a sum."""
    assert found.columns.tolist() == expected.columns.tolist()
    for name in found.columns.drop("mismatch", errors="ignore"):
        mine, other = found[name], expected[name]
        if name.removesuffix("_median") in ("l1_ratio", "gauss_ks", "gauss_w1"):
            np.testing.assert_allclose(mine, other, rtol=0, atol=0.05, err_msg=name)
        elif mine.dtype.kind != "f":
            assert mine.tolist() == other.tolist(), name
        else:
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9, err_msg=name)


@slow
@needs_data
def test_the_network_is_the_same_with_and_without_the_probe(resnet20, images):
    """Fails if probing changes one bit of an output, a parameter, a buffer, a mode, or the random state."""
    x = images[3][:40]
    before = {name: value.clone() for name, value in resnet20.state_dict().items()}
    with torch.no_grad():
        alone = resnet20(x)
        state = torch.get_rng_state()
        with bnprobe.attach(resnet20):
            probed = resnet20(x)
        assert torch.equal(torch.get_rng_state(), state)
        after = resnet20(x)
    assert torch.equal(probed, alone)
    assert torch.equal(after, alone)
    for name, value in resnet20.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, module in resnet20.named_modules():
        assert not module.training, name
        assert not module._forward_hooks, name
        assert not module._forward_pre_hooks, name


@slow
@needs_data
def test_the_page_of_the_checkpoint_tells_its_story(whole, tmp_path):
    """Fails if the page of a real network cannot be drawn, or its sentences do not hold its numbers."""
    report = bnprobe.report(whole)
    page = report.to_html(tmp_path / "r20.html").read_text("utf-8")
    told = ["running statistics", "roles", "firing", "shape", "variance", "implied", "implied by depth"]
    told += ["affine", "residual"]
    # of the channel farthest from its running mean; the page draws those of all channels when they are asked for
    assert list(report.figures) == ["spine", "spine upright", "network", *told, "transfer"]
    pages.assert_pictures_are(pages.assert_sound(page), 3 + len(told), [r.site for r in whole.layers])
    assert "could not be drawn" not in page
    assert "19 batch norms, 688 channels, measured on 1,000 images in eval mode." in page
    n_norms = report.channels.query("abs(gamma) < 0.01")["layer"].nunique()
    for said in ("negative in 26 channels (3.8%)", f"18 channels in {n_norms} norms have |γ| below 0.01"):
        assert said in page


# Decoders of Hugging Face


class GemmaLike(nn.Module):
    """RMSNorm of Gemma, as transformers writes it: the weight holds gamma - 1."""

    def __init__(self, norm: type[nn.Module], width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, width)
        self.input_layernorm = norm(width)
        self.mlp = nn.Linear(width, width)
        self.norm = norm(width)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        return self.norm(x + self.mlp(self.input_layernorm(x)))


def llama() -> tuple[nn.Module, float, int]:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    return transformers.LlamaForCausalLM(config), 0.0, 2 * 2 + 1


def gemma() -> tuple[nn.Module, float, int]:
    pytest.importorskip("transformers")
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

    return GemmaLike(GemmaRMSNorm, 24), 1.0, 2


@slow
@pytest.mark.filterwarnings("ignore:::transformers")
@pytest.mark.parametrize("build", [llama, gemma])
def test_every_norm_of_a_decoder_is_understood(build: Callable[[], Any], tmp_path):
    """Fails if an RMSNorm of transformers is passed over, or Gemma's 1 + w is shown as w."""
    model, offset, n_norms = build()
    generator = torch.Generator().manual_seed(2)
    expected = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if "RMSNorm" in type(module).__name__:
                module.weight += torch.randn(24, generator=generator) * 0.2
                expected[name] = module.weight.double().numpy() + offset
        seen: dict[str, Tensor] = {}
        handles = [
            model.get_submodule(name).register_forward_hook(
                lambda _, args, y, name=name: seen.update({name: y})
            )
            for name in expected
        ]
        tokens = torch.randint(0, 40, (6, 11), generator=generator)
        with bnprobe.attach(model.eval()) as probe:
            model(input_ids=tokens)
        for handle in handles:
            handle.remove()
    report = bnprobe.report(probe)
    assert len(report.layers) == n_norms == len(expected)
    assert set(report.layers["kind"]) == {"rms_norm"}
    assert (report.layers["mismatch"] < 1e-4).all()
    assert report.recording.not_understood == ()
    for name, gamma in expected.items():
        mine = report.channels[report.channels["layer"] == name]
        np.testing.assert_allclose(mine["gamma"], gamma, rtol=1e-7, err_msg=name)
        y = seen[name].double().numpy().reshape(-1, 24)
        np.testing.assert_allclose(mine["post_mean"], y.mean(0), atol=1e-6, err_msg=name)
        np.testing.assert_allclose(mine["post_var"], y.var(0), rtol=1e-5, err_msg=name)
    page = report.to_html(tmp_path / "decoder.html").read_text("utf-8")
    assert f"{n_norms} RMS norms, " in page
    assert "could not be drawn" not in page


# torchvision's families, by the command line's own path


@pytest.fixture
def two_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return ["--data", str(DATA / "imagenet_samples"), "--limit", "2", "--batch-size", "2"]


CONVOLUTIONAL = ("roles", "firing", "shape", "variance", "affine", "residual")
TRANSFORMING = ("shape", "variance", "per sample", "tokens", "gains")
FAMILIES = {
    "raft_small": ("instance_norm", "instance norm", ("roles", "firing", "shape", "variance", "per sample")),
    "r3d_18": ("batch_norm", "batch norm", CONVOLUTIONAL),
    "swin_t": ("layer_norm", "layer norm", TRANSFORMING),
    "vit_b_16": ("layer_norm", "layer norm", TRANSFORMING),
    "convnext_tiny": ("layer_norm", "layer norm", TRANSFORMING[:3]),
    "mobilenet_v3_small": ("batch_norm", "batch norm", CONVOLUTIONAL),
    "resnet18": ("batch_norm", "batch norm", CONVOLUTIONAL),
}
"""Kind of norm, its words, and the pictures of the chapters that random weights leave something to tell in."""


@slow
@needs_data
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_torchvision_gets_its_page(two_photographs, capsys, name):
    """Fails if flow, video, windows, patches or channels-last inputs break the run, a norm or a picture."""
    kind, words, told = FAMILIES[name]
    arguments = ["report", name, *two_photographs, "--save", "run.bnp", "-o", "page.html", "--no-histograms"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    recording = bnprobe.load("run.bnp")
    assert kind in {record.kind for record in recording.layers}
    assert recording.not_understood == ()
    assert recording.never_called == ()
    assert recording.about.n_images == 2
    page = Path("page.html").read_text("utf-8")
    assert words in " ".join(out.split())
    assert "could not be drawn" not in page
    assert list(bnprobe.report(recording).figures) == ["spine", "spine upright", "network", *told]
    sites = [record.site for record in recording.layers]
    pages.assert_pictures_are(pages.assert_sound(page), 3 + len(told), sites)
    for record in recording.layers:
        assert record.mismatch < 1e-3, record.site
