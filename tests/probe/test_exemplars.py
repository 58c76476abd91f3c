"""Exemplars of a running model: against all outputs, averaged in float64 and sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe import BnprobeError
from bnprobe.probe import exemplars as of_probe
from bnprobe.recording import Recording
from bnprobe.stats.moments import Array

K = 3
BATCHES = (5, 2, 7, 4)


def images(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 6, 7, generator=generator) for n in BATCHES]


@contextmanager
def outputs(norm: nn.Module) -> Iterator[list[Array]]:
    """Each output of a module as it was, before anything after it can change it."""
    seen: list[Array] = []
    handle = norm.register_forward_hook(lambda _, __, y: seen.append(y.detach().double().numpy().copy()))
    try:
        yield seen
    finally:
        handle.remove()


def ranked(values: Array, k: int = K) -> list[tuple[int, str, int, int]]:
    """(channel, side, rank, sample) of values (N, C), by a full sort."""
    rows = []
    for channel in range(values.shape[1]):
        for side, order in (
            ("high", np.argsort(-values[:, channel])),
            ("low", np.argsort(values[:, channel])),
        ):
            rows += [(channel, side, rank + 1, int(sample)) for rank, sample in enumerate(order[:k])]
    return rows


def listed(table: pd.DataFrame, *more: str) -> list[tuple[Any, ...]]:
    return list(table[["channel", "side", "rank", "sample", *more]].itertuples(index=False, name=None))


def scaled(norm: nn.Module) -> nn.Module:
    """With γ of both signs and β."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in norm.named_parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) + (name == "bias"))
    return norm


class Gained(nn.BatchNorm2d):
    """A formula that nobody knows: its output is read."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).abs() + x.amax((2, 3), keepdim=True)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "make",
    [
        partial(nn.BatchNorm2d, 6),
        partial(nn.GroupNorm, 2, 6),
        partial(nn.InstanceNorm2d, 6, affine=True, track_running_stats=True),
        partial(Gained, 6),
    ],
    ids=["batch", "group", "instance with running statistics", "a formula of its own"],
)
def test_means_after_the_norm(make: Callable[[], nn.Module], training: bool):
    """Fails if inputs are ranked in place of outputs, a map of one batch is laid over another, or numbers restart."""
    norm = scaled(make())
    model = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(inplace=True)).train(training)
    with bnprobe.attach(model, exemplars=K) as probe, outputs(norm) as seen:
        for x in images():
            model(x)
    found = bnprobe.report(probe).exemplars
    if training and isinstance(norm, nn.InstanceNorm2d):
        assert found.empty
        return
    values = np.concatenate(seen).mean(axis=(2, 3))
    assert listed(found) == ranked(values)
    expected = [values[sample, channel] for channel, _, _, sample in ranked(values)]
    np.testing.assert_allclose(found["value"], expected, rtol=1e-4, atol=1e-5)
    assert found["position"].isna().all()
    assert set(found["layer"]) == {"1"}
    assert set(found["call"]) == {0}


@pytest.mark.parametrize("masked", [False, True], ids=["all", "padded"])
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_tokens(kind: Callable[[int], nn.Module], masked: bool):
    """Fails if a token's place is that of another, or padding counts."""
    norm = scaled(kind(4))
    generator = torch.Generator().manual_seed(2)
    batches = [torch.randn(n, 5, 4, generator=generator) for n in BATCHES]
    masks = [torch.rand(n, 5, generator=generator) < 0.6 for n in BATCHES]
    for mask in masks:
        mask[:, 0] = True  # so that positions count as they stand
        mask[:] = mask.cumprod(1).bool()
    with bnprobe.attach(norm, exemplars=K) as probe, outputs(norm) as seen:
        for x, mask in zip(batches, masks, strict=True):
            with probe.mask(mask if masked else torch.ones_like(mask)):
                norm(x)
    y = np.concatenate(seen)
    counts = np.concatenate(masks) if masked else np.ones(y.shape[:2], bool)
    found = bnprobe.report(probe).exemplars
    for side, sign in (("high", 1.0), ("low", -1.0)):
        score = np.where(counts[..., None], sign * y, -np.inf)
        of_side = found[found["side"] == side]
        assert listed(of_side) == [(c, side, r, n) for c, s, r, n in ranked(score.max(axis=1)) if s == "high"]
        places = score.argmax(axis=1)
        assert of_side["position"].tolist() == [
            places[n, c] for n, c in zip(of_side["sample"], of_side["channel"], strict=True)
        ]


def test_sequences_without_padding_are_samples():
    """Fails if the tokens of packed sequences are counted from the beginning of the pack."""

    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, x: Tensor, cu_seqlens: Tensor) -> Tensor:
            return self.norm(x)

    model, x = Packs(), torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    with bnprobe.attach(model, mask="cu_seqlens", exemplars=1) as probe:
        y = model(x, torch.tensor([0, 5, 5, 9])).detach().numpy()
    found = bnprobe.report(probe).exemplars
    highest = found[found["side"] == "high"]
    at = y.argmax(axis=0)
    assert highest["sample"].tolist() == [0 if i < 5 else 2 for i in at]
    assert highest["position"].tolist() == [i if i < 5 else i - 5 for i in at]


def test_pads_on_the_left_shift_no_position():
    """Fails if positions are those in the padded batch where the model counts otherwise."""
    norm, mask = nn.LayerNorm(4), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    x = torch.zeros(2, 4, 4)
    x[0, 3] = torch.tensor([9.0, 0, 0, 0])
    with bnprobe.attach(norm, exemplars=1) as probe, probe.mask(mask):
        norm(x)
    first = bnprobe.report(probe).exemplars.iloc[0]
    assert (first["sample"], first["position"]) == (0, 1.0)


def test_equal_values_go_to_the_first():
    """Fails if a constant channel's exemplars depend on the size of batches."""
    norm = nn.BatchNorm1d(2).eval()
    nn.init.zeros_(norm.weight)
    tables = []
    for size in (1, 4, 9):
        with bnprobe.attach(norm, exemplars=K) as probe:
            for x in torch.randn(9, 2).split(size):
                norm(x)
        tables.append(listed(bnprobe.report(probe).exemplars))
    assert [row[3] for row in tables[0]] == [0, 1, 2] * 4
    assert tables[0] == tables[1] == tables[2]


def test_samples_left_out_by_a_mask_and_values_that_are_not_finite():
    """Fails if a sample without a value is an exemplar."""
    norm = nn.BatchNorm1d(2).eval()
    x = torch.tensor([[9.0, 9], [1, 1], [torch.nan, 2], [3, 3]])
    with bnprobe.attach(norm, exemplars=K) as probe, probe.mask([0, 1, 1, 1]):
        norm(x)
    found = bnprobe.report(probe).exemplars
    assert found[found["side"] == "high"]["sample"].tolist() == [3, 1, 3, 2, 1]
    assert found["rank"].tolist()[:4] == [1, 2, 1, 2]


def test_labels_and_texts():
    """Fails if what is known of a sample goes to another."""
    norm = nn.BatchNorm1d(1).eval()
    texts = ["a  dog\nbarks", "rain", "x" * 500, "half a character \ud800"]
    batches = [
        (torch.tensor([[2.0], [1.0]]), torch.tensor([4, -1])),
        (torch.tensor([[4.0], [3.0]]), torch.tensor([5, 6])),
    ]
    recording = bnprobe.record(norm, batches, exemplars=4, captions=texts)
    found = bnprobe.report(recording).exemplars.head(4)
    assert found["sample"].tolist() == [2, 3, 0, 1]
    assert found["label"].tolist() == [5, 6, 4, None]
    assert found["caption"].tolist() == ["x" * 199 + "…", "half a character ?", "a dog barks", "rain"]


def of_files(batches: Sequence[tuple[Tensor, list[Path]]], k: int = 2) -> Recording:
    norm = nn.BatchNorm1d(2).eval()
    with bnprobe.attach(norm, exemplars=k) as probe:
        for x, paths in batches:
            with probe.captions(paths):
                norm(x)
    return probe.recording


def test_parts_in_any_order_are_the_whole():
    """Fails if numbers of one part are taken for those of another, or ties go by the order of parts."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(12, 2, generator=generator).round()
    paths = [Path(f"data/{name}.png") for name in "abcdefghijkl"]
    batches = [(x[i : i + 3], paths[i : i + 3]) for i in range(0, 12, 3)]
    whole = bnprobe.report(of_files(batches)).exemplars
    assert whole["sample"].str.startswith("data/").all()
    one_by_one = [of_files([batch]) for batch in batches]
    for order in permutations(one_by_one):
        merged = reduce(Recording.merge, order)
        pd.testing.assert_frame_equal(bnprobe.report(merged).exemplars, whole)
        assert len(merged.samples) == len(set(whole["sample"]))
    halves = [of_files(batches[2:]), of_files(batches[:2])]
    pd.testing.assert_frame_equal(bnprobe.report(halves[0].merge(halves[1])).exemplars, whole)


def test_numbers_of_parts_are_kept_apart():
    """Fails if sample 0 of one machine is sample 0 of another."""
    norm = nn.BatchNorm1d(1).eval()
    parts = [bnprobe.record(norm, [torch.tensor([[v], [v + 1]])], exemplars=3) for v in (1.0, 5.0, 3.0)]
    tables = [bnprobe.report(reduce(Recording.merge, order)).exemplars for order in permutations(parts)]
    first = tables[0].head(3)
    assert first["value"].round(3).tolist() == [6.0, 5.0, 4.0]
    assert first["sample"].tolist() == [1, 0, 1]
    assert first["part"].tolist()[0] == first["part"].tolist()[1] != first["part"].tolist()[2]
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[0])


def test_saved_and_loaded(tmp_path):
    """Fails if a file holds less than the recording, or a file without exemplars cannot be read."""
    recording = of_files([(torch.randn(3, 2), [Path(f"{i}.png") for i in range(3)])])
    again = bnprobe.load(recording.save(tmp_path / "a.bnp"))
    pd.testing.assert_frame_equal(bnprobe.report(again).exemplars, bnprobe.report(recording).exemplars)
    assert again.samples.captions == recording.samples.captions


def test_a_file_that_comes_again_is_one_sample():
    """Fails if the second epoch fills the ranks with the same files, within a batch or across batches."""
    paths = [Path(f"{i}.png") for i in range(4)]
    x = torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]])
    twice = of_files([(x, paths), (x.flip(0) + 1, paths[::-1])], k=3)
    found = bnprobe.report(twice).exemplars
    assert found.head(3)[["sample", "value"]].round(2).values.tolist() == [
        ["3.png", 5],
        ["2.png", 4],
        ["1.png", 3],
    ]
    assert found["sample"][3:6].tolist() == ["0.png", "1.png", "2.png"]
    same = of_files([(x, [paths[0]] * 4)], k=3)
    assert bnprobe.report(same).exemplars["sample"].tolist() == ["0.png"] * 4


def test_names_that_nobody_needs_are_forgotten(monkeypatch):
    """Fails if RAM follows the number of samples, or a name that is needed is dropped."""
    monkeypatch.setattr(of_probe, "FORGET", 8)
    paths = [Path(f"{i}.png") for i in range(60)]
    values = torch.randn(60, 2, generator=torch.Generator().manual_seed(5))
    norm = nn.BatchNorm1d(2).eval()
    with bnprobe.attach(norm, exemplars=2) as probe:
        for i in range(0, 60, 4):
            with probe.captions(paths[i : i + 4]):
                norm(values[i : i + 4])
        assert len(probe._forward.phase.exemplars._named) < 24
    found = bnprobe.report(probe).exemplars
    assert found["sample"].tolist() == [f"{n}.png" for *_, n in ranked(values.double().numpy(), 2)]


def test_phases_are_apart():
    """Fails if validation's samples are among those of training."""
    norm = nn.BatchNorm1d(1).eval()
    with bnprobe.attach(norm, exemplars=1) as probe:
        for name, value in (("train", 1.0), ("val", 2.0)):
            with probe.phase(name):
                norm(torch.full((2, 1), value))
    phases = bnprobe.report(probe).phases
    assert [phases[name].exemplars["value"].round(3).tolist() for name in phases] == [[1.0] * 2, [2.0] * 2]


def test_norms_without_a_row_per_sample_are_named():
    """Fails if windows are taken for samples, or a layer goes missing without a word."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.norm = nn.InstanceNorm1d(4), nn.LayerNorm(5)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.own(x).reshape(-1, 5))

    recording = bnprobe.record(Windows(), [torch.randn(2, 4, 5)], exemplars=2)
    assert bnprobe.report(recording).exemplars.empty
    assert recording.samples is None
    notes = " ".join(recording.about.notes)
    assert "No exemplars at own: they give every sample the same mean." in notes
    assert "No exemplars at norm: their inputs do not have one row per sample" in notes


def test_parts_of_a_model_count_by_themselves():
    """Fails if parts that are called without the model have no samples, or numbers that begin again."""
    model = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1)).eval()
    with bnprobe.attach(model, exemplars=2) as probe:
        for value in (1.0, 2.0):
            for part in model:
                part(torch.full((1, 1), value))
    assert bnprobe.report(probe).exemplars["sample"].tolist() == [1, 0, 0, 1] * 2


def test_a_pass_that_fails_leaves_no_sample():
    """Fails if samples of a pass that was cut short are ranked, or numbered."""

    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            if x[0] > 8:
                raise RuntimeError("too much")
            return y

    model = Fragile().eval()
    with bnprobe.attach(model, exemplars=2) as probe:
        model(torch.tensor([[1.0]]))
        with pytest.raises(RuntimeError, match="too much"):
            model(torch.tensor([[9.0]]))
        model(torch.tensor([[2.0]]))
    assert bnprobe.report(probe).exemplars["sample"].tolist() == [1, 0, 0, 1]


def test_other_statistics_do_not_change():
    """Fails if keeping rows for exemplars changes what else is recorded."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.GroupNorm(2, 6)).eval()
    plain, kept = (bnprobe.record(model, images(), exemplars=k) for k in (0, 2))
    assert plain.samples is None
    assert plain.layers[0].exemplars is None
    for a, b in zip(plain.layers, kept.layers, strict=True):
        assert (a.own_mean is None) == (b.own_mean is None)
        np.testing.assert_allclose(a.pre.m2, b.pre.m2, rtol=1e-6)
        np.testing.assert_array_equal(a.n_positive, b.n_positive)


@pytest.mark.parametrize("k", [-1, 2.0, True, "8", None, 1001])
def test_a_number_of_samples(k: Any):
    """Fails if a number is taken that no list has."""
    with pytest.raises(
        BnprobeError,
        match=r"exemplars=.* is not a number of samples from 0 to 1,000. Pass a whole number such as 8",
    ):
        bnprobe.attach(nn.BatchNorm1d(2), exemplars=k)


def test_fewer_samples_than_asked_for():
    """Fails if ranks are filled up with nobody."""
    found = bnprobe.report(
        bnprobe.record(nn.BatchNorm1d(1).eval(), [torch.randn(3, 1)], exemplars=50)
    ).exemplars
    assert found["rank"].tolist() == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("abc", "one path or text per sample, got str. Pass pathlib.Path"),
        (5, "one path or text per sample, got int"),
        (["a", 1, "c"], "captions hold int, which is neither path nor text"),
        (["a", "b"], "got 2 captions for a batch of 3 samples. Pass one path or text per sample"),
    ],
)
def test_captions_that_are_none(captions: Any, message: str):
    """Fails if captions are taken for those of other samples."""
    norm = nn.BatchNorm1d(1)
    with (
        bnprobe.attach(norm, exemplars=1) as probe,
        pytest.raises(BnprobeError, match=message),
        probe.captions(captions),
    ):
        norm(torch.randn(3, 1))


def test_captions_need_exemplars():
    """Fails if captions are taken and nothing comes of them."""
    norm = nn.BatchNorm1d(1)
    with (
        bnprobe.attach(norm) as probe,
        pytest.raises(BnprobeError, match="Pass attach"),
        probe.captions(["a"]),
    ):
        pass
    with pytest.raises(BnprobeError, match="Pass exemplars=8 as well"):
        bnprobe.record(norm, [torch.randn(1, 1)], captions=["a"])
    with pytest.raises(BnprobeError, match="got 2 captions for a batch of 3"):
        bnprobe.record(norm, [torch.randn(3, 1)], captions=["a", "b"], exemplars=1)


def test_a_part_without_exemplars_leaves_the_whole_without():
    """Fails if the exemplars of a part are said to be those of the whole, or nobody is told."""
    norm = nn.BatchNorm1d(1).eval()
    with_, without = (bnprobe.record(norm, [torch.randn(3, 1)], exemplars=k) for k in (2, 0))
    for merged in (with_.merge(without), without.merge(with_)):
        assert bnprobe.report(merged).exemplars.empty
        assert merged.samples is None
        assert any(note.startswith("Exemplars are missing") for note in merged.about.notes)
