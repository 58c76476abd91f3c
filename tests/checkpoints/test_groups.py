"""Which tensors of a state dict make a norm, and which only look like it."""

from __future__ import annotations

import warnings

import pytest
import torch
from support.checkpoints import as_read
from support.models import BY_NAME
from torch import nn

from bnprobe.checkpoints.groups import grouped, natural
from bnprobe.norms import is_norm, looks_like_norm


def kinds(state: dict[str, torch.Tensor]) -> dict[str, str]:
    return {norm.path: norm.kind for norm in grouped(as_read(state)).norms}


def v(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


def test_every_norm_with_parameters_is_found_and_nothing_else():
    """Fails if a norm of torch's own is missed, or a weighted layer is taken for one."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.LayerNorm([4, 2, 2]),
        nn.Linear(1, 1),
        nn.PReLU(4),
        nn.Embedding(4, 4),
        nn.MultiheadAttention(4, 2),
        nn.LSTM(4, 4),
    )
    found = kinds(model.state_dict())
    assert found == {
        **dict.fromkeys("125", "batch_norm"),
        **dict.fromkeys("346", "unknown_norm"),
    }


@pytest.mark.parametrize("case", BY_NAME.values(), ids=lambda case: case.name)
def test_on_all_test_models(case):
    """Fails if a norm whose tensors show it is missed, or something is called a norm that the classes do not know."""
    model = case.model()
    modules = dict(model.named_modules(remove_duplicate=False))
    found = kinds(case.model().state_dict()) if "lazy" not in case.name else {}
    sure = {n for n, m in modules.items() if is_norm(m) and {"weight", "bias"} <= m.state_dict().keys()}
    assert sure <= set(found) or "lazy" in case.name
    assert all(is_norm(modules[path]) or looks_like_norm(modules[path]) for path in found)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"norm.weight": v(5)}, {"norm": "unknown_norm"}),
        ({"layers.0.input_layernorm.weight": v(5)}, {"layers.0.input_layernorm": "unknown_norm"}),
        ({"ln_f.weight": v(5)}, {"ln_f": "unknown_norm"}),
        ({"act.weight": v(5)}, {}),
        ({"LayerNorm.gamma": v(5), "LayerNorm.beta": v(5)}, {"LayerNorm": "unknown_norm"}),
        ({"scale.weight": v(5), "scale.bias": v(3)}, {}),
        ({"fc.weight": v(5, 5), "fc.bias": v(5)}, {}),
        ({"bn.running_mean": v(1, 5, 1, 1), "bn.running_var": v(1, 5, 1, 1)}, {"bn": "batch_norm"}),
        ({"bn.moving_mean": v(5), "bn.moving_variance": v(5)}, {"bn": "batch_norm"}),
        ({"n.weight": v(5, dtype=torch.int32), "n.bias": v(5, dtype=torch.int32)}, {}),
        ({"n.weight": v(0), "n.bias": v(0)}, {}),
        ({"n.weight": torch.tensor(1.0), "n.bias": torch.tensor(1.0)}, {}),
        ({"running_mean": v(2), "running_var": v(2)}, {"": "batch_norm"}),
    ],
)
def test_what_names_and_shapes_claim(state, expected):
    """Fails if something is claimed that a PReLU, a linear layer or a quantized one would also show."""
    assert kinds(state) == expected


@pytest.mark.parametrize(
    "state",
    [
        {"bn.running_mean": v(5)},
        {"bn.running_mean": v(5), "bn.running_var": v(4)},
        {"bn.running_mean": v(5), "bn.running_var": v(5), "bn.weight": v(3)},
        {
            "bn.running_mean": v(5, dtype=torch.int64),
            "bn.running_var": v(5),
            "bn.weight": v(5),
            "bn.bias": v(5),
        },
    ],
)
def test_statistics_that_do_not_fit_together_are_named_and_not_used(state):
    """Fails if half a batch norm is silently dropped, or passes for a layer norm."""
    found = grouped(as_read(state))
    assert not found.norms
    assert len(found.odd) == 1
    assert found.odd[0].startswith("bn (entries: ")


def test_half_precision_and_quantized_vectors_are_numbers():
    """Fails if only float32 is understood."""
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert kinds({"bn.running_mean": v(3, dtype=dtype), "bn.running_var": v(3, dtype=dtype)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are on their way out of torch, and in many files
        quantized = torch.quantize_per_tensor(v(3), 0.1, 0, torch.qint8)
    assert kinds({"n.weight": quantized, "n.bias": v(3)}) == {"n": "unknown_norm"}


def test_sorted_names_come_in_natural_order_and_others_as_in_the_file():
    """Fails if layer10 stands before layer2 in a file without order, or a file with one is reordered."""
    paths = ["layer2", "layer10", "layer1"]
    state = {f"{p}.{leaf}": v(3) for p in paths for leaf in ("running_mean", "running_var")}
    assert [n.path for n in grouped(as_read(state)).norms] == paths
    assert [n.path for n in grouped(as_read(dict(sorted(state.items())))).norms] == [
        "layer1",
        "layer2",
        "layer10",
    ]
    assert sorted(["a.10", "a.9", "a", "b.1.c"], key=natural) == ["a", "a.9", "a.10", "b.1.c"]
