"""Three real networks that nobody here wrote, checked from their files: a face detector, a keyword spotter, a segmenter.

Everything that a finding counts is counted once more in float64 from the tensors of the file, in both directions: no
channel is named that the rule does not fit, and none is left out. What a file cannot tell (its eps, what follows a norm)
is asserted nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import DATA
from torch import Tensor
from torch.nn import functional as F

import bnprobe
from bnprobe.report.result import Report

FACES, WORDS, STREETS = "version-slim-320.pth", "honk_res8.pt", "espnet_p_2_q_3.pth"
NETS = (FACES, WORDS, STREETS)
N_NORMS = {FACES: 25, WORDS: 6, STREETS: 16}

FLOOR = 5.605193857299268e-45
"""Four times the smallest float32: what times 0.9 rounds to itself."""

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")

Vectors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, np.ndarray]]:
    """The tensors of the files, float64."""
    files = {net: torch.load(DATA / "nets" / net, map_location="cpu", weights_only=True) for net in NETS}
    return {
        net: {key: value.double().numpy() for key, value in state.items()} for net, state in files.items()
    }


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    return {net: bnprobe.check(DATA / "nets" / net) for net in NETS}


def norms(state: dict[str, np.ndarray]) -> dict[str, Vectors]:
    """The vectors of every norm by its path, in the order of the file; missing ones are left out."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
    paths = [key.removesuffix(".running_var") for key in state if key.endswith(".running_var")]
    return {
        path: {
            mine: state[f"{path}.{theirs}"] for theirs, mine in names.items() if f"{path}.{theirs}" in state
        }
        for path in paths
    }


def found(report: Report, rule: str, words: str = "") -> dict[str, Any]:
    """The findings of one rule that say these words, by their layer; one at most in each."""
    rows = report.findings[report.findings["rule"] == rule]
    rows = rows[rows["says"].str.contains(words)]
    assert rows["layer"].is_unique
    return {row.layer: row for row in rows.itertuples()}


def where(condition: np.ndarray) -> set[int]:
    return set(np.flatnonzero(condition).tolist())


def assert_counted(finding: Any, channels: set[int], n_channels: int) -> None:
    """The channels and the words that count them."""
    assert set(finding.channels) == channels
    assert f"{len(channels)} of {n_channels} channels" in finding.because


def fitting(state: dict[str, np.ndarray], rule: Any) -> dict[str, set[int]]:
    """The channels of every norm that fit; norms without any are left out."""
    fits = {path: where(rule(**vectors)) for path, vectors in norms(state).items()}
    return {path: channels for path, channels in fits.items() if channels}


# What every file is asked


@pytest.mark.parametrize("net", NETS)
def test_every_norm_is_found_with_its_vectors(net, states, reports):
    """Fails if a norm is missed, a PReLU's weight is taken for a norm, or a vector differs in its last bit."""
    expected, channels = norms(states[net]), reports[net].channels
    assert len(expected) == N_NORMS[net]
    assert set(reports[net].layers["layer"]) == set(expected)
    assert set(reports[net].layers["kind"]) == {"batch_norm"}
    for path, vectors in expected.items():
        mine = channels[channels["layer"] == path]
        for name in ("gamma", "beta", "running_mean", "running_var"):
            if name in vectors:
                np.testing.assert_array_equal(mine[name], vectors[name], err_msg=f"{path} {name}")
            else:
                assert mine[name].isna().all(), (path, name)


@pytest.mark.parametrize("net", NETS)
def test_channels_of_next_to_no_scale(net, states, reports):
    """Fails if |gamma| is compared with its sign, or with another threshold."""

    def flat(gamma: np.ndarray | None = None, **_: np.ndarray) -> np.ndarray:
        return np.zeros(0) if gamma is None else np.abs(gamma) < 0.01

    expected, findings = fitting(states[net], flat), found(reports[net], "channels-constant")
    assert {path: set(finding.channels) for path, finding in findings.items()} == expected
    for path, finding in findings.items():
        assert_counted(finding, expected[path], len(states[net][f"{path}.weight"]))
        assert "|γ| < 0.01" in finding.because


@pytest.mark.parametrize("net", NETS)
def test_channels_that_can_never_be_positive(net, states, reports):
    """Fails if the bound takes gamma's sign, another number of deviations, or leaves a layer out.

    Or if gamma counts in full below zero where eps, 1e-5, is what the norm divides by.
    """

    def negative(
        running_var: np.ndarray,
        gamma: np.ndarray | None = None,
        beta: np.ndarray | None = None,
        **_: np.ndarray,
    ) -> np.ndarray:
        if gamma is None or beta is None:
            return np.zeros(0)
        little = (running_var < 1e-7) & (beta < 0)
        size = np.abs(gamma) * np.where(little, np.sqrt(running_var / (running_var + 1e-5)), 1.0)
        return beta + 6 * size < 1e-4

    expected, findings = fitting(states[net], negative), found(reports[net], "channels-dead")
    # a PReLU, which the file shows beside its norm, lets negative values pass
    expected = {
        path: channels
        for path, channels in expected.items()
        if f"{path.rpartition('.')[0]}.act.weight" not in states[net]
    }
    assert {path: set(finding.channels) for path, finding in findings.items()} == expected
    for path, finding in findings.items():
        assert_counted(finding, expected[path], len(states[net][f"{path}.weight"]))
        assert "β + 6|γ| < 0.0001" in finding.because


@pytest.mark.parametrize("net", NETS)
def test_filters_that_have_decayed(net, states, reports):
    """Fails if a length is of another layer's filters, or the share is not of that layer's median."""
    state, findings = states[net], found(reports[net], "filters-decayed")
    feeders = {row.layer: row.feeder.removesuffix(" (by name)") for row in reports[net].layers.itertuples()}
    expected: dict[str, set[int]] = {}
    for path, feeder in feeders.items():
        if not feeder or f"{path}.weight" not in state:
            continue
        assert state[f"{feeder}.weight"].shape[0] == state[f"{path}.weight"].size
        length = np.sqrt((state[f"{feeder}.weight"] ** 2).sum(axis=(1, 2, 3)))
        short = length < 0.05 * np.median(length)
        channels = where(short & (np.abs(state[f"{path}.weight"]) < 0.01))
        if not channels:
            continue
        expected[path] = channels
        assert_counted(findings[path], channels, length.size)
        most = length[sorted(channels)].max()
        said = re.search(
            r"length of at most (\S+), (?:under )?(\S+)% of the layer's median", findings[path].because
        )
        assert said
        assert float(said[1]) == pytest.approx(most, rel=0.05)
        assert float(said[2]) == pytest.approx(max(100 * most / np.median(length), 0.1), abs=0.051)
    assert set(findings) == set(expected)
    assert bool(expected) == (net != WORDS)


def test_the_face_detectors_producers(reports):
    """Fails if a norm of the face detector is said to follow other weights than the convolution just before it."""
    for row in reports[FACES].layers.itertuples():
        block, _, place = row.layer.rpartition(".")
        assert row.feeder == f"{block}.{int(place) - 1} (by name)"


@pytest.mark.parametrize("net", [FACES, WORDS])
def test_variances_below_eps(net, states, reports):
    """Fails if the variances are counted by another threshold, or a smallest one is not the file's.

    For these two nets 1e-5 is the eps that they were built with. The third file's is not in it, and was 1e-3.
    """

    def small(running_var: np.ndarray, gamma: np.ndarray | None = None, **_: np.ndarray) -> np.ndarray:
        some = (running_var < 1e-5) & (running_var != FLOOR)
        return some & (True if gamma is None else np.abs(gamma) >= 0.01)

    expected, findings = fitting(states[net], small), found(reports[net], "variance-below-eps", "eps")
    assert {path: set(finding.channels) for path, finding in findings.items()} == expected
    for path, finding in findings.items():
        variances = states[net][f"{path}.running_var"]
        assert_counted(finding, expected[path], variances.size)
        said = re.search(r"smallest ([\d.e+-]+)\)", finding.because)
        assert said
        assert float(said[1]) == pytest.approx(variances[sorted(expected[path])].min(), rel=0.05)


def test_the_floor_of_a_running_variance():
    """Fails if 5.6e-45 is no fixed point of a norm in training whose input is constant, reached in a thousand batches."""
    norm, still = torch.nn.BatchNorm2d(1), torch.zeros(2, 1, 3, 5)
    variances = []
    for _ in range(1100):
        norm(still)
        variances.append(norm.running_var.item())
    assert variances[-1] == FLOOR
    assert 900 < variances.index(FLOOR) < 1000
    assert 4 * np.finfo(np.float32).smallest_subnormal == FLOOR


# The face detector


STRIDES = {0: 2, 2: 2, 4: 2, 8: 2, 11: 2}
"""Of the 3 x 3 convolution that a block begins with; 1 elsewhere."""


def outputs_of_norms(state: dict[str, np.ndarray], x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The backbone of the face detector, written down by hand: what leaves each norm, before its ReLU."""
    tensors = {key: torch.from_numpy(value) for key, value in state.items()}

    def normalized(x: Tensor, path: str) -> Tensor:
        mean, var, gamma, beta = (
            tensors[f"{path}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, gamma, beta, eps=1e-5)

    for block in range(13):
        weight = tensors[f"base_net.{block}.0.weight"]
        groups = 1 if block == 0 else weight.shape[0]
        x = normalized(F.conv2d(x, weight, None, STRIDES.get(block, 1), 1, 1, groups), f"base_net.{block}.1")
        yield f"base_net.{block}.1", x
        if block:
            x = normalized(F.conv2d(x.relu(), tensors[f"base_net.{block}.3.weight"]), f"base_net.{block}.4")
            yield f"base_net.{block}.4", x
        x = x.relu()


@pytest.fixture(scope="module")
def never_positive(states) -> dict[str, set[int]]:
    """Channels of the face detector's norms that no place of 32 photographs made positive."""
    highest: dict[str, np.ndarray] = {}
    paths = sorted((DATA / "imagenet_samples").glob("*/*.JPEG"))
    assert len(paths) == 32
    for path in paths:
        pixels = np.array(Image.open(path).convert("RGB").resize((320, 240), Image.Resampling.BILINEAR))
        x = (torch.from_numpy(pixels).double().permute(2, 0, 1)[None] - 127) / 128
        for name, y in outputs_of_norms(states[FACES], x):
            highest[name] = np.maximum(highest.get(name, -np.inf), y.amax((0, 2, 3)).numpy())
    return {name: where(values <= 0) for name, values in highest.items() if (values <= 0).any()}


def test_the_face_detectors_dead_channels_are_dead(reports, never_positive):
    """Fails if one of the 68 channels that can never be positive is, on photographs, where 71 never are."""
    findings = found(reports[FACES], "channels-dead")
    assert sum(len(finding.channels) for finding in findings.values()) == 68
    assert sum(map(len, never_positive.values())) == 71
    for path, finding in findings.items():
        assert set(finding.channels) <= never_positive[path], path


@pytest.mark.parametrize("net", [FACES, WORDS])
def test_inputs_that_never_varied(net, states, reports):
    """Fails if variances at the smallest number that × 0.9 keeps are not those of constant inputs."""
    expected = fitting(states[net], lambda running_var, **_: running_var == FLOOR)
    constant = found(reports[net], "variance-below-eps", "were constant")
    assert {path: set(finding.channels) for path, finding in constant.items()} == expected
    assert expected
    for finding in constant.values():
        assert finding.severity == "info"
        assert "1,000 batches" in finding.because


def test_the_face_detectors_small_variances(states, reports):
    """Fails if the 80 of the last depthwise norm are counted otherwise: 5 more have a small scale besides.

    Only 7 of the 85 belong to an input that never varied in training.
    """
    small = states[FACES]["base_net.12.1.running_var"]
    assert ((small < 1e-5).sum(), (small == FLOOR).sum()) == (85, 7)
    finding = found(reports[FACES], "variance-below-eps", "eps")["base_net.12.1"]
    constant = found(reports[FACES], "variance-below-eps", "were constant")["base_net.12.1"]
    assert (len({*finding.channels, *constant.channels}), len(small)) == (80, 256)
    assert finding.severity == "info", "it was trained like this"


# The keyword spotter


def test_the_keyword_spotters_constant_inputs(states, reports):
    """Fails if one of the 14 channels is missed whose input was exactly 0, or a norm without gamma and beta is given any."""
    state, report = states[WORDS], reports[WORDS]
    dead = where(state["bn1.running_var"] == FLOOR)
    assert (len(dead), state["bn1.running_var"].size) == (14, 45)
    assert (state["bn1.running_mean"][sorted(dead)] == FLOOR).all()  # it decays like the variance
    findings = found(report, "variance-below-eps")
    assert {path: set(finding.channels) for path, finding in findings.items()} == {"bn1": dead}
    assert report.channels[["gamma", "beta"]].isna().all(axis=None)
    assert all((state[f"bn{i}.running_mean"] >= 0).all() for i in range(1, 7))  # as after a ReLU


# The segmenter


def test_the_segmenters_activations_are_no_norms(states, reports):
    """Fails if the weights of the PReLU after a norm (X.act.weight) become a norm, or a vector of one."""
    state = states[STREETS]
    activations = {key.removesuffix(".act.weight") for key in state if key.endswith(".act.weight")}
    followed = {path for path in norms(state) if path.rpartition(".")[0] in activations}
    assert len(activations) == len(followed) == 15
    assert set(norms(state)) - followed == {"br"}
    assert not [layer for layer in reports[STREETS].layers["layer"] if "act" in layer.split(".")]
