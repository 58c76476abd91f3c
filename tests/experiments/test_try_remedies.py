"""Remedies on trial: what becomes of the finding, what else changes, and that the model is as it was."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.errors import BnprobeError, NothingRecorded
from bnprobe.experiments.try_remedies import _same_finding, try_remedies
from bnprobe.report.chapters.findings import findings_section
from bnprobe.report.page.blocks import Findings
from bnprobe.rules.tried import CHANGED, GONE, NOT_TRIED, REMAINS
from tests.experiments.test_snapshot import state

N = 48


class Net(nn.Module):
    """Trained by hand: two norms whose statistics fit images of mean 0 and std 1; fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(8, 4)
        self.fails_in = [-1]  # a list, as attributes are put back

    def forward(self, x: Tensor) -> Tensor:
        self.fails_in[0] -= 1
        if self.fails_in[0] == 0:
            raise RuntimeError("planted")
        x = F.relu(self.norm(self.conv(x)))
        return self.head(self.drop(F.relu(self.last(self.second(x)))).mean((2, 3)))


def images(n: int = N, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, 9, 9, generator=torch.Generator().manual_seed(seed))


def trained() -> Net:
    return deepcopy(_trained())


@cache
def _trained() -> Net:
    model = Net()
    for p in (model.norm.weight, model.last.weight):
        p.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    for p in (model.norm.bias, model.last.bias):
        p.data.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for norm in (model.norm, model.last):
            norm.momentum = None
        model.train()(images(256, 4))
        model.eval().head.bias -= model(images()).mean(0)
    for norm in (model.norm, model.last):
        norm.momentum = 0.1
        norm.num_batches_tracked.fill_(5000)
    return model


@cache
def labels() -> Tensor:
    return _trained()(images()).argmax(1)


def batches(x: Tensor | None = None) -> list[Any]:
    x = images() if x is None else x
    return [(x[i : i + 16], labels()[i : i + 16]) for i in range(0, N, 16)]


def reported(model: nn.Module, data: list[Any], **options: Any) -> Any:
    training = model.training
    report = bnprobe.report(bnprobe.record(model, data, **options))
    assert model.training == training
    return report


def tried_of(report: Any, rule: str) -> Any:
    findings = report.findings
    return next(iter(findings["tried"][findings["rule"] == rule]))


def test_a_cause_at_the_input_is_undone_and_its_worth_is_measured() -> None:
    """Fails if the inputs are not undone, if accuracy, agreement or the change are those of something else."""
    model = trained()
    norm = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in norm)
    data = batches(images() * std + mean)  # pixels that were not normalized
    report = reported(model, data, normalize=norm)
    returned = try_remedies(report, model, data)
    assert returned is report
    tried = tried_of(report, "input-not-as-trained")
    assert tried.fate == GONE
    assert tried.explains > 0.95
    with torch.no_grad():
        old, new = (torch.cat([model(x) for x, _ in d]).double() for d in (data, batches()))
    y = torch.cat([y for _, y in data])
    assert tried.n == N
    assert tried.metric == "accuracy"
    assert tried.before == pytest.approx((old.argmax(1) == y).double().mean().item())
    assert tried.after == 1
    assert tried.agreement == pytest.approx((old.argmax(1) == new.argmax(1)).double().mean().item())
    assert tried.largest_change == pytest.approx((new - old).abs().max().item(), rel=1e-4)
    assert tried.largest_relative == pytest.approx(
        ((new - old).norm(dim=1) / old.norm(dim=1)).max().item(), rel=1e-4
    )
    kl = (old.softmax(1) * (old.log_softmax(1) - new.log_softmax(1))).sum(1).mean().item()
    assert tried.kl == pytest.approx(kl, rel=1e-3)
    assert tried.low < tried.after - tried.before < tried.high
    assert str(tried).startswith("Tried: finding gone, and with it ")
    assert f"accuracy {100 * tried.before:.1f} → 100.0% (+" in str(tried)
    (shown,) = (b for b in findings_section(report.findings).blocks if isinstance(b, Findings))
    assert shown.cards[0].actions[0].tried == str(tried)


@pytest.mark.parametrize("left", [0.9**5, 0.9**8])
def test_the_rest_of_the_initial_statistics_is_taken_out_to_see_whether_it_is_the_cause(left: float) -> None:
    """Fails if young statistics are only made again, which mends whatever the cause was, or those of one norm are left."""
    model = trained()
    for norm in (model.norm, model.last):
        norm.num_batches_tracked.fill_(round(np.log(left) / np.log(0.9)))
        norm.running_mean.mul_(1 - left)
        norm.running_var.mul_(1 - left).add_(left)
    data = batches()
    findings = try_remedies(reported(model, data), model, data).findings
    tried = findings.loc[findings["rule"] == "statistics-young", "tried"]
    assert len(tried)
    assert {one.fate for one in tried} == {GONE}
    assert tried.iloc[0].explains > 0.99
    assert all(np.isnan(one.explains) for one in tried[1:])


def test_a_cause_that_is_not_the_cause_loses_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a name is kept although undoing it leaves the discrepancy."""
    from bnprobe.experiments import feeding
    from bnprobe.rules.edits import UndoMap

    model, norm = trained(), ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in norm)
    data = batches(images() * std + mean)
    report = reported(model, data, normalize=norm)
    monkeypatch.setitem(feeding._ACTS, UndoMap, lambda edit: lambda x: x)
    before = report.findings["says"].tolist()
    assert "most likely" in before[0]
    try_remedies(report, model, data)
    tried = tried_of(report, "input-not-as-trained")
    assert tried.fate == REMAINS
    assert tried.explains == pytest.approx(0, abs=1e-6)
    assert "most likely" not in report.findings["says"][0].partition(", for another reason")[0]
    assert report.findings["says"][0].endswith("undoing that does not help.")
    assert str(tried).startswith(
        "Tried: the finding remains, so this is not the cause; outputs stay, bit for bit"
    )


def test_larger_weights_with_gamma_corrected_leave_the_outputs() -> None:
    """Fails if the remedy for variances below eps changes what the network computes, or the change is not measured."""
    model = trained()
    for p in model.conv.parameters():
        p.data /= 1000
    model.norm.running_mean /= 1000
    model.norm.running_var /= 1e6
    data = batches()
    report = try_remedies(reported(model, data), model, data)
    tried = tried_of(report, "variance-below-eps")
    assert tried.fate == GONE
    assert tried.largest_relative < 1e-3
    assert "outputs change by at most 0.001%" in str(tried)


def test_another_eps_changes_outputs_and_it_is_said() -> None:
    model = trained()
    model.last.eps = 1e3
    data = batches()
    report = try_remedies(reported(model, data), model, data)
    tried = tried_of(report, "variance-below-eps")
    assert tried.fate == GONE
    assert tried.largest_relative > 0.1


def test_running_statistics_are_renewed_from_these_batches() -> None:
    model = trained()
    for norm in (model.norm, model.last):
        norm.reset_running_stats()
    data = batches()
    report = try_remedies(reported(model, data), model, data)
    rows = report.findings[report.findings["rule"] == "statistics-never-updated"]
    assert [one.fate for one in rows["tried"]] == [GONE, GONE]
    assert {one.together for one in rows["tried"]} == {2}


def test_eval_mode_is_tried_on_a_model_in_train_mode() -> None:
    """Fails if the model is run in eval mode whatever the remedy, so that nothing changes."""
    model = trained().train()
    data = batches()
    with torch.no_grad():
        report = reported(model, data)
    tried = tried_of(try_remedies(report, model, data), "batch-normalized")
    assert tried.fate == GONE
    assert 0 < tried.largest_change < 10
    assert model.training


@pytest.mark.parametrize("fails_in", [1, 2, 3, 4, 5, 8, 10, 13, 20])
@pytest.mark.parametrize("training", [False, True])
def test_a_failure_in_any_pass_leaves_no_trace(fails_in: int, training: bool) -> None:
    """Fails if anything of the model is not put back when a forward pass raises."""
    model = trained().train(training)
    model.norm.eps = 1e3
    data = batches(5 * images())
    report = reported(model, data)
    model.norm.weight.grad = torch.ones(8)
    model.fails_in[0] = fails_in
    before = state(model)
    # what fails with a remedy is said of that remedy; that the model as it is does not run is an error
    with pytest.raises(RuntimeError, match="planted") if fails_in <= 3 else nullcontext():
        try_remedies(report, model, data)
    assert state(model) == before


@pytest.mark.parametrize("at", [1, 4, 7])
def test_ctrl_c_leaves_no_trace(at: int) -> None:
    model = trained()
    model.norm.eps = 1e3
    data = batches()
    report = reported(model, data)
    calls = []

    def interrupt(module: nn.Module, inputs: Any) -> None:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt

    model.second.register_forward_pre_hook(interrupt)
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        try_remedies(report, model, data)
    assert state(model) == before


def test_what_fails_with_a_remedy_is_said_of_that_remedy() -> None:
    model = trained()
    model.norm.eps = 1e3
    data = batches()
    report = reported(model, data)
    model.fails_in[0] = 4
    try_remedies(report, model, data)
    assert "Not tried: with it the model fails (RuntimeError: planted)." in map(str, report.findings["tried"])


def test_a_report_without_findings(capsys: pytest.CaptureFixture[str]) -> None:
    model = trained()
    data = batches(images(N, 4))
    report = reported(model, data)
    report.__dict__["findings"] = report.findings[:0]
    try_remedies(report, model, data)
    assert capsys.readouterr().err == "bnprobe: nothing to try: the report has no findings.\n"


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"batches": []}, NothingRecorded, "Pass at least one batch"),
        ({"batches": iter([images()])}, BnprobeError, "runs out after one use, and 2 passes.*Pass a list"),
        ({"metric": lambda y, t: y.mean()}, BnprobeError, "one number per sample.*got"),
        (
            {"metric": lambda y, t: y[:, 0] * float("nan")},
            BnprobeError,
            "returned nan.*Return a finite number",
        ),
        ({"metric": lambda y, t: t.nothing}, BnprobeError, "metric <lambda> failed on a batch"),
        ({"metric": 3}, BnprobeError, "metric must be a function"),
        (
            {"model": nn.Sequential(nn.BatchNorm2d(3))},
            BnprobeError,
            "another model.*'norm' is no module.*Record this",
        ),
        ({"model": "resnet18"}, BnprobeError, "needs a torch.nn.Module, got str"),
        ({"report": "run.bnp"}, BnprobeError, "needs a report of one recording, got str.*bnprobe.report"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_the_model_stays(
    changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    model = trained()
    model.norm.eps = 1e3
    data = batches()
    arguments = {"report": reported(model, data), "model": model, "batches": data, "metric": None, **changes}
    before = state(model)
    with pytest.raises(error, match=says) as raised:
        try_remedies(**arguments)
    assert "\n" not in str(raised.value)
    assert state(model) == before


def test_a_model_of_the_same_names_with_other_norms_is_another_model() -> None:
    """Fails if a report is tried on a network of which only the names are the same."""
    model, other = trained(), trained()
    other.norm, other.conv, other.second = nn.BatchNorm2d(6), nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
    model.norm.eps = 1e3
    data = batches()
    with pytest.raises(BnprobeError, match=r"another model \(Net\): norm has 6 channels here and 8 there"):
        try_remedies(reported(model, data), other.eval(), data)


def test_a_model_on_two_devices_needs_to_be_told_how() -> None:
    model = trained()
    model.norm.eps = 1e3
    data = batches()
    report = reported(model, data)
    model.head = model.head.to("meta")
    with pytest.raises(BnprobeError, match=r"2 devices \(cpu, meta\).*Pass call="):
        try_remedies(report, model, data)


def test_a_finding_that_these_batches_do_not_show_is_not_said_to_be_gone() -> None:
    """Fails if samples on which nothing is wrong are taken for a remedy that works."""
    model, data = trained(), batches()
    model.last.running_mean += 5
    report = reported(model, data)
    assert "data-shifted" in set(report.findings["rule"])
    model.last.running_mean -= 5
    tried = tried_of(try_remedies(report, model, data), "data-shifted")
    assert tried.fate == NOT_TRIED
    assert "does not show on these batches" in str(tried)


def test_findings_about_gradients_need_a_loss() -> None:
    model = trained()
    model.head.requires_grad_(True)
    model.last.weight.data *= 1e-9
    model.last.bias.data.fill_(-5)
    data = batches()
    report = reported(model, data, loss=F.cross_entropy)
    assert "gradient-no-signal" in set(report.findings["rule"])
    assert "pass loss=" in str(tried_of(try_remedies(report, model, data), "gradient-no-signal"))
    before = state(model)
    with_loss = tried_of(try_remedies(report, model, data, loss=F.cross_entropy), "gradient-no-signal")
    assert with_loss.fate in (GONE, CHANGED, REMAINS, NOT_TRIED)
    assert "pass loss=" not in str(with_loss)
    assert state(model) == before


def test_a_function_runs_batches_that_the_model_does_not_take() -> None:
    model = trained()
    model.norm.eps = 1e3
    report = reported(model, batches())
    named = [{"image": x, "label": y} for x, y in batches()]
    tried = tried_of(
        try_remedies(report, model, named, call=lambda m, batch: m(batch["image"])), "variance-below-eps"
    )
    assert tried.fate == GONE
    assert tried.metric == ""
    assert np.isnan(tried.before)


def test_the_record_is_part_of_json_and_of_tables(tmp_path: Any) -> None:
    """Fails if a column of objects keeps findings from being written."""
    model = trained()
    model.norm.eps = 1e3
    data = batches()
    report = try_remedies(reported(model, data), model, data)
    assert '"fate": "gone"' in report.to_json()
    (path,) = [p for p in report.save_tables(tmp_path) if "findings" in p.name]
    assert "Tried: finding gone" in path.read_text(encoding="utf-8")


def test_a_finding_is_known_by_its_words_among_others_at_its_place() -> None:
    """Fails if of two findings of a rule at one norm the other is taken for what is left."""
    found = pd.DataFrame(
        {"rule": "r", "layer": ["bn", "bn", "other"], "call": 0, "says": ["first", "second", "third"]},
        index=[4, 6, 8],
    )
    assert [_same_finding(row, found) for _, row in found.iterrows()] == [4, 6, 8]
    assert _same_finding(found.iloc[0].replace("first", "reworded"), found) == 4
    assert _same_finding(found.iloc[0].replace("bn", "nowhere"), found) is None
