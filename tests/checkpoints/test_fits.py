"""Whether running statistics are those of the weights before them, in networks whose files were spoilt as converters do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm as gaussian
from support.paths import DATA
from torch import Tensor, nn

import bnprobe

State = dict[str, Tensor]
VECTORS = ("weight", "bias", "running_mean", "running_var")
STATISTICS = VECTORS[2:]
WIDTHS = (3, 32, 48, 48, 64, 64, 48, 48, 64, 64, 32, 32, 48)
NORMS = [f"{i}" for i in range(1, 3 * (len(WIDTHS) - 1), 3)]


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    """Twelve convolutions, each with norm and ReLU, with statistics of a few batches, in eval mode."""
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in pairwise(WIDTHS):
        layers += [
            nn.Conv2d(n_inputs, n_outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_outputs),
            nn.ReLU(),
        ]
    model = nn.Sequential(*layers)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.4, 1.4)
            nn.init.normal_(module.bias, 0, 0.4)
            module.momentum = None
    for _ in range(3):
        model(torch.randn(8, 3, 12, 12))
    return model.eval()


@pytest.fixture
def state(net: nn.Sequential) -> State:
    return copy.deepcopy(net.state_dict())


def found(state: Any) -> list[tuple[str, str, str]]:
    """Severity, rule and layer of what these two rules find."""
    findings = bnprobe.check(state).findings
    rows = findings[findings["rule"].isin(["statistics-misplaced", "folded-and-kept"])]
    return list(zip(rows["severity"], rows["rule"], rows["layer"], strict=True))


def exchanged(state: State, one: str, other: str, vectors: tuple[str, ...] = VECTORS) -> State:
    names = {f"{a}.{v}": f"{b}.{v}" for v in vectors for a, b in ((one, other), (other, one))}
    return {name: state[names.get(name, name)] for name in state}


def folded(state: State) -> State:
    """The weights as torch's own fusion makes them, beside the norms as they were."""
    spoilt = dict(state)
    for path in NORMS:
        before = f"{int(path) - 1}"
        gamma, beta, mean, var = (state[f"{path}.{vector}"] for vector in VECTORS)
        weight, bias = torch.nn.utils.fusion.fuse_conv_bn_weights(
            state[f"{before}.weight"], None, mean, var, 1e-5, gamma, beta
        )
        spoilt |= {f"{before}.weight": weight.detach(), f"{before}.bias": bias.detach()}
    order = [name for path in NORMS for name in spoilt if name.split(".")[0] in (str(int(path) - 1), path)]
    return {
        name: spoilt[name] for name in sorted(order, key=lambda name: (int(name.split(".")[0]), name[::-1]))
    }


def test_the_fit_of_a_norm(state: State) -> None:
    """Fails if another activation, the signs of γ, or the norm itself enters what its weights imply."""
    layers = bnprobe.check(state).layers.set_index("layer")
    beta, gamma = (state[f"4.{name}"].double().numpy() for name in ("bias", "weight"))
    handed_on = beta * gaussian.cdf(beta / gamma) + gamma * gaussian.pdf(beta / gamma)
    implied = state["6.weight"].double().numpy().sum(axis=(2, 3)) @ handed_on
    mean, var, own = (
        state[f"7.{name}"].double().numpy() for name in ("running_mean", "running_var", "weight")
    )
    assert layers.loc["7", "means_fit"] == pytest.approx(np.corrcoef(mean, implied)[0, 1], abs=1e-9)
    taken_out = implied * np.sqrt(var + 1e-5) / own
    assert layers.loc["7", "means_fit_unfolded"] == pytest.approx(
        np.corrcoef(mean, taken_out)[0, 1], abs=1e-9
    )
    assert np.isnan(layers.loc["1", "means_fit"])
    assert list(layers["directly_fed"]) == [0] + [1] * (len(NORMS) - 1)


def test_a_healthy_network(state: State) -> None:
    """Fails if a norm is reported whose statistics are its own."""
    assert found(state) == []


@pytest.mark.parametrize("vectors", [VECTORS, STATISTICS], ids=["norms", "statistics"])
@pytest.mark.parametrize(("one", "other"), [("10", "13"), ("4", "19")], ids=["next to each other", "apart"])
def test_two_norms_in_each_others_place(state: State, one: str, other: str, vectors: tuple[str, ...]) -> None:
    """Fails if shapes that agree hide an exchange, also where the one feeds the other."""
    assert ("critical", "statistics-misplaced", "") in found(exchanged(state, one, other, vectors))


def test_the_first_norm_in_anothers_place(state: State) -> None:
    """Fails if a norm is not found whose partner has nothing before it that implies anything."""
    widened = nn.Sequential(nn.Conv2d(3, 48, 3, bias=False), nn.BatchNorm2d(48)).train()
    widened(torch.randn(8, 3, 12, 12))
    first = {f"a{name}": tensor for name, tensor in widened.state_dict().items()}
    spoilt = exchanged(first | state, "a1", "7", STATISTICS)
    assert found(spoilt) == [("critical", "statistics-misplaced", "7")]


@pytest.mark.parametrize("path", ["7", "16"])
def test_channels_in_another_order_than_the_weights(state: State, path: str) -> None:
    """Fails if a permuted norm passes because it holds the right numbers."""
    order = torch.randperm(len(state[f"{path}.bias"]), generator=torch.Generator().manual_seed(1))
    spoilt = state | {f"{path}.{vector}": state[f"{path}.{vector}"][order] for vector in VECTORS}
    assert found(spoilt) == [("warning", "statistics-misplaced", path)]


def as_tensorflow_keeps_it(weight: Tensor) -> Tensor:
    """The numbers of a kernel (H, W, inputs, outputs) in the shape (outputs, inputs, H, W)."""
    kept = torch.empty(*weight.shape[2:], weight.shape[1], weight.shape[0])
    for at in np.ndindex(*weight.shape):
        kept[(*at[2:], at[1], at[0])] = weight[at]
    return kept.reshape(weight.shape)


@pytest.mark.parametrize(
    ("spoil", "paths", "says"),
    [
        (lambda w: w.transpose(0, 1).contiguous(), ["6"], "are transposed"),
        (lambda w: w.transpose(0, 1).contiguous(), ["6", "12", "18", "24", "30"], "are transposed"),
        (as_tensorflow_keeps_it, ["6"], "were reshaped where they had to be transposed"),
        (as_tensorflow_keeps_it, ["9", "12", "33"], "were reshaped where they had to be transposed"),
    ],
    ids=["one transposed", "all square ones transposed", "one reshaped", "several reshaped"],
)
def test_weights_in_the_layout_of_another_framework(
    net: nn.Sequential, state: State, spoil: Callable[[Tensor], Tensor], paths: list[str], says: str
) -> None:
    """Fails if kernels whose shapes agree pass, other norms are named, or the advice does not put every number back."""
    spoilt = state | {f"{path}.weight": spoil(state[f"{path}.weight"]) for path in paths}
    norms = [str(int(path) + 1) for path in paths]
    layers = bnprobe.check(spoilt).layers.set_index("layer")
    assert [layer for layer in layers.index if layers.loc[layer, "fits_layout"]] == norms
    ((_, row),) = bnprobe.check(spoilt).findings.iterrows()
    assert (row["severity"], row["rule"]) == ("critical", "statistics-misplaced")
    assert says in row["says"]
    assert row["layer"] == (norms[0] if len(norms) == 1 else "")
    model = copy.deepcopy(net)
    model.load_state_dict(spoilt)
    exec(row["do"].split("`")[1], {"model": model})
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


def test_a_bias_stays_in_its_place_where_weights_are_transposed(state: State) -> None:
    """Fails if a layout is judged by means without the bias, which is half of them here."""
    bias = torch.linspace(-0.5, 0.5, 48)[torch.randperm(48, generator=torch.Generator().manual_seed(2))]
    spoilt = state | {
        "6.weight": state["6.weight"].transpose(0, 1).contiguous(),
        "6.bias": bias,
        "7.running_mean": state["7.running_mean"] + bias,
    }
    layers = bnprobe.check(spoilt).layers.set_index("layer")
    assert layers.loc["7", "fits_layout"] == "transposed"


def test_every_channel_of_the_norms_in_another_order(state: State) -> None:
    """Fails if a file passes in which no norm fits, because none does against which one could be judged."""
    spoilt = dict(state)
    for path in NORMS:
        order = torch.randperm(len(state[f"{path}.bias"]), generator=torch.Generator().manual_seed(1))
        spoilt |= {f"{path}.{vector}": state[f"{path}.{vector}"][order] for vector in VECTORS}
    assert found(spoilt) == [("warning", "statistics-misplaced", "")]
    negated = {name: -t if name.endswith("running_mean") else t for name, t in state.items()}
    assert found(negated) == []


def test_weights_that_the_file_shows_between_are_asked_for_nothing(state: State) -> None:
    """Fails if a norm is warned of that other weights feed than the norm before."""
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    spoilt = state | {f"7.{vector}": state[f"7.{vector}"][order] for vector in STATISTICS}
    names = list(spoilt)
    at = names.index("6.weight")
    between = {name: spoilt[name] for name in names[:at]} | {"between.weight": torch.ones(48, 48)}
    assert found(between | {name: spoilt[name] for name in names[at:]}) == []


@pytest.mark.parametrize("names", ["b.c.", "b.shortcut."])
def test_a_part_with_an_input_of_its_own(state: State, names: str) -> None:
    """Fails if the first norm of a second head, or of a shortcut, is warned of because the file has it after others."""
    head = nn.Sequential(nn.Conv2d(48, 48, 3, bias=False), nn.BatchNorm2d(48)).train()
    head(3 * torch.rand(8, 48, 5, 5) * torch.rand(48, 1, 1) ** 3)
    trunk = {f"a.b.{name}" if names != "b.c." else f"a.{name}": tensor for name, tensor in state.items()}
    beside = {
        f"{'a.' if names != 'b.c.' else ''}{names}{name}": tensor
        for name, tensor in head.state_dict().items()
    }
    assert found(trunk | beside) == []


def test_norms_that_were_folded_and_kept(state: State) -> None:
    """Fails if norms that act twice pass, or the bias that folding adds hides them."""
    assert found(folded(state)) == [("critical", "folded-and-kept", "")]


def test_folded_norms_that_are_the_identity(state: State) -> None:
    """Fails if norms are reported that do nothing any more."""
    identity = {
        f"{path}.{vector}": torch.full_like(state[f"{path}.{vector}"], start)
        for path in NORMS
        for vector, start in zip(VECTORS, (1.0, 0.0, 0.0, 1.0), strict=True)
    }
    assert found(folded(state) | identity) == []


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")
@pytest.mark.parametrize(
    ("file", "one", "other"),
    [
        ("cifar_resnet20.th", "module.layer2.0.bn1", "module.layer2.2.bn2"),
        ("nets/version-slim-320.pth", "base_net.4.4", "base_net.5.1"),
    ],
)
def test_real_networks(file: str, one: str, other: str) -> None:
    """Fails if a real network is called spoilt, or one with two norms exchanged is not."""
    read = torch.load(DATA / file, map_location="cpu", weights_only=True)
    state = read.get("state_dict", read)
    assert found(state) == []
    vectors = tuple(v for v in VECTORS if f"{one}.{v}" in state)
    assert [row[:2] for row in found(exchanged(state, one, other, vectors))] == [
        ("critical", "statistics-misplaced")
    ]
