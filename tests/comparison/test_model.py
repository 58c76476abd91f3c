"""Sides as wholes: changes that norms share, unrelated channels, other tensors, two epochs, two modes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.comparison import pairs
from bnprobe.comparison.lineage import correlations
from bnprobe.comparison.result import Comparison
from bnprobe.recording import Dropout, TensorTable
from bnprobe.rules.common_change import _change

CENTRES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def batches(n: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        y = torch.randint(0, 4, (32,), generator=generator)
        yield torch.randn(32, 3, 8, 8, generator=generator) + CENTRES[y], y


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    widths = (3, 16, 16, 16)
    blocks = [
        layer
        for i in range(3)
        for layer in (nn.Conv2d(widths[i], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4))


def fitted(model: nn.Module, data: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for x, y in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return fitted(network(1), batches(50, 5))


def recorded(model: nn.Module, seed: int = 9) -> bnprobe.Recording:
    return bnprobe.record(model, [x for x, _ in batches(4, seed)])


def serious(found: Comparison) -> list[str]:
    return list(found.findings.loc[found.findings["severity"] != "info", "rule"])


# Two states of one training, and two trainings


def test_two_epochs_of_one_training_are_silent_and_named(trained):
    """Fails if training that moved the weights is reported as other data, or warned of."""
    later = fitted(copy.deepcopy(trained), ((x, (y + 1) % 4) for x, y in batches(100, 6)))
    found = bnprobe.compare(recorded(trained), recorded(later))
    assert found.opens is not None, "else the weights hardly moved, and this proves nothing"
    assert serious(found) == []
    text = " ".join([*found.answer, *found.findings["do"]])
    assert "as between two states of one training" in text
    assert "compare the data" not in text.replace("To compare data, record", "")
    assert "trained apart" not in text


def test_other_data_through_the_same_weights_are_warned_of(trained):
    """Fails if weights are blamed that are the same to the last bit."""
    other = bnprobe.record(trained, [x * 2 + 1 for x, _ in batches(4, 9)])
    found = bnprobe.compare(recorded(trained), other)
    assert serious(found) == ["inputs-differ"]
    assert "compare the data of both sides" in found.findings["do"][0]
    assert "following norms do as well, by up to" in found.findings["because"][0]


def test_other_data_before_weights_that_moved_later_are_warned_of(trained):
    """Fails if any weight that moved explains any input: those of the head come after the first norm."""
    tuned = copy.deepcopy(trained)
    with torch.no_grad():
        tuned[-1].weight.mul_(1.5)
    found = bnprobe.compare(recorded(trained), bnprobe.record(tuned, [x * 2 + 1 for x, _ in batches(4, 9)]))
    assert serious(found) == ["inputs-differ"]


def test_channels_of_two_trainings_are_not_paired(trained, tmp_path):
    """Fails if networks trained apart are compared channel by channel, or one that was trained on is taken for another."""
    other = fitted(network(2), batches(50, 6))
    sides = recorded(trained), recorded(other)
    found = bnprobe.compare(*sides)
    assert found.answer[0].startswith("A and B were trained apart")
    assert "two states of one training" not in " ".join(found.answer)
    assert list(found.findings["rule"]) == ["channels-unrelated"]
    assert found.opens is None
    assert found.channels.filter(regex="_(gap|shift|ratio)$").isna().all(axis=None)
    a, b = (np.sort(side.layers[1].pre.mean) for side in sides)
    sd = [np.sort(np.sqrt(side.layers[1].pre.var_population)) for side in sides]
    unit = np.mean((sd[0] ** 2 + sd[1] ** 2) / 2) + 1e-5
    expected = np.sqrt((np.mean((b - a) ** 2) + np.mean((sd[1] - sd[0]) ** 2)) / unit)
    assert found.layers["pre_gap"][1] == pytest.approx(expected, rel=1e-3)
    assert "could not be drawn" not in found.to_html(tmp_path / "page.html").read_text("utf-8")
    early = fitted(network(1), batches(5, 5))
    assert "trained apart" not in " ".join(bnprobe.compare(recorded(early), sides[0]).answer)


def test_correlations_agree_with_numpy(trained):
    """Fails if layers are not weighted by their channels, or what layers have in common counts."""
    other = fitted(copy.deepcopy(trained), batches(30, 6))
    sides = recorded(trained), recorded(other)
    z = [
        np.arctanh(np.corrcoef(a.gamma, b.gamma)[0, 1])
        for a, b in zip(*(s.layers for s in sides), strict=True)
    ]
    r, error = correlations(pairs(*sides).common)["γ"]
    assert r == pytest.approx(np.tanh(np.mean(z)))
    assert error == pytest.approx((3 * 13) ** -0.5)


def test_one_vector_in_another_order_is_no_other_network(trained):
    """Fails if running statistics that a converter shuffled make two files two trainings."""
    state, shuffled = trained.state_dict(), copy.deepcopy(trained.state_dict())
    for name in shuffled:
        if "running" in name:
            shuffled[name] = shuffled[name][torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    found = bnprobe.compare(state, shuffled)
    assert "channels-unrelated" not in set(found.findings["rule"])
    assert set(found.findings["rule"]) == {"channels-reordered"}
    # numbers that are not those of A to the last bit say nothing of an order, and the other vectors must speak
    nearly = {name: t * (1 + 1e-5) if "running" in name else t for name, t in shuffled.items()}
    assert "channels-unrelated" not in set(bnprobe.compare(state, nearly).findings["rule"])


# Changes that norms share


def changed(state: dict[str, Tensor], ends: str, change: object) -> dict[str, Tensor]:
    return {
        name: change(tensor) if name.endswith(ends) and tensor.dim() == 1 else tensor.clone()  # type: ignore[operator]
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_added_to_every_scale_is_one_finding(trained, dtype):
    """Fails if the convention of 1 + w is told norm by norm, not at all, or with the wrong side."""
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in trained.state_dict().items()
    }
    more = changed(state, "weight", lambda tensor: tensor + 1)
    there, back = bnprobe.compare(state, more), bnprobe.compare(more, state)
    assert serious(there) == serious(back) == ["changed-alike"]
    assert there.findings["says"][0] == "Every γ is exactly 1 larger in B than in A, in all 3 norms."
    assert back.findings["says"][0] == "Every γ is exactly 1 smaller in B than in A, in all 3 norms."
    assert there.findings["says"][0] in there.answer


def test_a_factor_of_the_running_statistics_is_one_finding(trained):
    """Fails if a converter's factor is told twice, or as statistics that moved under frozen weights."""
    state = trained.state_dict()
    more = changed(state, ("running_mean", "running_var"), lambda tensor: tensor * 999.98)
    there, back = bnprobe.compare(state, more), bnprobe.compare(more, state)
    assert serious(there) == serious(back) == ["changed-alike"]
    assert there.findings["says"][0] == (
        "Every running_mean and running_var is 999.98 times as large in B as in A, in all 3 norms."
    )
    assert "0.00100002 times as large in B as in A" in back.findings["says"][0]


def test_training_has_no_change_in_common(trained):
    """Fails if changes of channels of their own are called one."""
    later = fitted(copy.deepcopy(trained), batches(3, 6))
    assert "changed-alike" not in set(
        bnprobe.compare(trained.state_dict(), later.state_dict()).findings["rule"]
    )
    lost = changed(trained.state_dict(), "running_mean", torch.zeros_like)
    assert "changed-alike" not in set(bnprobe.compare(trained.state_dict(), lost).findings["rule"])


# Other tensors


def test_a_tensor_that_was_not_loaded_is_named(trained):
    """Fails if files with equal norms are called the same while another tensor is a hundred thousand times smaller."""
    state, lost = trained.state_dict(), copy.deepcopy(trained.state_dict())
    lost["11.weight"] *= 1e-5
    found = bnprobe.compare(state, lost)
    assert found.answer[0].startswith(
        "All 3 common norms are equal to the last bit, but 1 of 5 other tensors differs, most 11.weight (root mean square "
    )
    assert not found.identical
    assert serious(found) == ["tensors-differ"]
    assert "11.weight (root mean square" in found.findings["because"][0]
    assert serious(bnprobe.compare(lost, state)) == ["tensors-differ"]
    assert bnprobe.compare(state, copy.deepcopy(state)).answer[0].startswith("Nothing changed")


def test_a_tensor_under_another_name_is_told_by_side(trained):
    """Fails if a key that was renamed is no difference."""
    state = {**trained.state_dict(), "block.gamma": torch.ones(7)}
    other = {**trained.state_dict(), "block.weight": torch.ones(7), "extra": torch.ones(2, 3)}
    found = bnprobe.compare(state, other)
    assert "only A has block.gamma; only B has" in found.answer[0]
    rows = found.findings[found.findings["rule"] == "tensors-unmatched"]
    assert list(rows["severity"]) == ["warning", "info"]
    assert rows["because"].iloc[0] == "1: block.gamma and block.weight."
    assert rows["because"].iloc[1] == "1: extra."


def test_models_tell_of_their_other_tensors_too(trained, tmp_path):
    """Fails if a recording does not keep what its tensors were, on disk too, or a file differs from its own model."""
    head = copy.deepcopy(trained)
    with torch.no_grad():
        head[-1].weight[0, 0] += 1e-3
    a, b = recorded(trained), recorded(head)
    b = bnprobe.load(b.save(tmp_path / "b.bnp"))
    found = bnprobe.compare(a, b)
    assert "but 1 of 5 other tensors differs" in found.answer[0]
    assert serious(found) == []
    assert found.tensors["tensor"].tolist() == ["11.weight"]
    assert bnprobe.compare(a, trained.state_dict()).tensors.empty
    assert bnprobe.compare(b, trained.state_dict()).tensors["tensor"].tolist() == ["11.weight"]


def test_tensors_are_the_same_by_checksum_or_by_size():
    """Fails if sums of a device are held against a checksum of bytes, or another precision is another tensor."""
    ones = (np.array([5.0]), np.array([5.0 + 2.0**33]), np.array([6.0]), np.array([np.nan]))
    cpu, device, other, unread = (
        TensorTable(("w",), ("float32",), ("3",), sums, np.array([1.0])) for sums in ones
    )
    half = TensorTable(("w",), ("bfloat16",), ("3",), ones[2], np.array([1.004]))
    wide = TensorTable(("w",), ("float32",), ("4",), ones[0], np.array([1.0]))
    assert cpu.same(0, device, 0)
    assert cpu.same(0, unread, 0)
    assert cpu.same(0, half, 0)
    assert not cpu.same(0, other, 0)
    assert not cpu.same(0, wide, 0)
    assert not cpu.same(0, TensorTable(("w",), ("float32",), ("3",), ones[1], np.array([1.001])), 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_factor_of_a_vector_that_hardly_varies_is_not_known(sign):
    """Fails if rounding around 1.05 times one number is told as a factor, of numbers below zero as above: it is no sum
    either, and nothing says which."""
    rounded = 1.05 * (1 + np.array([0.0, 3e-3, -2e-3, 1e-3]))
    alike = sign * (1 + np.array([0.0, 2e-4, 5e-4, 9e-4]))
    assert _change(alike, rounded * alike) is None
    apart = sign * np.array([0.5, 1.0, 1.5, 2.0])
    assert _change(apart, rounded * apart) == (pytest.approx(1.05, rel=5e-3), True)


# Modes


def dropping(p: float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Dropout(p), nn.Linear(20, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 1)
    )


def wide(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(64, 20, generator=generator) + 1.5 for _ in range(n)]


def modes(model: nn.Module) -> Comparison:
    for x in wide(100):
        model.train()(x)
    trained = bnprobe.record(copy.deepcopy(model).train(), wide(8))
    return bnprobe.compare(bnprobe.record(model.eval(), wide(8)), trained)


def test_dropout_before_a_norm_is_named_between_modes():
    """Fails if the data or the weights are blamed for what dropout does in train mode."""
    found = modes(dropping(0.5))
    assert serious(found) == ["modes-disagree"]
    row = found.findings.iloc[0]
    assert row["layer"] == "2"
    assert "Dropout before this norm" in row["says"]
    assert "by the module tree, 0 (p = 0.5) comes before it" in row["because"]
    assert "in train mode 0 (p = 0.5) drops values before it" in " ".join(found.answer)


def test_without_dropout_modes_agree():
    """Fails if running statistics that recording in train mode moved are called frozen ones that moved."""
    model = dropping(0.5)
    model[0].p = 0.0
    found = modes(model)
    assert found.findings.empty
    for x in wide(20):
        model.train()(x)
    trained = bnprobe.record(model.train(), wide(8))
    after = bnprobe.compare(bnprobe.record(model.eval(), wide(8)), trained)
    assert (after.layers["running_gap"] > 0).all(), "else this proves nothing"
    assert after.findings.empty


def test_dropout_is_not_named_where_other_data_explain_more():
    """Fails if any difference between modes is put down to dropout: it does not move means."""
    model = dropping(0.01)
    for x in wide(50):
        model.train()(x)
    trained = bnprobe.record(copy.deepcopy(model).train(), [x + 2 for x in wide(8)])
    found = bnprobe.compare(bnprobe.record(model.eval(), wide(8)), trained)
    assert "Dropout" not in " ".join(found.findings["says"])


def test_dropout_before_a_norm_without_running_statistics_is_a_note():
    """Fails if the data are blamed between modes where nothing was stored that could be wrong."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(20, 64, bias=False), nn.LayerNorm(64))
    sides = bnprobe.record(model.eval(), wide(8)), bnprobe.record(model.train(), wide(8))
    for found in (bnprobe.compare(*sides), bnprobe.compare(*sides[::-1])):
        assert "inputs-differ" not in set(found.findings["rule"])
        assert list(found.findings.loc[found.findings["rule"] == "modes-disagree", "severity"]) == ["info"]
        assert "in train mode 0 (p = 0.5) drops values before it" in " ".join(found.answer)


class InAFunction(nn.Module):
    """Dropout that no module shows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(20, 64, bias=False), nn.LayerNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(nn.functional.dropout(x, 0.5, self.training)))


def test_dropout_in_a_function_is_allowed_for():
    """Fails if the data alone are blamed between modes where no module tells of dropout."""
    model = InAFunction()
    found = bnprobe.compare(bnprobe.record(model.eval(), wide(8)), bnprobe.record(model.train(), wide(8)))
    assert "One side ran in train mode, where dropout may change them." in found.findings["do"][0]


def test_dropout_is_listed_by_the_norm_that_follows():
    """Fails if a module that drops nothing is listed, or one behind all norms is put before one."""
    model = nn.Sequential(
        nn.Dropout(0.2), nn.LayerNorm(4), nn.Dropout(0.0), nn.LayerNorm(4), nn.Dropout1d(0.1)
    )
    recording = bnprobe.record(model, [torch.randn(5, 4)])
    assert recording.dropouts == (Dropout("0", 0.2, "1"), Dropout("4", 0.1, ""))


# Another eps


def test_another_eps_is_another_norm_and_not_other_inputs(trained):
    """Fails if the inputs are said to differ because eps does, or those of the norms that follow are told apart."""
    other = copy.deepcopy(trained)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.5
    found = bnprobe.compare(recorded(trained), recorded(other))
    assert set(found.findings["rule"]) == {"norm-replaced"}
    assert "The first norm received the same inputs" in " ".join(found.answer)
    assert "The same inputs give outputs" in found.findings["because"][0]
    assert (found.layers["pre_gap"] >= 0.5).any(), "else nothing had to be left out"
