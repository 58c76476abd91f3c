"""What may stand on a side, what is said of it, and the page, text and JSON that come of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from measures.sites import memory_of, recording, site, some_rows
from report import pages
from torch import nn

import bnprobe
from bnprobe.errors import BadCheckpoint, BadRecordingFile, BnprobeError, CannotCompare, NothingRecorded
from bnprobe.recording import Recording

ROWS = some_rows(n=40)
MEMORY = memory_of(ROWS)


def side(scale: float = 1.0, n: int = 40, **changes: object) -> Recording:
    rows = ROWS[:n] * scale
    return recording(
        site(rows, "a", **MEMORY, gamma=[0.7, 0.5, 0.4], beta=0.1, **changes),
        site(rows, "b", kind="layer_norm", **changes),
        model=f"net of {scale:g}",
    )


def checkpoint(path: Path, scale: float = 1.0) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model(torch.randn(4, 3, 8, 8))
    nn.init.constant_(model[1].weight, scale)
    torch.save(model.state_dict(), path)
    return path


def test_every_form_of_a_recording_is_the_same_side(tmp_path):
    """Fails if a path, a Report or a Probe is refused, or read as something else."""
    a, b = side(), side(2.0)
    forms = (b, bnprobe.report(b), b.save(tmp_path / "b.bnp"), str(b.save(tmp_path / "b.safetensors")))
    gaps = {float(bnprobe.compare(a, form).layers["pre_gap"].sum()) for form in forms}
    assert len(gaps) == 1
    model = nn.BatchNorm2d(3)
    with bnprobe.attach(model) as probe:
        model(torch.randn(4, 3, 5, 5))
    assert bnprobe.compare(probe, probe.recording).identical


def test_files_of_weights_are_compared_by_what_they_store(tmp_path):
    """Fails if a checkpoint is refused, or a number of data is made of none."""
    found = bnprobe.compare(checkpoint(tmp_path / "a.pt"), checkpoint(tmp_path / "b.pt", 2.0))
    assert list(found.layers["affine_gap"]) == pytest.approx([1 / 2.5**0.5])
    assert found.layers[["pre_gap", "post_gap", "pre_noise"]].isna().all(axis=None)
    assert found.opens is not None
    assert found.opens.words == "γ and β of layer 1"
    assert "statistics-outdated" in set(found.findings["rule"])


class Block(nn.Module):
    """A convolution and a norm, named as people name them, wide enough that the order of a sum is in its last bit."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 5)
        self.bn1 = nn.BatchNorm2d(16, eps=eps)
        self.conv2 = nn.Conv2d(16, 16, 5)
        self.bn2 = nn.BatchNorm2d(16, eps=eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x))))


def block(eps: float = 1e-5) -> Block:
    torch.manual_seed(0)
    model = Block(eps)
    for _ in range(3):
        model(torch.randn(8, 3, 12, 12) / 50)
    return model.eval()


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_a_recording_does_not_differ_from_its_own_weights(eps, tmp_path):
    """Fails if the last bit of a sum, or an eps that a file does not hold, is called a difference."""
    model = block(eps)
    run, state = bnprobe.record(model, [torch.randn(40, 3, 12, 12)]), model.state_dict()
    torch.save(state, tmp_path / "own.pt")
    for a, b in ((run, state), (state, run), (run, tmp_path / "own.pt")):
        found = bnprobe.compare(a, b)
        assert found.answer[0] == (
            "Nothing that both sides store differs: all 2 common norms agree to the last bit."
        )
        assert not found.layers["filters_differ"].any()
        assert (found.layers[["affine_gap", "running_gap"]] == 0).all(axis=None)
        assert (found.layers[["eps_a", "eps_b"]] == eps).all(axis=None), "a file has that of the other side"
        assert found.findings.empty


def test_other_weights_than_the_recordings_are_told_by_a_single_ulp():
    """Fails if what hides the order of a sum hides a change of the weights, too."""
    model = block()
    run = bnprobe.record(model, [torch.randn(40, 3, 12, 12)])
    with torch.no_grad():
        model.conv2.weight[0] *= 1 + 2**-22
    found = bnprobe.compare(run, model.state_dict())
    assert list(found.layers["filters_differ"]) == [False, True]
    assert "the weights feeding 1 norm differ, first those feeding bn2." in found.answer[0]


def test_weights_guessed_to_stand_before_a_norm_count_only_where_the_run_agrees():
    """Fails if lengths of two different layers are compared because a file's names misled."""
    model = block()
    model.conv1, model.conv2 = nn.Conv2d(16, 16, 5, padding=2), nn.Conv2d(3, 16, 5)
    model.forward = lambda x: model.bn2(model.conv1(model.bn1(model.conv2(x))))  # type: ignore[method-assign]
    found = bnprobe.compare(bnprobe.record(model, [torch.randn(40, 3, 12, 12)]), model.state_dict())
    assert not found.layers["filters_differ"].any()


@pytest.mark.parametrize(
    ("b", "error", "match"),
    [
        (5, BnprobeError, r"B is a int.*Record a model with bnprobe.record"),
        ("gone.bnp", BadRecordingFile, r"Recordings are written with recording.save"),
        ("gone.pt", BadCheckpoint, "Check the path"),
        (
            Recording(side().about, ()),
            NothingRecorded,
            "B: attached to 0 layers.*Run the object you attached to",
        ),
        (
            recording(site(ROWS, "other")),
            CannotCompare,
            r"A has a \(batch_norm, 3 channels\), b \(layer_norm, .*B has other \(batch_norm, .*\. Rename",
        ),
    ],
    ids=["number", "no file", "no checkpoint", "empty", "nothing common"],
)
def test_what_cannot_stand_on_a_side_is_refused_with_what_to_do(b, error, match):
    """Fails if a refusal does not say which side, or what to give instead."""
    with pytest.raises(error, match=match):
        bnprobe.compare(side(), b)


def test_identical_sides_say_so():
    """Fails if nothing at all is told as a small change."""
    found = bnprobe.compare(side(), side())
    assert found.identical
    assert (
        found.answer[0]
        == "Nothing changed: all 2 common norms hold the same numbers on both sides, to the last bit."
    )
    assert found.findings.empty
    assert "identical" in repr(found)


def test_different_numbers_of_images_and_no_histograms_are_said():
    """Fails if shapes are compared that were not recorded, or few images are believed like many."""
    found = bnprobe.compare(side(histograms=False), side(1.2, n=20))
    assert found.channels["pre_w1"].isna().all()
    words = " ".join(found.answer)
    assert "One side saw only 20 samples; error estimates are unreliable below 30." in words
    assert "Without histograms on both sides, only means and standard deviations are compared" in words
    assert "No error estimate exists for the outputs of 1 norm" in words
    assert list(found.layers["n_images_a"]) == [40, 40]
    assert list(found.layers["n_images_b"]) == [20, 20]


def test_the_page_is_sound_and_sorted_by_what_changed(tmp_path):
    """Fails if a picture cannot be drawn, a number is raw, or the first layer is not the most changed."""
    rows = some_rows(n=40, seed=3)
    b = recording(
        *side().layers[:1], site(rows * 3, "b", kind="layer_norm"), site(ROWS, "new"), model="other"
    )
    found = bnprobe.compare(side(), b)
    page = found.to_html(tmp_path / "page.html").read_text("utf-8")
    document = pages.parsed(page)
    pages.assert_loads_nothing(document)
    there = pages.sections(document)
    assert {"compared", "answer", "findings", "network", "layers", "unmatched", "glossary"} <= set(there)
    text = pages.text_of(document)
    assert "could not be drawn" not in text
    assert not pages.RAW.search(text)
    assert "net of 1" in text
    assert "other" in text
    assert text.index("What changed in the norms of net of 1 and other") >= 0
    assert list(there).index("layer-1") == list(there).index("layers") + 1
    assert "layer-0" not in there  # the same on both sides
    assert f'href="#rule-{found.findings["rule"][0]}"' in page
    assert "bnprobe" in found._repr_html_()


@pytest.mark.parametrize("pair", [("weights", "weights"), ("weights", "data"), ("data", "data")])
def test_every_kind_of_pair_has_a_page(pair, tmp_path):
    """Fails if a side without data, or with one, costs the page or its pictures."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    kinds = {
        "weights": model.state_dict(),
        "data": bnprobe.record(model, [torch.randn(8, 3, 6, 6)]),
    }
    found = bnprobe.compare(kinds[pair[0]], kinds[pair[1]])
    page = found.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "could not be drawn" not in page
    json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(name))


def test_json_has_everything_but_channels():
    """Fails if NaN gets into the JSON, or the place where it opens is missing."""
    found = bnprobe.compare(side(), side(2.0))
    whole = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert set(whole) == {
        *("schema", "schema_version", "tool", "version", "a", "b", "identical", "answer"),
        *("opens", "layers", "unmatched", "findings"),
    }
    assert whole["opens"]["layer"] == "a"
    assert whole["answer"] == list(found.answer)
    assert [row["layer"] for row in whole["layers"]] == ["a", "b"]
    assert whole["findings"][0]["help"].startswith("file:")
