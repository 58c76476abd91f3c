"""Labels of a batch: what form they may have, for which passes they hold, and what they change."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.models import BY_NAME, CASES, C, H, W
from torch import Tensor, nn

import bnprobe
from bnprobe.cli.main import main
from bnprobe.errors import BadLabels
from bnprobe.measures import tables
from bnprobe.probe import labels as labels_of_batches
from bnprobe.stats import ClassMoments, Moments

LABELS = torch.tensor([3, 0, 3, -1, 0, 7])
BATCHED = [case for case in CASES if case.name != "instance norm without a batch"]


@pytest.fixture
def model() -> nn.Module:
    return BY_NAME["batch norm"].model()


@pytest.fixture
def x() -> Tensor:
    return (torch.randn(6, C, H, W) + torch.randn(6, C, 1, 1)).double()


def classes_of(model: nn.Module, x: Tensor, labels: Any) -> ClassMoments | None:
    with bnprobe.attach(model) as probe, torch.no_grad(), probe.labels(labels):
        model(x)
    return probe.recording.layers[0].classes


def expected(x: Tensor, labels: Any) -> ClassMoments:
    rows = x.double().flatten(2).numpy()
    return ClassMoments.of(Moments.of(rows, axis=2), np.asarray(labels, dtype=np.float64))


def assert_same(found: ClassMoments | None, wanted: ClassMoments) -> None:
    assert found is not None
    for name in ("labels", "n", "mean", "within"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        LABELS,
        LABELS.where(LABELS >= 0, -100),
        LABELS.numpy(),
        LABELS.tolist(),
        [3, 0, 3, None, 0, 7],
        (3, 0, 3, None, 0, 7),
        list(LABELS),
        list(LABELS.numpy()),
    ],
    ids=["tensor", "ignored", "array", "list", "None", "tuple", "tensors", "scalars"],
)
def test_every_form_of_labels(model, x, form):
    """Fails if a form is refused, None or -100 makes a class, or images and labels are out of step."""
    assert_same(classes_of(model, x, form), expected(x, LABELS))


@pytest.mark.parametrize(
    "form",
    [
        torch.zeros(6),
        torch.zeros(6, 10, dtype=torch.long),
        torch.zeros(6, dtype=torch.bool),
        torch.tensor(3),
        np.zeros(6),
        [0.5] * 6,
        [True] * 6,
        "abcdef",
        list("abcdef"),
        7,
        None,
        {"y": LABELS},
    ],
    ids=str,
)
def test_what_is_no_label_is_refused_with_what_to_give(model, x, form):
    """Fails if regression targets or one-hot rows make classes."""
    with (
        bnprobe.attach(model) as probe,
        pytest.raises(BadLabels, match=r"1-D tensor, array or list.*argmax\(1\)"),
        probe.labels(form),
    ):
        pass


def test_a_wrong_number_of_labels_stops_the_pass_and_leaves_no_trace(model, x):
    """Fails if labels are cut or repeated to fit, or a stopped pass is counted."""
    with bnprobe.attach(model) as probe, torch.no_grad():
        with (
            pytest.raises(BadLabels, match=r"^got 5 labels .* 6 samples.*Pass one label per sample"),
            probe.labels(LABELS[:5]),
        ):
            model(x)
        assert not probe.recording.layers
        with probe.labels(LABELS):
            model(x)
    assert_same(probe.recording.layers[0].classes, expected(x, LABELS))
    assert probe.recording.about.n_forwards == 1


def test_labels_end_with_their_block_however_it_ends(model, x):
    """Fails if the labels of one batch are given to the next, or an exception leaves them behind."""
    with bnprobe.attach(model) as probe, torch.no_grad():
        with pytest.raises(ZeroDivisionError), probe.labels(LABELS):
            raise ZeroDivisionError
        model(x)
        assert probe.recording.layers[0].classes is None
        with probe.labels([1] * 6):
            with probe.labels([2] * 6):
                model(x)
            model(x)
        model(x[:2])
    found = probe.recording.layers[0].classes
    assert (found.labels.tolist(), found.n.tolist()) == ([1, 2], [6, 6])


def test_labels_are_those_of_the_thread(model, x):
    """Fails if a batch that runs beside gets the labels of this one."""
    with bnprobe.attach(model) as probe, torch.no_grad(), probe.labels(LABELS):
        beside = threading.Thread(target=model, args=(x[:2],))
        beside.start()
        beside.join()
        assert probe.recording.layers[0].classes is None
        model(x)
    assert probe.recording.layers[0].classes.n_images == 5


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", BATCHED, ids=lambda case: case.name)
def test_labels_change_nothing_else(case, training):
    """Fails if rows that are kept for labels are taken for those of a norm per sample, in any kind of norm."""
    found = []
    for labelled in (False, True):
        torch.manual_seed(0)
        model = case.model(training)
        with bnprobe.attach(model) as probe, torch.no_grad():
            for x in case.batches():
                if labelled:
                    with probe.labels(np.arange(len(x)) % 2):
                        case.call(model, x)
                else:
                    case.call(model, x)
        found.append(tables(probe.recording))
    plain, labelled = found
    of_labels = (
        "share_",
        "class_of_between",
        "n_classes",
        "n_labeled",
        "n_calls_labeled",
        "n_calls_one_class",
        "n_calls_in_order",
    )
    ignored = [n for n in plain.layers if n.startswith(of_labels)]
    for name in plain.channels.columns.difference(
        ["share_class", "share_class_low", "share_class_high", "share_image"]
    ):
        same(plain.channels[name], labelled.channels[name])
    for name in plain.layers.columns.difference(ignored):
        same(plain.layers[name], labelled.layers[name])
    assert (labelled.layers["n_classes"] == 2).any()


def same(mine: Any, other: Any) -> None:
    if mine.dtype.kind in "fi":
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12, err_msg=mine.name)
    else:
        assert mine.tolist() == other.tolist(), mine.name


def test_inputs_of_one_value_per_image():
    """Fails if the fast way for (N, C), which has no rows, loses the labels."""
    model, x = nn.BatchNorm1d(C).eval(), torch.randn(6, C)
    assert_same(classes_of(model, x, LABELS), expected(x[:, :, None], LABELS))


def test_a_norm_that_sees_the_samples_otherwise_cut_has_no_classes():
    """Fails if windows of an image are given the labels of other images."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x.reshape(-1, 2, 4))

    assert classes_of(Windows(), torch.randn(6, 8, 4), LABELS) is None


def test_parts_saved_loaded_and_merged_are_the_whole(model, x, tmp_path):
    """Fails if labels are lost in a file, or a class is merged by its position and not by its label."""
    parts = []
    for i, part in enumerate((slice(0, 2), slice(2, 5), slice(5, 6))):
        with bnprobe.attach(model) as probe, torch.no_grad(), probe.labels(LABELS[part]):
            model(x[part])
        parts.append(bnprobe.load(probe.recording.save(tmp_path / f"{i}.bnp")))
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert_same(merged.layers[0].classes, expected(x, LABELS))
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(x)
    assert_same(merged.merge(probe.recording).layers[0].classes, expected(x, LABELS))


def test_batches_of_a_class_add_up_by_their_images(model, x):
    """Fails if batches of a class count alike, whatever their sizes: 1, 3 and 2 images, of classes that return."""
    labels = [4, 4, 4, 1, 1, 4]
    with bnprobe.attach(model) as probe, torch.no_grad():
        for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
            with probe.labels(labels[part]):
                model(x[part])
    assert_same(probe.recording.layers[0].classes, expected(x, labels))


def test_a_snapshot_is_not_changed_by_later_batches(model, x):
    """Fails if totals that are added in place are handed out."""
    with bnprobe.attach(model) as probe, torch.no_grad(), probe.labels(LABELS):
        model(x)
        before = probe.recording.layers[0].classes
        model(x + 1)
    assert_same(before, expected(x, LABELS))


# The loop


def test_the_loop_takes_integer_targets_for_labels(model, x):
    """Fails if labels of (x, y) are not recorded, or are not those of their batch."""
    recording = bnprobe.record(model, [(x[:4], LABELS[:4]), (x[4:], LABELS[4:])])
    assert_same(recording.layers[0].classes, expected(x, LABELS))


@pytest.mark.parametrize(
    "target",
    [
        None,
        torch.zeros(6),
        torch.zeros(6, 2, dtype=torch.long),
        torch.zeros(5, dtype=torch.long),
        list("abcdef"),
    ],
    ids=["none", "regression", "maps", "length", "words"],
)
def test_the_loop_takes_nothing_else_for_labels(model, x, target):
    """Fails if a target of another form raises, or makes classes."""
    assert bnprobe.record(model, [(x, target)]).layers[0].classes is None


def test_targets_that_are_numbers_and_not_classes(model, x, monkeypatch):
    """Fails if ages or identities fill the RAM: after too many different ones no more are taken."""
    monkeypatch.setattr(labels_of_batches, "MOST_CLASSES", 4)
    batches = [(x, torch.arange(6) + 6 * i) for i in range(3)]
    assert bnprobe.record(model, batches).layers[0].classes is None
    few = [(x, torch.arange(6) % 4), *batches]
    assert bnprobe.record(model, few).layers[0].classes.n_images == 6


def test_folders_are_classes_on_the_command_line(tmp_path: Path, monkeypatch):
    """Fails if the labels of folders reach the loss only."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
                tmp_path / "data" / name / f"{i}.png"
            )
    saved = tmp_path / "run.bnp"
    arguments = [
        "report",
        "resnet18",
        "--data",
        "data",
        "--size",
        "32",
        "--layers",
        "bn1",
        "--save",
        str(saved),
    ]
    assert main(arguments) == 0
    found = bnprobe.load(saved).layers[0].classes
    assert (found.labels.tolist(), found.n.tolist()) == ([0, 1], [3, 3])


def test_labels_of_another_length_are_an_error_where_others_fit(model, x):
    """Fails if one ragged batch among labeled ones is left out of the classes without a word."""
    for batches in ([(x, LABELS), (x, LABELS[:5])], [(x, LABELS[:5]), (x, LABELS)]):
        with pytest.raises(BadLabels, match=r"^got 5 labels for a batch of 6 samples"):
            bnprobe.record(model, batches)


def test_labels_of_another_length_are_an_error_of_the_loss(model, x):
    """Fails if a loss that cannot use them says in its own words what labels.of knows."""

    def loss(output, y):
        return torch.nn.functional.cross_entropy(output.flatten(1), y)

    with pytest.raises(BadLabels, match=r"^got 5 labels for a batch of 6 samples"):
        bnprobe.record(model, [(x, LABELS[:5].clamp(0))], loss)


def test_integers_that_are_no_labels_are_a_note(model, x):
    """Fails if targets that nobody uses are an error, or are ignored without a word."""
    recording = bnprobe.record(model, [(x, LABELS[:5])] * 2)
    assert recording.layers[0].classes is None
    assert [note for note in recording.about.notes if "(5 for 6 samples in the first such batch)" in note]
    assert not any("class labels" in note for note in bnprobe.record(model, [(x, LABELS)]).about.notes)


def test_samples_are_counted_along_their_own_dimension():
    """Fails if labels of sequences that come time first are compared with their length."""
    model, x = torch.nn.LayerNorm(3), torch.randn(7, 4, 3)
    recording = bnprobe.record(model, [(x, [0, 0, 1, 1])], sample_dim=1)
    assert recording.layers[0].classes.n.tolist() == [2, 2]


def test_sequences_that_a_mask_tells_are_not_miscounted():
    """Fails if two sequences without padding are one sample with too many labels."""
    packed = [(torch.randn(1, n, 3), [0] * k) for n, k in ((3, 1), (9, 2))]
    labels = labels_of_batches.LabelsOfBatches(packed=True)
    assert [labels.of(batch) for batch in packed] == [[0], None]
