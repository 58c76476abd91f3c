"""Where two sides part: the planted place, in the order of the data."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from measures.sites import memory_of, recording, site, some_rows
from torch import nn

import bnprobe
from bnprobe.comparison import difference_sites, differences, first_beyond_noise, first_difference, pairs
from bnprobe.recording import Recording


def network(seed: int = 0) -> nn.Module:
    """Five convolutions with norms, whose memory is that of its data."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for i in range(5):
        parts += [nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=None), nn.ReLU()]
    model = nn.Sequential(*parts)
    with torch.no_grad():
        for x in batches():
            model(x)
    return model.eval()


def batches(n: int = 4, seed: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 3, 8, 8, generator=generator) for _ in range(n)]


def recorded(model: nn.Module, data: list[torch.Tensor] | None = None) -> Recording:
    return bnprobe.record(model, batches() if data is None else data)


@pytest.mark.parametrize("planted", [1, 4, 7, 13])
def test_between_modes_it_opens_at_the_norm_whose_memory_is_wrong(planted):
    """Fails if a later layer, which only follows, is named, or the input for the output."""
    model = network()
    model[planted].running_mean += 2 * model[planted].running_var.sqrt()
    found = bnprobe.compare(recorded(model.eval()), recorded(model.train()))
    assert found.opens is not None
    assert (found.opens.layer, found.opens.aspect) == (str(planted), "post")
    assert found.opens.words in found.answer[0]
    assert found.findings["rule"][0] == "modes-disagree"
    assert found.findings["layer"][0] == str(planted)


def test_between_modes_on_the_same_images_no_difference_is_called_the_same():
    """Fails if what other images could explain is said to be the same on both sides."""
    model = network()
    images = [torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(9))]
    found = bnprobe.compare(recorded(model.eval(), images), recorded(model.train(), images))
    first = next(place for place in difference_sites(found.layers) if place.gap > 1e-5)
    assert first_beyond_noise(found.layers) != first, "else this proves nothing"
    assert f"A and B are the same before {first.words}; there they differ by 0." in found.answer[0]


def test_what_the_choice_of_images_explains_is_said_to():
    """Fails if "the same" takes in the first place that differs, within what other images would explain."""
    rows = some_rows(40)
    sd = rows.std((0, 2))[:, None]
    one = [site(rows, "a", **memory_of(rows)), site(rows, "b"), site(rows, "c")]
    # as many images more that the sides did not see the same
    two = [replace(one[0], n_images=41), site(rows + 0.01 * sd, "b"), site(rows + 3 * sd, "c")]
    said = bnprobe.compare(recording(*one), recording(*two)).answer[0]
    assert said.startswith(
        "A and B are the same up to and including the output of a. At the input of b they differ by 0.010"
    )
    assert (
        "which the choice of samples explains. Beyond that, they differ from the input of c on, by 3.0"
        in said
    )


@pytest.mark.parametrize("planted", [0, 6, 12])
def test_between_weights_it_opens_behind_the_convolution_that_changed(planted):
    """Fails if the layers before, whose numbers are the same to the last bit, are called different."""
    before = network()
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[planted].weight *= 3
    found = bnprobe.compare(recorded(before), recorded(after))
    assert found.opens is not None
    assert (found.opens.layer, found.opens.aspect) == (str(planted + 1), "pre")
    assert found.layers["identical"].sum() == planted // 3
    if planted:
        assert (
            f"A and B are the same before the input of layer {planted + 1}; there they differ by"
            in found.answer[0]
        )


def test_between_data_it_opens_at_the_first_norm():
    """Fails if another place than the entrance is named where the data differ."""
    model = network()
    found = bnprobe.compare(recorded(model), recorded(model, [x * 2 + 1 for x in batches()]))
    assert found.opens is not None
    assert (found.opens.layer, found.opens.aspect) == ("1", "pre")
    assert "inputs-differ" in set(found.findings["rule"])
    assert "The inputs of layer 1 already differ" in found.findings["do"][0]


def test_between_checkpoints_it_opens_where_something_stored_differs():
    """Fails if files of weights, through which no data went, have no first difference."""
    before = network()
    after = copy.deepcopy(before)
    nn.init.constant_(after[7].weight, 3.0)
    found = bnprobe.compare(before.state_dict(), after.state_dict())
    assert found.opens is not None
    assert (found.opens.layer, found.opens.aspect) == ("7", "affine")
    assert "No data were run on A and B." in found.answer[1]


def test_the_same_data_again_do_not_part():
    """Fails if a comparison of two halves of the same data finds a place."""
    model = network()
    found = bnprobe.compare(recorded(model, batches(8, seed=1)), recorded(model, batches(8, seed=2)))
    assert found.opens is None
    assert (
        "Nowhere do A and B differ by" in found.answer[0]
        or "The choice of images explains" in found.answer[0]
    )
    assert found.findings.empty


def test_a_gap_within_its_noise_is_no_opening():
    """Fails if a large gap of four images counts: their choice alone makes as much."""
    a, b = some_rows(n=4, seed=1), some_rows(n=4, seed=2)
    memory = memory_of(a)
    layers = differences(pairs(recording(site(a, "bn", **memory)), recording(site(b, "bn", **memory)))).layers
    assert layers["pre_gap"][0] > 0.3
    assert first_difference(layers, 0.3) is None
    assert first_beyond_noise(layers) is None
    assert first_difference(layers.assign(pre_noise=0.01), 0.3) is not None


def test_places_come_in_the_order_of_the_data():
    """Fails if an output is named before its input, or the order is that of the names."""
    rows = some_rows()
    both = recording(site(rows, "z"), site(rows, "a"))
    found = [(place.layer, place.aspect) for place in difference_sites(differences(pairs(both, both)).layers)]
    assert found == [("z", "pre"), ("z", "post"), ("a", "pre"), ("a", "post")]


def test_weights_before_a_norm_that_changed_alone_are_said():
    """Fails if a file in which only a convolution changed is called the same."""
    before = network()
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[6].weight *= 1.5
    found = bnprobe.compare(before.state_dict(), after.state_dict())
    assert (
        found.answer[0]
        == "The norms are the same, but the weights feeding 1 norm differ, first those feeding layer 7."
    )
    assert not found.identical
