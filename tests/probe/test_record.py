"""The loop around the probe: what a batch may be, what is said of the run, and what is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.gradients import Cut, assert_gradient_true, loss_of
from support.models import BN, BY_NAME, C, H, Keyword, W
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.cli.main import main
from bnprobe.errors import BnprobeError, NoNormLayers, NothingRecorded
from bnprobe.measures import tables


@pytest.fixture
def model() -> nn.Module:
    return BY_NAME["batch norm"].model()


@pytest.fixture
def batches() -> list[Tensor]:
    return BY_NAME["batch norm"].batches()


class Two(nn.Module):
    """Takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(C)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.bn(x * scale)


def mean_of(recording: bnprobe.Recording) -> np.ndarray:
    return recording.layers[0].pre.mean


def test_batches_with_and_without_labels_are_the_same_run(model, batches):
    """Fails if labels are fed to the model, or a list in place of a tuple is."""
    expected = torch.cat(batches).double().mean((0, 2, 3)).numpy()
    labels = [torch.zeros(len(x)) for x in batches]
    forms: list[list[Any]] = [
        batches,
        [(x, y) for x, y in zip(batches, labels, strict=True)],
        [[x, y] for x, y in zip(batches, labels, strict=True)],
        [(x,) for x in batches],
        [((x,), y) for x, y in zip(batches, labels, strict=True)],
        [(x, None) for x in batches],
    ]
    for form in forms:
        recording = bnprobe.record(model, form)
        np.testing.assert_allclose(mean_of(recording), expected, rtol=1e-12)
        assert (recording.about.n_forwards, recording.about.n_images) == (3, 9)


def test_several_inputs_and_inputs_by_name():
    """Fails if a tuple of arguments is taken for (x, y), or a dict is passed as one argument."""
    x, scale = torch.randn(4, C, H, W), torch.tensor(3.0)
    positional = bnprobe.record(Two().eval(), [((x, scale), None)])
    by_name = bnprobe.record(Two().eval(), [{"x": x, "scale": scale}])
    labelled = bnprobe.record(Two().eval(), [({"scale": scale, "x": x}, torch.zeros(4))])
    expected = (x * 3).double().mean((0, 2, 3))
    for recording in (positional, by_name, labelled):
        # within 1e-6 of the spread, which is the accuracy of a compiled read
        np.testing.assert_allclose(mean_of(recording), expected, rtol=0, atol=1e-6 * float(x.std() * 3))
    assert bnprobe.record(Keyword().eval(), [{"image": x}]).layers[0].n_images == 4


def test_a_generator_is_run_once_and_not_asked_for_its_length(model, batches):
    """Fails if batches are counted or shown first: a loader may not fit in RAM, or may be used up."""

    def once() -> Iterator[Tensor]:
        yield from batches

    assert bnprobe.record(model, once()).about.n_images == 9


def test_it_equals_the_loop_it_stands_for(model, batches):
    """Fails if `record` measures something else than attach and a loop of one's own."""
    with bnprobe.attach(model) as probe, torch.no_grad():
        for x in batches:
            model(x)
    one, other = bnprobe.report(bnprobe.record(model, batches)), bnprobe.report(probe)
    np.testing.assert_array_equal(
        one.channels.select_dtypes("number"), other.channels.select_dtypes("number")
    )


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_the_users(batches, training):
    """Fails if the model is put into eval mode, or left in another than it came in."""
    model = BY_NAME["batch norm"].model(training)
    (record,) = bnprobe.record(model, batches).layers
    assert record.mode == ("train" if training else "eval")
    assert model.training is training


def test_no_gradients_are_made_and_the_setting_comes_back(model, batches):
    """Fails if a graph is kept over all batches, or gradients stay switched off afterwards."""
    seen: list[bool] = []
    handle = model.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    bnprobe.record(model, batches)
    handle.remove()
    assert seen == [False] * 3
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_probe_is_taken_off_when_a_batch_fails(model, batches):
    """Fails if hooks stay on the model after an exception, or the exception is replaced."""
    with pytest.raises(RuntimeError, match="running_mean should contain"):
        bnprobe.record(model, [batches[0], torch.zeros(2, C + 1, H, W, dtype=torch.float64)])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_what_is_said_of_the_run_is_in_the_recording(model, batches):
    """Fails if a sentence is dropped or mixed up with another, or the defaults claim something."""
    words = {"weights": "ours", "data": "nine images", "preprocessing": "none"}
    about = bnprobe.record(model, batches, model_name="net", **words).about
    assert (about.model, about.weights, about.data, about.preprocessing) == (
        "net",
        "ours",
        "nine images",
        "none",
    )
    plain = bnprobe.record(model, batches).about
    assert (plain.model, plain.weights, plain.data) == ("Sequential", "not stated", "not stated")


def test_layers_and_histograms_are_narrowed(batches):
    """Fails if the two options do not reach the probe."""
    case = BY_NAME["mixed"]
    recording = bnprobe.record(case.model(), case.batches(), layers=["g*", "rms"], histograms=False)
    assert [record.layer for record in recording.layers] == ["gn", "rms"]
    assert all(record.pre_histogram is None for record in recording.layers)
    only = bnprobe.record(case.model(), case.batches(), layers="bn")
    assert [record.layer for record in only.layers] == ["bn"]


@pytest.mark.parametrize("nothing", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_no_batches_is_an_error_that_says_so(model, nothing):
    """Fails if an empty loader gives an empty recording, and an empty report much later."""
    with pytest.raises(NothingRecorded, match="Pass at least one batch of inputs"):
        bnprobe.record(model, nothing)


def test_a_model_without_norms_is_refused_before_any_batch():
    """Fails if the loader is started for nothing."""

    def untouched() -> Iterator[Tensor]:
        raise AssertionError("the batches were asked for")
        yield

    with pytest.raises(NoNormLayers, match=r"Check that Conv\+BN were not fused"):
        bnprobe.record(nn.Sequential(nn.Conv2d(3, 3, 1)), untouched())
    with pytest.raises(BnprobeError, match="Pass the model itself"):
        bnprobe.record("resnet50", untouched())


def test_a_bar_where_a_person_watches_and_none_elsewhere(model, batches, capsys, monkeypatch):
    """Fails if a log file is filled with the bar, or a person waits without one."""
    bnprobe.record(model, batches, n_images=9)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("multiprocessing.parent_process", lambda: None)  # also where tests run in a child
    bnprobe.record(model, batches, n_images=9)
    shown = capsys.readouterr().err
    assert "probing" in shown
    assert "9/9" in shown.replace(" ", "")
    assert "images/s" in shown


def test_a_model_without_parameters_runs_on_the_cpu(batches):
    """Fails if the device is looked up on a parameter that is not there."""
    model = nn.InstanceNorm2d(C)
    assert bnprobe.record(model, batches).layers[0].n_images == 9


def test_inputs_are_not_changed(model, batches):
    """Fails if moving to the device, or probing, writes into the user's tensors."""
    copies = [x.clone() for x in batches]
    bnprobe.record(model, batches)
    assert all(torch.equal(x, copy) for x, copy in zip(batches, copies, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator on this machine")
def test_batches_follow_the_model_to_its_device(batches):
    """Fails if tensors inside tuples and dicts stay on the CPU."""
    on_gpu = Two().eval().cuda()
    scale = torch.tensor(3.0)
    recording = bnprobe.record(on_gpu, [{"x": batches[0].float(), "scale": scale}])
    assert recording.layers[0].n_images == len(batches[0])


# With a loss


class Classifier(nn.Module):
    """Few parameters, three classes, images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.conv(x)).relu().mean((2, 3)))


def classifier() -> nn.Module:
    torch.manual_seed(3)
    return Classifier().double()


@pytest.fixture
def labelled(batches: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(x, torch.arange(len(x)) + i) for i, x in enumerate(batches)]


def test_a_backward_pass_follows_each_batch(labelled):
    """Fails if labels do not reach the loss, its arguments are exchanged, or gradients add up over batches."""
    (record,) = bnprobe.record(classifier(), labelled, F.cross_entropy).layers
    cut = Cut(classifier(), ["bn"])
    expected = [cut.pulls(lambda m, x=x, y=y: F.cross_entropy(m(x), y))["bn", 0] for x, y in labelled]
    assert_gradient_true(record.gradient, BN, expected, record.eps)
    assert record.n_calls == 3


def test_a_loss_of_ones_own_gets_what_the_batch_holds():
    """Fails if a target that is no tensor is dropped, or a batch without one is not given None."""
    seen: list[Any] = []

    def loss(output: Tensor, y: Any) -> Tensor:
        seen.append(y)
        return loss_of(output)

    x, scale = torch.randn(4, C, H, W), torch.tensor(3.0)
    target = {"boxes": torch.ones(2), "names": ["a", "b"]}
    bnprobe.record(Two(), [((x, scale), target), ({"x": x, "scale": scale}, None)], loss)
    bnprobe.record(BY_NAME["batch norm"].model(), BY_NAME["batch norm"].batches((2,)), loss)
    assert seen[0]["names"] == ["a", "b"]
    assert torch.equal(seen[0]["boxes"], torch.ones(2))
    assert seen[1:] == [None, None]


def test_labels_move_with_the_inputs(monkeypatch, labelled):
    """Fails if labels stay where they were: each tensor, in any container, is asked to go to the device."""
    asked: list[int] = []
    to = Tensor.to

    def noted(tensor: Tensor, *where: Any, **options: Any) -> Tensor:
        if where == (torch.device("cpu"),):
            asked.append(id(tensor))
        return to(tensor, *where, **options)

    monkeypatch.setattr(Tensor, "to", noted)
    bnprobe.record(classifier(), labelled, F.cross_entropy)
    assert {id(tensor) for batch in labelled for tensor in batch} <= set(asked)


@pytest.mark.parametrize("before", ["some", "none"])
@pytest.mark.parametrize("fails", [False, True], ids=["success", "exception"])
def test_the_very_gradients_that_were_there_are_put_back(labelled, before, fails):
    """Fails if .grad is lost, added to, or a copy: an optimizer step may be pending."""
    model = classifier()
    if before == "some":
        F.cross_entropy(model(labelled[0][0]), labelled[0][1]).backward()
    model.head.bias.grad = None
    kept = {name: p.grad for name, p in model.named_parameters()}
    values = {name: g.clone() for name, g in kept.items() if g is not None}
    state = {name: t.clone() for name, t in model.named_parameters()}
    if fails:
        labelled[1] = (labelled[1][0], torch.full((3,), 99))
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            bnprobe.record(model, labelled, F.cross_entropy)
    else:
        bnprobe.record(model, labelled, F.cross_entropy)
    for name, p in model.named_parameters():
        assert p.grad is kept[name]
        assert torch.equal(p, state[name])
    assert all(torch.equal(kept[name], value) for name, value in values.items())


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [False, True], ids=["success", "exception"])
def test_the_grad_mode_comes_back(labelled, enabled, fails):
    """Fails if a caller under no_grad gets no gradients, or gets the mode switched for good."""
    if fails:
        labelled.append((labelled[0][0], torch.full((2,), 99)))
    with torch.set_grad_enabled(enabled):
        if fails:
            with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
                bnprobe.record(classifier(), labelled, F.cross_entropy)
        else:
            (record,) = bnprobe.record(classifier(), labelled, F.cross_entropy).layers
            assert record.gradient.n_passes == 3
        assert torch.is_grad_enabled() is enabled


def test_without_a_loss_there_is_no_gradient(labelled):
    """Fails if labels alone start backward passes."""
    (record,) = bnprobe.record(classifier(), labelled).layers
    assert record.gradient is None


def test_inputs_keep_their_grad(labelled):
    """Fails if a batch that wants a gradient is handed back with one that the probe made."""
    x, y = labelled[0]
    x.requires_grad_()
    bnprobe.record(classifier(), [(x, y)], F.cross_entropy)
    assert x.grad is None


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of ten classes that the command line can build."""
    (tmp_path / "ownnet.py").write_text(
        f"from {__name__} import Classifier\n\n\ndef build():\n    return Classifier()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "ownnet:build"


def test_the_command_line_runs_backward_too(own_model, tmp_path, capsys):
    """Fails if --loss does not reach the loop, or labels are not those of the images."""
    saved = tmp_path / "run.bnp"
    where = ["-o", str(tmp_path / "page.html"), "--save", str(saved)]
    assert main(["report", own_model, "--limit", "20", "--loss", "cross_entropy", *where]) == 0
    layers = tables(bnprobe.load(saved)).layers
    assert layers["n_backward"].tolist() == [2]
    assert layers["grad_out"][0] > 0
    assert main(["report", own_model, "--limit", "20", *where]) == 0
    assert tables(bnprobe.load(saved)).layers["n_backward"].tolist() == [0]


def test_a_folder_without_classes_has_no_labels(own_model, tmp_path, capsys):
    """Fails if a loss on a flat folder ends in a traceback, or in made-up labels."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (i * 40, 90, 10)).save(folder / f"{i}.png")
    page = tmp_path / "page.html"
    code = main(["report", own_model, "--data", str(folder), "--loss", "cross_entropy", "-o", str(page)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1
    assert "one sub-folder per class" in lines[0]
    assert not page.exists()


def test_labels_of_class_folders_are_their_places_in_sorted_order(own_model, tmp_path, monkeypatch):
    """Fails if labels are lost between folder and loss, or are not the places of the folders."""
    folder = tmp_path / "classes"
    for i, name in enumerate(["zebra", "ant", "cat"]):
        (folder / name).mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (20, 20), (i * 40, k * 90, 10)).save(folder / name / f"{k}.png")
    seen: list[int] = []

    def noted(output: Tensor, y: Tensor) -> Tensor:
        seen.extend(y.tolist())
        return output.sum() + 0 * y.sum()

    monkeypatch.setattr(F, "cross_entropy", noted)
    where = ["-o", str(tmp_path / "page.html"), "--batch-size", "4"]
    assert main(["report", own_model, "--data", str(folder), "--loss", "cross_entropy", *where]) == 0
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


def test_another_loss_is_refused_in_one_line(own_model, capsys):
    """Fails if an unknown name is looked up somewhere and fails late."""
    assert main(["report", own_model, "--loss", "hinge"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "batches", [torch.randn(4, C, H, W), None, 3, "images"], ids=["tensor", "None", "number", "path"]
)
def test_batches_that_are_none_say_what_to_give(batches: Any):
    """Fails if `record` iterates over the rows of a tensor, or ends in a TypeError of Python's."""
    with pytest.raises(BnprobeError, match=r"Wrap a single batch in a list: \[batch\]"):
        bnprobe.record(BY_NAME["batch norm"].model(dtype=torch.float32), batches)


def test_a_loss_without_targets_says_so():
    """Fails if the error of a loss function that was given None comes up raw."""
    model = nn.Sequential(BY_NAME["batch norm"].model(dtype=torch.float32), nn.Flatten())
    with pytest.raises(BnprobeError, match="Pass batches of"):
        bnprobe.record(
            model, [BY_NAME["batch norm"].batches(dtype=torch.float32)[0]], loss=nn.functional.cross_entropy
        )
    recording = bnprobe.record(
        model,
        [BY_NAME["batch norm"].batches(dtype=torch.float32)[0]],
        loss=lambda output, y: output.square().sum(),
    )
    assert recording.layers[0].gradient is not None


def test_a_generator_of_batches_of_a_dataset_without_iter():
    """Fails if a dataset that can only be indexed is refused as no batches."""

    class Indexed:
        def __getitem__(self, i: int) -> Tensor:
            return BY_NAME["batch norm"].batches()[i]

    assert bnprobe.record(BY_NAME["batch norm"].model(), Indexed()).about.n_images == 9  # type: ignore[arg-type]


def test_a_bare_pair_of_inputs_and_targets_is_one_batch(model, batches):
    """Fails if the labels run through the model as a second batch, or are lost."""
    x = batches[0]
    labels = torch.arange(len(x)) % 2
    one = bnprobe.record(model, (x, labels))
    assert (one.about.n_forwards, one.about.n_images) == (1, len(x))
    np.testing.assert_array_equal(mean_of(one), mean_of(bnprobe.record(model, [(x, labels)])))
    assert one.layers[0].classes is not None
    assert bnprobe.record(model, [x, x]).about.n_forwards == 2


@pytest.mark.parametrize("form", [tuple, list])
def test_a_pair_that_may_be_two_things_is_refused(form, model, batches):
    """Fails if one of two readings is chosen in silence."""
    x = batches[0]
    with pytest.raises(BnprobeError, match=r"\[\(x, y\)\], as two batches \[x1, x2\]"):
        bnprobe.record(
            model, form([x, torch.zeros(len(x), dtype=torch.long)]) if form is list else (x, x.clone())
        )
