"""Files of sharded training whose tensors were not gathered: named for what they are, and nothing is said of stubs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.checkpoints import as_read
from torch import Tensor, nn

import bnprobe
from bnprobe.checkpoints.stubs import stubs
from bnprobe.errors import BadCheckpoint, CannotProbe

GATHERED = "shards.* not gathered.*GatheredParameters.*get_model_state_dict"


def transformer() -> dict[str, Tensor]:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).state_dict()


def cut(state: dict[str, Tensor], n: int, but: str = "nothing") -> dict[str, Tensor]:
    """Only the first n numbers of every tensor, but of those whose name holds a word."""
    return {k: v if but in k else v.flatten()[:n].clone() for k, v in state.items()}


@pytest.mark.parametrize("n", [0, 1])
def test_a_file_of_stubs_is_refused_for_what_it_is(n, tmp_path):
    """Fails if norms of one number are judged, or the file is called one without norms."""
    torch.save(cut(transformer(), n), tmp_path / "z3.pt")
    with pytest.raises(BadCheckpoint, match=rf"24 of 24 tensors are empty.*{GATHERED}"):
        bnprobe.check(tmp_path / "z3.pt")


@pytest.mark.parametrize("n", [0, 1])
def test_whole_norms_among_empty_matrices_are_read_and_the_file_is_critical(n):
    """Fails if a file whose matrices are gone passes because its norms are whole."""
    report = bnprobe.check(cut(transformer(), n, but="norm"))
    assert len(report.layers) == 4
    (row,) = report.findings[report.findings["rule"] == "tensors-empty"].itertuples()
    assert (row.severity, row.layer) == ("critical", "layers.0.self_attn.in_proj_weight")
    assert row.because.startswith("16 of 24")
    assert "GatheredParameters" in row.do


def test_a_batch_norm_without_its_scale_is_no_norm_without_affine():
    """Fails if the statistics, which are buffers and stay whole, are judged beside an empty γ."""
    state = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).state_dict()
    state["1.weight"] = torch.empty(0)
    with pytest.raises(BadCheckpoint, match=r"1 of 6 tensors are empty, the first is 1\.weight"):
        bnprobe.check(state)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 1), nn.LayerNorm(1), nn.Linear(1, 8)),
        nn.Sequential(nn.Linear(4, 6), nn.PReLU(), nn.LayerNorm(6), nn.Linear(6, 1)),
        nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Linear(1, 1)),
    ],
)
def test_small_networks_are_not_called_empty(model):
    """Fails if one number is taken for none: a layer of one output, a PReLU, a norm of one feature."""
    report = bnprobe.check(model.state_dict())
    assert "tensors-empty" not in set(report.findings["rule"])


def test_attaching_to_an_empty_norm_is_refused():
    """Fails if the probe is attached to a norm that the first pass will fail in."""
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    model[1].weight.data = torch.empty(0)
    with pytest.raises(CannotProbe, match=rf"1\.weight is empty.*{GATHERED}"):
        bnprobe.attach(model)


def test_a_model_that_gathers_for_each_pass_is_attached_to():
    """Fails if DeepSpeed's own live model, whose parameters are empty between passes, is refused."""
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    whole = model[1].weight.data
    model[1].weight.ds_id = 1
    model[1].weight.data = torch.empty(0)
    with bnprobe.attach(model) as probe:
        model[1].weight.data = whole
        model(torch.randn(6, 4))
    assert len(bnprobe.report(probe).layers) == 1


def test_an_architecture_names_empty_tensors(tmp_path: Path):
    """Fails if loading stubs into a model is called another architecture only."""
    import torchvision

    state = torchvision.models.resnet18().state_dict()
    state["fc.weight"] = torch.empty(0)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(
        BadCheckpoint, match=r"fc\.weight: empty in the file, as shards are that were not gathered"
    ):
        bnprobe.check(tmp_path / "a.pt", arch="torchvision:resnet18")


def test_norms_of_one_channel_are_no_stubs():
    """Fails if running statistics of one number, which are shared out nowhere, are taken for shards."""
    one = {f"{path}.{leaf}": torch.ones(1) for path in "abc" for leaf in ("running_mean", "running_var")}
    assert not stubs(as_read(one)).names
