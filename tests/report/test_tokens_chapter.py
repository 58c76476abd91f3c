"""The chapter about tokens: what it says of a small transformer, against the same numbers from its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from support.token_models import Gpt, tokens

import bnprobe
from bnprobe.report.chapters import tokens as chapter
from bnprobe.report.chapters.chapter import Absent, Material, measured_on, unit_of
from bnprobe.report.chapters.spine import spine


@pytest.fixture(scope="module")
def material() -> Material:
    """A transformer whose stream grows, and whose first norm passes 11 of 16 dimensions on that matter."""
    model = Gpt().eval()
    with torch.no_grad():
        model.ln_f.weight.fill_(3.0)
        model.blocks[0].ln1.weight[:5] = 1e-6
        for block in model.blocks:
            block.mlp[2].weight.mul_(20)
        recording = bnprobe.record(model, [tokens(6)])
    return Material(recording, bnprobe.report(recording)._tables)


def test_growth_is_that_of_typical_tokens_on_the_stream(material):
    """Fails if norms of other inputs are counted, or the step is named by the norm before it."""
    layers = material.tables.layers
    sizes = layers["token_scale"].to_numpy()
    (said,) = chapter._growth(layers)
    assert f"{sizes[-1] / sizes[0]:.2g}-fold" in said
    step = int(np.argmax(sizes[1:] / sizes[:-1]))
    assert f"before {['0.attn', '0.mlp', '1.attn', '1.mlp', '2.attn', '2.mlp', 'final'][step + 1]}" in said


def test_dimensions_that_are_hardly_read_are_counted(material):
    """Fails if all small gains are told of, or those of another norm."""
    (said,) = chapter._ignored(material.tables)
    assert said.startswith("What reads 0.attn ignores 5 of its 16 dimensions")


def test_gains_stand_by_role(material):
    """Fails if gains of two roles are pooled, or a role with one norm has no row."""
    section = chapter.chapter(material)
    table = section.blocks[-1]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert list(rows) == ["attention", "MLP", "final"]
    assert rows["final"][:4] == ["1", "3", "3", "3"]
    assert rows["MLP"][:2] == ["3", "1"]
    assert rows["MLP"][-1] == "100%"
    gains = next(block for block in section.blocks if getattr(block, "name", "") == "gains")
    assert [panel.title for panel in gains.spec.panels] == ["|γ|, attention", "|γ|, MLP"]
    assert gains.spec.names[:3] == ("0.attn", "0.mlp", "1.attn")


def test_samples_of_a_token_model_are_sequences(material):
    """Fails if the page speaks of samples, or tokens are not counted."""
    assert unit_of(material.recording) == "sequence"
    assert measured_on(material.recording) == "6 sequences (144 tokens)"
    titles = [lane.title for lane in spine(material.tables)[0].spec.lanes]
    assert titles[0] == "scale that each token is divided by"


def test_patches_of_images_are_no_sequences():
    """Fails if a vision transformer, whose inputs are images, is said to have seen sequences."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Flatten(2), Transposed(), torch.nn.LayerNorm(8)
    )
    seen = bnprobe.record(model.eval(), [torch.randn(5, 3, 16, 16)])
    assert unit_of(seen) == "sample"
    constants = ((0.5,) * 3, (0.2,) * 3)
    assert unit_of(bnprobe.record(model, [torch.randn(5, 3, 16, 16)], normalize=constants)) == "image"


class Transposed(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


def test_other_networks_have_no_such_chapter():
    """Fails if a network without attention has one."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)).eval()
    recording = bnprobe.record(model, [torch.randn(3, 4)])
    found = chapter.chapter(Material(recording, bnprobe.report(recording)._tables))
    assert isinstance(found, Absent)


def test_the_loudest_token_is_named():
    """Fails if the sink is told of with another norm, position or dimension."""
    model = Gpt().eval()
    with torch.no_grad():
        model.positions.weight[0, 7] = 400.0
        recording = bnprobe.record(model, [tokens(6)])
    layers = bnprobe.report(recording)._tables.layers
    (said,) = chapter.sink(layers)
    assert said.startswith("From 0.attn to final, token 0 of a sequence is up to ")
    assert said.endswith("in dimension 7.")


def test_a_sink_at_one_norm_has_its_name_by_role():
    """Fails if the name is that of a table which holds this norm alone, and so no attention."""
    layers = pd.DataFrame(
        {
            "layer": ["l.0.a", "l.0.b", "l.1.a"],
            "norm_role": ["attention output", "MLP output", "attention output"],
            "loudest_token": [2.0, 15.0, 2.0],
            "position_share": [0.1, 0.9, 0.1],
            "loudest_position": 0.0,
            "loudest_channel": 99.0,
            "loudest_channel_share": 0.5,
        },
        index=[4, 5, 6],
    )
    assert chapter.sink(layers) == [
        "At 0.mlp out, token 0 of a sequence is up to 15 times as loud as the median token, with 50% of its energy in "
        "dimension 99."
    ]
