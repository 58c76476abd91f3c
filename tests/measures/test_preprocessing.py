"""Mistakes of preprocessing, planted into a first norm: the one that was made is found, and no other where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.measures import tables
from bnprobe.measures.preprocessing import _is_certain, mistakes, preprocessing
from measures.first_norms import COLOUR, CONSTANTS, MEAN, N_CHANNELS, PIXELS, RNG, STD, inputs_of, stem_norm

MADE = {
    "neither scaled nor normalized": lambda p: 255 * p,
    "without subtracting the mean": lambda p: p,
    "without scaling them to 0 to 1": lambda p: inputs_of(255 * p),
    "normalized twice": lambda p: inputs_of(inputs_of(p)),
    "1/255 twice": lambda p: inputs_of(p / 255),
    "scaled to -1 to 1": lambda p: (p - 0.5) / 0.5,
    "but not divided by the std": lambda p: p - MEAN[:, None],
    "-1 to 1 before": lambda p: inputs_of(2 * p - 1),
    "by the std twice": lambda p: inputs_of(p) / STD[:, None],
    "brightness is inverted": lambda p: inputs_of(1 - p),
    "red and blue": lambda p: inputs_of(p[:, ::-1]),
}


@pytest.mark.parametrize("mistake", MADE)
def test_every_mistake_is_named_first(mistake):
    """Fails if a map of a mistake is wrong, or another one explains the same better."""
    found = preprocessing(stem_norm(MADE[mistake](PIXELS)))
    assert mistake in found["mistake"].iloc[0]
    assert found["left_over"].iloc[0] < 1e-6 * max(1, found["scale_predicted"].iloc[0])


@pytest.mark.parametrize("mistake", MADE)
def test_the_line_that_undoes_it_does(mistake):
    """Fails if the code that users are told to run gives other inputs than those of training."""
    import torch

    code = preprocessing(stem_norm(MADE[mistake](PIXELS)))["undo"].iloc[0]
    wrong = torch.tensor(MADE[mistake](PIXELS)[:, :, None].copy())
    names = {"torch": torch, "x": wrong}
    exec(code, names)
    np.testing.assert_allclose(names["x"][:, :, 0].numpy(), inputs_of(PIXELS), atol=1e-3)


def test_all_mistakes_are_tried_here():
    """Fails if a mistake lands without a case that makes it."""
    assert len(list(mistakes(CONSTANTS))) == len(MADE)


def test_inputs_as_in_training_need_no_explanation():
    """Fails if chance among many mistakes is enough."""
    other = np.clip(COLOUR[:, None] + 0.2 * RNG.normal(size=(60, 3, 50)), 0, 1)
    assert preprocessing(stem_norm(inputs_of(other))).empty


def test_a_fresh_norm_shows_no_input():
    """Fails if running statistics of 0 and 1 are taken for a mean input of 0."""
    fresh = {"running_mean": np.zeros(N_CHANNELS), "running_var": np.ones(N_CHANNELS)}
    assert preprocessing(stem_norm(255 * PIXELS, **fresh)).empty


def test_constants_in_use_are_tried_where_none_are_given():
    """Fails if a user who does not give the constants is never told."""
    whole = stem_norm(255 * PIXELS)
    found = preprocessing(replace(whole, about=replace(whole.about, normalize=None)))
    assert "neither scaled nor normalized" in found["mistake"].iloc[0]
    assert set(found["constants"]) == {"guessed"}


@pytest.mark.parametrize(("contrast", "fires"), [(0.33, 0), (1.0, 1)])
def test_a_mistake_that_keeps_the_mean_must_predict_the_scale(contrast, fires):
    """Fails if any scale somewhere near the one that it predicts is taken for a mistake, and no mean speaks for it."""
    found = preprocessing(stem_norm((PIXELS - MEAN[:, None]) * (1 + contrast) / 2))
    assert found["mistake"].str.startswith("the mean was subtracted").any() == fires


def test_two_causes_that_do_equally_well_are_not_named():
    """Fails if the better of two that hardly differ is called the cause."""
    whole = tables(stem_norm(inputs_of(1 - PIXELS)))
    rivals = whole.preprocessing.iloc[[0, 0]].assign(mistake=["one", "another"], left_over=[0.01, 0.02])
    assert [_is_certain(row, rivals.to_dict("records")) for row in rivals.to_dict("records")] == [
        False,
        False,
    ]
    far = rivals.assign(scale_predicted=rivals["scale_predicted"] * [1, 1.2]).to_dict("records")
    assert _is_certain(far[0], far)


# What enters the first norm, whatever it is: images of any number of channels, sequences, volumes, measurements

INPUTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "measurements": (lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)), (8,)),
    "three measurements": (lambda: nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16)), (3,)),
    "a sequence": (lambda: nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16)), (3, 20)),
    "a sequence of four": (lambda: nn.Sequential(nn.Conv1d(4, 16, 3), nn.BatchNorm1d(16)), (4, 20)),
    "a volume": (lambda: nn.Sequential(nn.Conv3d(3, 16, 3), nn.BatchNorm3d(16)), (3, 5, 8, 8)),
    **{
        f"images of {c} channels": (
            lambda c=c: nn.Sequential(nn.Conv2d(c, 16, 3), nn.BatchNorm2d(16)),  # type: ignore[misc]
            (c, 8, 8),
        )
        for c in (1, 2, 3, 4, 5, 12)
    },
}


@pytest.mark.parametrize("moved", [False, True], ids=["as in training", "moved"])
@pytest.mark.parametrize("what", INPUTS)
def test_any_input_has_a_report(what, moved, tmp_path):
    """Fails if the constants of photographs meet channels that they do not have, or explain what is no photograph."""
    make, shape = INPUTS[what]

    def some() -> Tensor:
        return torch.randn(64, *shape)

    model = make().train()
    for _ in range(60):
        model(some())
    batches = [(3 * some() + 2 if moved else some(), None) for _ in range(2)]
    recording = bnprobe.record(model.eval(), batches)
    report = bnprobe.report(recording)
    assert ("data-shifted" in set(report.findings["rule"])) == moved
    assert report.to_html(tmp_path / "page.html").stat().st_size
    if what not in ("images of 1 channels", "images of 3 channels"):
        assert not set(preprocessing(recording)["mistake"]) - {""}
