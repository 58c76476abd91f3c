"""Every k-th pass, until enough were recorded: which passes those are, and what is said of the others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from recording.test_recording import assert_same_recordings
from support.models import BY_NAME, C
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import bnprobe
from bnprobe.report.chapters import provenance
from probe.test_parallel import _replica
from probe.test_passes import assert_same

CASE = BY_NAME["mixed"]
BATCHES = CASE.batches((3, 2, 5, 4, 1, 6, 2, 7))


def recorded(batches: list[Tensor], backward: bool = False, **options: object) -> bnprobe.Recording:
    model = CASE.model()
    with bnprobe.attach(model, **options) as probe:
        for x in batches:
            y = model(x)
            if backward:
                y.square().sum().backward()
    return probe.recording


def uncounted(recording: bnprobe.Recording) -> bnprobe.Recording:
    """Without the number of updates, which is not that of the recorded passes where others ran."""
    layers = [replace(one, call_log=replace(one.call_log, n_updates=None)) for one in recording.layers]
    return replace(recording, layers=tuple(layers))


@pytest.mark.parametrize(
    ("every", "until", "chosen"),
    [
        (1, None, [0, 1, 2, 3, 4, 5, 6, 7]),
        (3, None, [0, 3, 6]),
        (8, None, [0]),
        (1, 3, [0, 1, 2]),
        (3, 2, [0, 3]),
        (2, 9, [0, 2, 4, 6]),
    ],
)
@pytest.mark.parametrize("histograms", [True, False])
def test_the_recording_is_that_of_the_chosen_passes(
    every: int, until: int | None, chosen: list[int], histograms: bool
):
    """Fails if another pass is recorded, one of them is not, or a skipped one is not counted as such."""
    found = recorded(BATCHES, True, every=every, until=until, histograms=histograms)
    expected = recorded([BATCHES[i] for i in chosen], True, histograms=histograms)
    assert_same_recordings(uncounted(found), uncounted(expected), 1e-15)
    about = found.about
    assert (about.n_forwards, about.n_skipped) == (len(chosen), len(BATCHES) - len(chosen))
    assert about.n_images == sum(len(BATCHES[i]) for i in chosen)
    assert not any("outside" in note for note in about.notes)
    assert any("asks" in note for note in about.notes) == (until in (2, 3))


def test_record_runs_the_chosen_batches_only():
    """Fails if batches that nobody reads are run, or one more is asked for after the last."""
    calls, model = [], CASE.model()
    model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))

    def endless() -> Iterator[Tensor]:
        yield from BATCHES[:5]
        raise AssertionError("one batch too many")

    found = bnprobe.record(model, endless(), every=2, until=3)
    assert calls == [len(BATCHES[i]) for i in (0, 2, 4)]
    assert (found.about.n_forwards, found.about.n_skipped, found.about.n_images) == (3, 0, sum(calls))
    with pytest.raises(bnprobe.BnprobeError, match="every=0 is not a whole number from 1"):
        bnprobe.record(model, endless(), every=0)


def test_what_was_skipped_is_said_everywhere(tmp_path: Path):
    """Fails if a reader of the recording, the probe, the page or the file takes the numbers for those of all passes."""
    model = CASE.model()
    with bnprobe.attach(model, every=3, until=2) as probe:
        for x in BATCHES[:5]:
            model(x)
        assert repr(probe).endswith("2 of 5 forward passes, no more are recorded)")
    assert repr(probe).endswith("2 of 5 forward passes)")
    loaded = bnprobe.load(probe.recording.save(tmp_path / "a.bnp"))
    assert loaded.about == probe.recording.about
    assert repr(loaded).endswith("2 of 5 forward passes)")
    assert dict(provenance.facts(loaded))["measured on"].endswith("in 2 of 5 forward passes")
    assert dict(provenance.provenance(loaded))["note"].startswith(
        "Recording ended after 2 forward passes, as until=2 asks"
    )
    twice = loaded.merge(loaded)
    assert (twice.about.n_forwards, twice.about.n_skipped) == (4, 6)


def test_each_phase_takes_turns_by_itself():
    """Fails if of two phases that alternate one is never recorded, or one ends the other."""
    model = CASE.model()
    with bnprobe.attach(model, every=2, until=2) as probe:
        for x in BATCHES:
            for name, part in (("whole", x), ("first", x[:1])):
                with probe.phase(name):
                    model(part)
    whole, first = (probe.recording.phases[name].about for name in ("whole", "first"))
    assert [(one.n_forwards, one.n_skipped) for one in (whole, first)] == [(2, 6), (2, 6)]
    assert (whole.n_images, first.n_images) == (len(BATCHES[0]) + len(BATCHES[2]), 2)
    assert sum("as until=2 asks" in note for one in (whole, first) for note in one.notes) == 2


def test_masks_belong_to_recorded_passes():
    """Fails if positions of skipped passes are counted, or a mask of one stays for the next."""
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)).eval()
    masks = [torch.arange(5) < n for n in (2, 3, 4, 5)]
    with bnprobe.attach(model, every=2) as probe:
        for mask in masks:
            with probe.mask(mask[None]):
                model(torch.randn(1, 5, 4))
    about = probe.recording.about
    assert (about.n_positions, about.n_masked) == (2 + 4, 3 + 1)
    np.testing.assert_array_equal(probe.recording.layers[0].pre.n, 6)


def test_a_failed_pass_gives_its_turn_back():
    """Fails if a batch that ran out of memory, and is tried again, costs the recording its turn."""
    model = CASE.model()
    with bnprobe.attach(model, every=4, until=2) as probe:
        for x in BATCHES:
            with pytest.raises(RuntimeError):
                model(torch.ones(2, 77, 3, 3))
            model(x)
    assert probe.n_images == len(BATCHES[0]) + len(BATCHES[4])
    assert (probe.recording.about.n_forwards, probe.recording.about.n_skipped) == (2, 6)


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = (nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)) for _ in "ab")
        self.norm = nn.LayerNorm(6)


def test_parts_and_norms_called_alone_take_turns_by_themselves():
    """Fails if of two parts that alternate one is never recorded, or a norm called alone is counted by another's turn."""
    model = TwoParts().eval()
    with bnprobe.attach(model, every=2, until=2) as probe:
        for _ in range(6):
            model.norm(model.decoder(model.encoder(torch.randn(3, 6))))
    assert [record.n_calls for record in probe.recording.layers] == [2, 2, 2]
    assert not any("directly" in note for note in probe.recording.about.notes)
    assert probe.recording.about.n_skipped == 4


def test_replicas_in_threads_are_passes_of_the_model():
    """Fails if each replica, which is a new module at every step, counts from 0."""
    bare = CASE.model()
    start = Barrier(4)

    def together(replica: nn.Module) -> None:
        start.wait()
        replica(BATCHES[0])

    with bnprobe.attach(nn.DataParallel(bare), every=4) as probe, ThreadPoolExecutor(4) as threads:
        for _ in range(2):
            list(threads.map(together, [_replica(bare) for _ in range(4)]))
    about = probe.recording.about
    assert (about.n_forwards, about.n_skipped) == (2, 6)
    assert not any("outside" in note for note in about.notes)


class TwoPasses(nn.Module):
    """A model whose checkpointed norm is recomputed after other passes have run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.norm, self.first(x), use_reentrant=True)


def test_one_backward_pass_over_recorded_and_skipped_passes():
    """Fails if what a checkpoint reruns of a skipped pass, here first, is taken for the recorded one."""
    torch.manual_seed(0)
    model = TwoPasses().double().eval()
    other = copy.deepcopy(model)
    # a re-entrant checkpoint passes gradients on only where its input asks for them
    batches = [torch.randn(n, C, 4, 4, dtype=torch.float64, requires_grad=True) for n in (2, 5, 3)]
    with bnprobe.attach(model, every=2) as probe:
        sum(model(x).square().sum() * (i + 1) for i, x in enumerate(batches)).backward()
    with bnprobe.attach(other) as alone:
        sum(other(x).square().sum() * (i + 1) for i, x in enumerate(batches) if i != 1).backward()
    assert_same(probe.recording, alone.recording)
    assert probe.recording.layers[0].gradient.n_passes == 2


def trains(model: nn.Module, steps: str, **options: object) -> bnprobe.Recording:
    """A step per letter: of training, with an update of the weights, or of evaluation."""
    optimizer, batches = torch.optim.SGD(model.parameters(), 0.1), torch.randn(len(steps), 4, C, 5, 5)
    with bnprobe.attach(model.eval(), **options) as probe:
        for step, x in zip(steps, batches, strict=True):
            model.train(step == "t")
            loss = model(x).square().mean()
            if step == "t":
                loss.backward()
                optimizer.step()
        model.eval()
    return probe.recording


def test_what_skipped_passes_did_is_nobodys_fault():
    """Fails if the training of skipped passes is taken for a change that nothing explains, for learning in eval mode, or for
    updates beyond the recorded calls."""
    model = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C))
    found = trains(model, "etetet", every=2)
    assert [change.what for change in found.integrity.unexplained] == ["parameters"], "by the optimizer"
    (record,) = found.layers
    assert (record.n_calls, record.n_calls_training) == (3, 0)
    assert (record.call_log.n_learned_in_eval, record.call_log.n_updates) == (0, None)
    assert "updated-twice" not in set(bnprobe.report(trains(model, "tttttt", every=3)).findings["rule"])


def test_learning_in_eval_is_seen_between_passes():
    """Fails if the fault is not seen any more where passes are skipped, all of them in eval mode."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C)).eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with bnprobe.attach(model, every=2) as probe:
        for _ in range(6):
            model(torch.randn(4, C, 5, 5)).square().mean().backward()
            optimizer.step()
    assert probe.recording.layers[0].call_log.n_learned_in_eval == 2
    assert "learning-in-eval" in set(bnprobe.report(probe).findings["rule"])


class Cache:
    """What language models pass from call to call."""

    def __init__(self) -> None:
        self.length = 0

    def get_seq_length(self) -> int:
        return self.length


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)

    def forward(self, input_ids: Tensor, past_key_values: Cache) -> Tensor:
        past_key_values.length += input_ids.shape[1]
        return self.norm(self.embed(input_ids))


def test_sequences_are_recorded_whole():
    """Fails if of a generated sequence every third token is recorded, or tokens of a sequence whose beginning was not."""
    model = Decoder().eval()
    with bnprobe.attach(model, every=3) as probe:
        for _ in range(4):
            cache = Cache()
            for length in (5, 1, 1):
                model(input_ids=torch.randint(9, (2, length)), past_key_values=cache)
    about = probe.recording.about
    assert (about.n_images, about.n_forwards, about.n_skipped) == (4, 6, 6)
    assert probe.recording.layers[0].tokens.n_tokens == 2 * 2 * 7


def test_hooks_return_at_once_in_a_skipped_pass(monkeypatch: pytest.MonkeyPatch):
    """Fails if a skipped pass costs anything per norm, be it a function or a module."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(C)

        def forward(self, x: Tensor) -> Tensor:
            return F.group_norm(self.bn(x), 1)

    model = Both().eval()
    with bnprobe.attach(model, every=2) as probe:
        model(torch.randn(2, C, 4, 4))
        for name in ("before", "after", "aside"):
            monkeypatch.setattr(probe._forward, name, None)
        model(torch.randn(2, C, 4, 4))
    assert probe.recording.about.n_skipped == 1
