"""eps and kinds from the config.json of a Hugging Face folder, and the words where eps is assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bnprobe
from bnprobe.report.result import Report


class Bert(nn.Module):
    def __init__(self, affine: bool = True) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 6)
        self.LayerNorm = nn.LayerNorm(6) if affine else nn.RMSNorm(6)
        nn.init.normal_(self.LayerNorm.weight)


def checked(
    folder: Path, model: nn.Module, config: Any, file: str = "model.safetensors", whole: bool = True
) -> Report:
    save_file(model.state_dict(), folder / file)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return bnprobe.check(folder if whole else folder / file)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("config", "affine", "kind", "eps"),
    [
        ({"layer_norm_eps": 1e-12}, True, "layer_norm", 1e-12),
        ({"layer_norm_epsilon": 1e-6}, True, "layer_norm", 1e-6),
        ({"layernorm_epsilon": 1e-6}, True, "layer_norm", 1e-6),
        ({"rms_norm_eps": 1e-6}, False, "rms_norm", 1e-6),
        ({"model_type": "t5", "layer_norm_epsilon": 1e-6}, False, "rms_norm", 1e-6),
        ({"norm_epsilon": 1e-7}, True, "unknown_norm", 1e-7),
        ({"text_config": {"rms_norm_eps": 1e-6}}, False, "rms_norm", 1e-6),
        ({"layer_norm_eps": 1e-5, "feat_extract_norm": "group"}, True, "unknown_norm", 1e-5),
    ],
)
def test_eps_and_kind_come_from_the_config(config, affine, kind, eps, whole, tmp_path):
    """Fails if a name that models use is not known, or an eps that is known is called assumed."""
    report = checked(tmp_path, Bert(affine), config, whole=whole)
    (row,) = report.layers.itertuples()
    assert (row.kind, row.eps, row.eps_assumed) == (kind, eps, 0)
    assert f"eps is from config.json: {eps:g}." in report.recording.about.notes
    assert f"eps is from config.json: {eps:g}." in report.summary()  # what the command line prints


@pytest.mark.parametrize(
    ("config", "file"),
    [
        ({"hidden_size": 6}, "model.safetensors"),
        ({"layer_norm_eps": "small"}, "model.safetensors"),
        (
            {"model_type": "convnext", "layer_norm_eps": 1e-12},
            "model.safetensors",
        ),  # its norms have 1e-6 in their code
        ({"layer_norm_eps": True}, "model.safetensors"),
        ("not json", "model.safetensors"),
        ("[1]", "model.safetensors"),
        (
            {"text_config": {"layer_norm_eps": 1e-5}, "vision_config": {"layer_norm_eps": 1e-6}},
            "model.safetensors",
        ),
        ({"layer_norm_eps": 1e-12}, "mine.safetensors"),  # a config of something else, perhaps
    ],
)
def test_without_a_word_eps_is_assumed_and_marked(config, file, tmp_path):
    """Fails if a broken or foreign config is believed, or stops the check."""
    report = checked(tmp_path, Bert(), config, file, whole=False)
    assert list(report.layers["eps"]) == [1e-5]
    assert list(report.layers["eps_assumed"]) == [1]
    assert any("was assumed for all norms" in note for note in report.recording.about.notes)


def test_each_part_has_its_own(tmp_path):
    """Fails if the eps of one tower is given to the other."""
    model = nn.ModuleDict({"text_model": nn.ModuleDict({"text": Bert()}), "vision": Bert()})
    parts = {"text_config": {"layer_norm_eps": 1e-5}, "vision_config": {"layer_norm_eps": 1e-6}}
    layers = checked(tmp_path, model, parts).layers.set_index("layer")["eps"]
    assert dict(layers) == {"text_model.text.LayerNorm": 1e-5, "vision.LayerNorm": 1e-6}


def test_a_norm_without_beta_is_rather_an_rms_norm(tmp_path):
    """Fails if the RMS norms of a language model get the eps of the layer norms beside, in a model of text and images."""
    model = nn.ModuleDict({"language_model": Bert(affine=False), "tower": Bert()})
    parts = {"text_config": {"rms_norm_eps": 1e-6}, "vision_config": {"layer_norm_eps": 1e-3}}
    layers = checked(tmp_path, model, parts).layers.set_index("layer")["eps"]
    assert dict(layers) == {"language_model.LayerNorm": 1e-6, "tower.LayerNorm": 1e-3}


def test_batch_norms_take_their_own_eps(tmp_path):
    """Fails if the eps of layer norms is given to batch norms, but for the model type that calls it so."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    net[1].running_var *= 2
    for config, eps, assumed in (
        ({"batch_norm_eps": 1e-3, "layer_norm_eps": 1e-12}, 1e-3, 0),
        ({"layer_norm_eps": 1e-12}, 1e-5, 1),
        ({"model_type": "mobilenet_v2", "layer_norm_eps": 1e-3}, 1e-3, 0),
    ):
        (row,) = checked(tmp_path, net, config).layers.itertuples()
        assert (row.eps, row.eps_assumed) == (eps, assumed)


def test_sentences_mark_an_assumed_eps(tmp_path):
    """Fails if a number that nobody knows stands in a finding as a fact."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    net[1].running_var.fill_(1e-7)
    for config, marked in (({}, True), ({"batch_norm_eps": 1e-3}, False)):
        found = checked(tmp_path, net, config).findings
        (row,) = found[found["rule"] == "variance-below-eps"].itertuples()
        assert ("if eps is 1e-05 as assumed." in row.says) is marked
        assert ("an assumed eps = 1e-05" in row.because) is marked
    assert torch.equal(net[1].weight, torch.ones(4))
