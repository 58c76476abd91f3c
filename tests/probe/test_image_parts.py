"""Images beside text: what holds for tokens is not said of patches, even where there are as many."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.norms import ModuleTree
from bnprobe.probe.image_parts import image_parts

N, T, C = 3, 5, 8


class Vision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(C)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Tensor:
        return self.norm(pixel_values)


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(20, C), nn.LayerNorm(C)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.norm(self.embedding(input_ids))


class Both(nn.Module):
    """As many patches as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.vision, self.text = Vision(), Text()

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
    ) -> Tensor:
        return self.text(input_ids, attention_mask) + self.vision(pixel_values, pixel_mask)


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


def given() -> dict[str, Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (N, T))
    return {"input_ids": ids, "pixel_values": torch.randn(N, T, C), "attention_mask": MASK}


@pytest.mark.parametrize("mask", [None, "attention_mask"])
def test_a_mask_of_tokens_leaves_out_no_patches(mask):
    """Fails if patches are left out, or have the ids of words, because there are as many of them."""
    model = Both()
    with bnprobe.attach(model, mask=mask) as probe:
        model(**given())
    vision, text = sorted(probe.recording.layers, key=lambda one: one.layer != "vision.norm")
    assert (vision.n_masked, text.n_masked) == (0, 6)
    assert (vision.tokens.n_tokens, text.tokens.n_tokens) == (N * T, 9)
    assert set(vision.tokens.loudest[:, 3]) == {-1}
    assert set(text.tokens.loudest[:, 3]) <= set(map(float, given()["input_ids"].flatten().tolist()))
    assert not any("positions of the mask" in note for note in probe.recording.about.notes)


def test_a_mask_of_images_that_was_asked_for_is_used():
    """Fails if a mask of pixels is taken for one of tokens."""
    model = Both()
    with bnprobe.attach(model, mask="pixel_mask") as probe:
        model(**given(), pixel_mask=MASK)
    assert {one.layer: one.n_masked for one in probe.recording.layers}["vision.norm"] == 6


def test_which_parts_are_of_images():
    """Fails if a model of images alone, or one that takes both, is a part of images."""
    assert image_parts(ModuleTree.of(Both())) == ("vision.",)
    assert image_parts(ModuleTree.of(nn.Sequential(Both()))) == ("0.vision.",)
    assert image_parts(ModuleTree.of(nn.Sequential(Vision()))) == ()


class Odd(nn.Module):
    """Its forward is none that can be looked at."""

    @property
    def forward(self) -> object:
        raise AttributeError("no forward yet")


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "odd", [Odd, lambda: torch.jit.trace(nn.ReLU(), torch.zeros(1))], ids=["property", "traced"]
)
def test_a_part_without_a_plain_forward_is_no_part_for_images(odd: Callable[[], nn.Module]) -> None:
    """Fails if a class that hides its forward keeps the model from being recorded."""
    model = Both()
    model.add_module("odd", odd())
    assert image_parts(ModuleTree.of(model)) == ("vision.",)
