"""Phases: training and validation in one probe, kept apart from the pass to the file and the page."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import bnprobe
from bnprobe import BnprobeError, CannotMerge, Recording
from bnprobe.cli.main import main

C = 4


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, C), nn.BatchNorm1d(C), nn.ReLU(), nn.LayerNorm(C)).double()


def batches(seed: int, *sizes: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.gamma(0.7, size=(n, 6)) + seed) for n in sizes]


def epochs(model: nn.Module, n: int = 2) -> tuple[bnprobe.Probe, list[np.ndarray], list[np.ndarray]]:
    """Training and validation in turn; and the inputs of the batch norm in each."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seen: dict[bool, list[np.ndarray]] = {True: [], False: []}
    hook = model[1].register_forward_pre_hook(
        lambda m, args: seen[m.training].append(args[0].detach().numpy().copy())
    )
    with bnprobe.attach(model) as probe:
        for epoch in range(n):
            with probe.phase("train"):
                for x in batches(epoch, 5, 3):
                    optimizer.zero_grad()
                    model.train()(x).square().sum().backward()
                    optimizer.step()
            with probe.phase("val"), torch.no_grad():
                for x in batches(7, 2, 6):
                    model.eval()(x)
    hook.remove()
    return probe, seen[True], seen[False]


def test_each_phase_has_its_own_numbers():
    """Fails if a phase holds values, gradients, modes or counts of another, or the whole holds any."""
    probe, train, val = epochs(network())
    recording = probe.recording
    assert (recording.layers, recording.about.n_images, list(recording.phases)) == ((), 0, ["train", "val"])
    for name, values in (("train", train), ("val", val)):
        phase = recording.phases[name]
        record, rows = phase.layers[0], np.concatenate(values)
        np.testing.assert_allclose(record.pre.mean, rows.mean(0), rtol=1e-9)
        np.testing.assert_allclose(record.pre.var_population, rows.var(0), rtol=1e-9)
        assert (phase.about.phase, phase.about.n_images, phase.about.n_forwards) == (name, len(rows), 4)
        assert record.mode == ("train" if name == "train" else "eval")
        assert (record.gradient is None) == (name == "val")
        assert record.neighbours is not None
        assert record.neighbours.follows == "relu"
    assert probe.n_images == sum(map(len, train + val))
    assert repr(probe) == "Probe(Sequential: 2 norms detached, 8 forward passes)"


def test_running_statistics_that_training_moved_are_no_fault_of_validation():
    """Fails if validation is said to have updated statistics, or has no number of updates where only it runs."""
    probe, _, _ = epochs(network())
    train, val = (probe.recording.phases[name].layers[0].call_log for name in ("train", "val"))
    assert (train.n_updates, val.n_updates, val.running_mean_after) == (4, None, None)
    report = bnprobe.report(probe).phases["val"]
    assert not {"frozen-statistics-moved", "updated-twice", "train-mode-in-evaluation"} & set(
        report.findings["rule"]
    )


def test_a_phase_is_what_a_probe_of_its_own_records():
    """Fails if the first look of a phase (formula, neighbors, scale of histograms) is that of another phase."""
    model = network().eval()
    with bnprobe.attach(model) as probe, torch.no_grad():
        for name, seed in (("a", 0), ("b", 9)):
            with probe.phase(name):
                for x in batches(seed, 5, 2):
                    model(x)
    for name, seed in (("a", 0), ("b", 9)):
        mine = bnprobe.report(probe.recording.phases[name])
        alone = bnprobe.report(bnprobe.record(model, batches(seed, 5, 2)))
        for table in ("layers", "channels"):
            found, wanted = getattr(mine, table), getattr(alone, table)
            for column in wanted.columns:
                if wanted[column].dtype.kind == "f":
                    np.testing.assert_allclose(found[column], wanted[column], rtol=1e-9, err_msg=column)
                else:
                    assert found[column].tolist() == wanted[column].tolist(), column


def test_phases_survive_a_file_and_add_up(tmp_path: Path):
    """Fails if a phase is lost, or merged with another, on the way through a file or a merge."""
    model = network().eval()

    def part(seed: int, *names: str) -> Recording:
        with bnprobe.attach(model) as probe, torch.no_grad():
            for name in names:
                with probe.phase(name):
                    model(batches(seed, 5)[0])
        return bnprobe.load(probe.recording.save(tmp_path / f"{seed}.bnp"))

    both = part(1, "train", "val").merge(part(2, "val", "test"))
    assert {name: one.about.n_images for name, one in both.phases.items()} == {
        "train": 5,
        "val": 10,
        "test": 5,
    }
    assert both.phases["val"].layers[0].n_images == 10
    assert repr(both).endswith("0 samples, phases train, val, test)")
    assert all(one.integrity is not None for one in both.phases.values())
    with pytest.raises(CannotMerge, match="Compare them instead"):
        both.phases["train"].merge(both.phases["val"])
    assert {one.layers[0].training_batch for one in both.with_training_batch(8).parts} == {8}


def test_the_report_has_a_page_for_each():
    """Fails if a report on phases has nothing to say, pools them, or does not lead to the others."""
    probe, train, val = epochs(network())
    report = bnprobe.report(probe)
    assert list(report.phases) == ["train", "val"]
    assert report.layers["n_images"].tolist() == [sum(map(len, train))] * 2
    assert report.phases["val"].layers["n_images"].tolist() == [sum(map(len, val))] * 2
    text = report.to_text(200)
    assert (
        "This page is about phase train. The other phases have pages of their own: report.phases['val']."
        in text
    )
    assert "16 samples in 4 forward passes" in text
    assert "Phases" not in report.phases["val"].to_text().split("Findings")[0]
    comparison = bnprobe.compare(probe.recording.phases["train"], probe.recording.phases["val"])
    assert len(comparison.layers) == 2


def test_what_runs_in_no_phase_is_the_recording_itself():
    """Fails if passes outside all blocks are lost, or land in the last phase."""
    model = network().eval()
    with bnprobe.attach(model) as probe, torch.no_grad():
        with probe.phase("val"):
            model(batches(1, 5)[0])
        model(batches(2, 3)[0])
    assert (probe.recording.about.n_images, probe.recording.phases["val"].about.n_images) == (3, 5)
    report = bnprobe.report(probe)
    assert report.layers["n_images"].tolist() == [3, 3]
    assert "This page is about what ran in no phase." in report.to_text(200)


def test_pooled_modes_are_named():
    """Fails if one probe over training and validation does not say that it pools them, or says so of phases."""
    model = network()
    with bnprobe.attach(model) as probe, torch.no_grad():
        model.train()(batches(1, 5)[0])
        model.eval()(batches(1, 5)[0])
        model.eval()(batches(1, 5)[0])
    (note,) = probe.recording.about.notes
    assert note.startswith("Passes in train mode (1 of 3) and in eval mode are pooled")
    probe, _, _ = epochs(network())
    assert not any(part.about.notes for part in probe.recording.parts)


def test_a_backward_pass_after_the_block_belongs_to_its_forward_pass():
    """Fails if gradients go to the phase that runs when they arrive, also those of a checkpointed part."""

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.norm, x, use_reentrant=True)

    for model in (network(), Checkpointed().double()):
        with bnprobe.attach(model) as probe:
            with probe.phase("real"):
                real = model(batches(1, 5)[0].requires_grad_())
            with probe.phase("fake"):
                fake = model(batches(2, 3)[0].requires_grad_())
                real.square().sum().backward()
            (3 * fake).sum().backward()
        n = {name: part.layers[-1].gradient.dy.n[0] for name, part in probe.recording.phases.items()}
        assert n == {"real": 5, "fake": 3}


def test_a_phase_is_that_of_its_thread():
    """Fails if a phase of one thread catches the passes of another."""
    model, x = network().eval(), batches(1, 5)[0]
    with bnprobe.attach(model) as probe, torch.no_grad(), probe.phase("val"):
        thread = threading.Thread(target=model, args=(x,))
        thread.start()
        thread.join()
        model(x)
    assert (probe.recording.about.n_images, probe.recording.phases["val"].about.n_images) == (5, 5)


@pytest.mark.parametrize("name", ["", " ", None, 3, ["val"]])
def test_a_phase_without_a_name_is_refused(name):
    """Fails if something that is no name becomes a phase that nobody can ask for."""
    with (
        bnprobe.attach(network()) as probe,
        pytest.raises(BnprobeError, match=r"such as probe.phase\('val'\)"),
        probe.phase(name),
    ):
        pytest.fail("the block was entered")


def test_a_phase_in_a_phase_is_refused_and_the_outer_one_goes_on():
    """Fails if a pass belongs to two phases, or what follows the refusal is in neither."""
    model, x = network().eval(), batches(1, 5)[0]
    with bnprobe.attach(model) as probe, torch.no_grad():
        with probe.phase("train"):
            with (
                pytest.raises(
                    BnprobeError, match=r"'val' begins inside phase 'train'\. End that block first"
                ),
                probe.phase("val"),
            ):
                pytest.fail("the block was entered")
            model(x)
        with pytest.raises(RuntimeError), probe.phase("train"):
            raise RuntimeError
        model(x)
    assert probe.recording.phases["train"].about.n_images == probe.recording.about.n_images == 5
    assert list(probe.recording.phases) == ["train"]


def test_a_recording_of_phases_says_where_they_are():
    """Fails if a comparison of two recordings that hold only phases says nothing of them."""
    probe, _, _ = epochs(network())
    with pytest.raises(BnprobeError, match=r"recording.phases\['train'\]"):
        bnprobe.compare(probe, probe)


def test_a_page_of_a_saved_phase_from_the_command_line(tmp_path, monkeypatch, capsys):
    """Fails if only the first phase of a file can be shown, or a misspelt one is not told."""
    monkeypatch.chdir(tmp_path)
    epochs(network())[0].recording.save("run.bnp")
    assert main(["report", "run.bnp", "--phase", "val", "-o", "val.html"]) == 0
    assert re.search(r">\s*phase\s*</\w+>\s*<\w+>\s*val\s*<", Path("val.html").read_text("utf-8"))
    assert main(["report", "run.bnp", "--phase", "test", "-o", "test.html"]) == 2
    assert "--phase: run.bnp has no phase 'test'. It has train, val." in capsys.readouterr().err
    assert main(["report", "resnet18", "--phase", "val", "-o", "test.html"]) == 2
    assert "--phase is for saved recordings" in capsys.readouterr().err
