"""Tensors that hold no numbers one can read: told apart on every release, and refused in one line where they matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

import bnprobe
from bnprobe import models
from bnprobe.errors import BadCheckpoint
from bnprobe.weights.with_torch.kinds import foreign, is_number

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(nested|Sparse|quantize|prototype|MaskedTensor|ComplexHalf)"
)
"""What torch says of its own features while they are made."""

FOREIGN: dict[str, Callable[[Tensor], Tensor]] = {
    "nested tensor": lambda t: torch.nested.nested_tensor([t, t[:1]]),
    "NestedTensor": lambda t: torch.nested.nested_tensor([t[:1, None], t[:, None]], layout=torch.jagged),
    "sparse tensor": lambda t: t.to_sparse(),
    "sparse": lambda t: torch.diag(t).to_sparse_csr(),
    "MKL-DNN tensor": lambda t: t.to_mkldnn(),
    "meta device": lambda t: t.to("meta"),
    "FakeTensor": lambda t: FakeTensorMode().from_tensor(t),
    "MaskedTensor": lambda t: torch.masked.masked_tensor(t, t > 0),
    "TwoTensor": lambda t: TwoTensor(t, t),
    "without a shape": lambda t: nn.UninitializedParameter(),
}
NO_REALS = {
    "complex64": lambda t: t * 1j,
    "complex32": lambda t: t.to(torch.complex32),
    "bool": lambda t: t > 0,
    "int64": lambda t: t.long(),
    "uint16": lambda t: t.to(torch.uint16),
    "bits8": lambda t: t.to(torch.uint8).view(torch.bits8),
    "uint4": lambda t: torch.empty(4, dtype=torch.uint4),
}
if hasattr(torch, "float4_e2m1fn_x2"):  # since 2.8
    NO_REALS["float4_e2m1fn_x2"] = lambda t: t.to(torch.uint8).view(torch.float4_e2m1fn_x2)
READABLE = {
    "float16": Tensor.half,
    "bfloat16": Tensor.bfloat16,
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "double": Tensor.double,
    "a parameter": nn.Parameter,
    "a column": lambda t: t[:, None].expand(4, 3)[:, :1],
    "a subclass": lambda t: t.as_subclass(type("Named", (Tensor,), {})),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.5, 0, torch.qint8),
    "quantized per channel": lambda t: torch.quantize_per_channel(
        t, torch.full((4,), 0.5), torch.zeros(4), 0, torch.qint8
    ),
}
VALUES = torch.tensor([1.0, 2.0, 4.0, 8.0])


def state(**changed: Tensor) -> dict[str, Tensor]:
    """A convolution, a batch norm and a layer norm; `changed` by the last part of their names."""
    whole = {
        "conv.weight": torch.ones(4, 3, 1, 1),
        "conv.bias": torch.zeros(4),
        "bn.weight": VALUES,
        "bn.bias": torch.zeros(4),
        "bn.running_mean": torch.zeros(4),
        "bn.running_var": torch.ones(4),
        "bn.num_batches_tracked": torch.tensor(3),
    }
    return whole | {name.replace("__", "."): tensor for name, tensor in changed.items()}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_tensors_are_told_by_name(kind):
    """Fails if a kind of tensor that some release of torch cannot be asked anything of is taken for a plain one."""
    tensor = FOREIGN[kind](VALUES)
    assert kind in foreign(tensor)
    assert not is_number(tensor)


@pytest.mark.parametrize("kind", NO_REALS)
def test_other_types_are_plain_but_no_numbers(kind):
    """Fails if a type that stores bits, or no real numbers, is read as if it did."""
    tensor = NO_REALS[kind](VALUES)
    assert foreign(tensor) == ""
    assert not is_number(tensor)


@pytest.mark.parametrize("kind", READABLE)
def test_plain_tensors_are_read(kind):
    """Fails if numbers are refused because of their type, class or strides."""
    report = bnprobe.check(state(bn__weight=READABLE[kind](VALUES)))
    np.testing.assert_array_equal(report.channels["gamma"], VALUES)


@pytest.mark.parametrize("field", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("kind", FOREIGN | NO_REALS)
def test_a_norm_of_such_tensors_is_refused(kind, field):
    """Fails if one such tensor ends in a traceback, or if the norm is judged without it."""
    tensor = (FOREIGN | NO_REALS)[kind](VALUES)
    with pytest.raises(
        BadCheckpoint, match=rf"bn\.{field} is .*{kind}.* Save the state dict with dense tensors"
    ):
        bnprobe.check(state(**{f"bn__{field}": tensor}))


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_layer_norm_of_such_tensors_is_refused(kind):
    """Fails if only batch norms are looked at."""
    tensors = {"norm.weight": FOREIGN[kind](VALUES), "norm.bias": torch.zeros(4)}
    with pytest.raises(BadCheckpoint, match=rf"norm\.weight is .*{kind}.* Save the state dict"):
        bnprobe.check(tensors)


@pytest.mark.parametrize("name", ["conv__weight", "conv__bias", "bn__num_batches_tracked", "table__weight"])
@pytest.mark.parametrize("kind", FOREIGN | NO_REALS)
def test_such_tensors_elsewhere_change_nothing_of_the_norm(kind, name):
    """Fails if a sparse embedding, or a compressed weight, hinders the norms from being read."""
    report = bnprobe.check(state(**{name: (FOREIGN | NO_REALS)[kind](VALUES)}))
    np.testing.assert_array_equal(report.channels["gamma"], VALUES)


@pytest.mark.parametrize("kind", FOREIGN | NO_REALS)
def test_the_other_norms_are_read(kind):
    """Fails if one norm that cannot be read hides the rest, or goes unmentioned."""
    tensor = (FOREIGN | NO_REALS)[kind](VALUES)
    report = bnprobe.check(state(bn2__running_mean=tensor, bn2__running_var=torch.ones(4)))
    assert list(report.layers["layer"]) == ["bn"]
    (said,) = report.recording.not_understood
    assert said.startswith("bn2 (entries: running_var 4; running_mean is ")
    assert kind in said


@pytest.mark.parametrize("kind", ["nested tensor", "NestedTensor", "sparse tensor", "meta device"])
def test_a_model_is_not_given_such_tensors(kind, tmp_path):
    """Fails if loading a checkpoint into a model ends in a traceback, or leaves random numbers in its place."""
    name = "torchvision:squeezenet1_1"
    own = models.subject("squeezenet1_1").model.state_dict()
    key = next(iter(own))
    torch.save(own | {key: FOREIGN[kind](VALUES)}, tmp_path / "a.pt")
    with pytest.raises(BadCheckpoint, match=rf"{key} is .*{kind}.* Name the model that was saved"):
        models.subject(name.partition(":")[2], checkpoint=tmp_path / "a.pt")
