"""Rules about samples in groups: stored statistics of an instance norm, and batches that hold one class each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.measures import causes, tables
from bnprobe.rules.causes import cause_of, upstream
from bnprobe.rules.rule import Evidence
from bnprobe.rules.thresholds import Limits
from rules.edited import edited, evidence, findings, healthy


def images(n: int, apart: float) -> torch.Tensor:
    """Images whose means lie `apart` times as far apart as their pixels."""
    return torch.randn(n, 3, 12, 12) + apart * torch.randn(n, 3, 1, 1)


def instance_net(track: bool, apart: float) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.InstanceNorm2d(3, affine=True, track_running_stats=track), nn.ReLU())
    for _ in range(60):
        model(images(16, apart))
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("track", "apart", "fires"), [(True, 1.0, 1), (True, 0.1, 0), (False, 1.0, 0)])
def test_an_instance_norm_that_stores_statistics(track, apart, fires, training):
    """Fails if stored statistics of samples that differ are not reported, or harmless ones are, or as other data."""
    model = instance_net(track, apart).train(training)
    report = bnprobe.report(bnprobe.record(model, [images(16, apart) for _ in range(4)]))
    findings = report.findings
    assert (findings["rule"] == "instance-norm-stored").sum() == fires
    assert not set(findings["rule"]) & {"data-shifted", "input-not-as-trained"}


def test_taking_the_statistics_off_an_instance_norm_makes_both_modes_one():
    """Fails if the line in the finding does not run, or eval mode still is another function."""
    model = instance_net(True, 1.0)
    x = images(8, 1.0)
    expected = model.train()(x).detach()
    findings = bnprobe.report(bnprobe.record(model.eval(), [x])).findings
    (do,) = findings.loc[findings["rule"] == "instance-norm-stored", "do"]
    assert not torch.allclose(model.eval()(x), expected, atol=0.1)
    exec(do.split("`")[1], {"model": model})
    torch.testing.assert_close(model.eval()(x), expected)


def recorded(labels: list[list[int]], training: bool = True) -> list[str]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(800, 4)).train(
        training
    )
    batches: list[Any] = [
        (images(len(y), 0.2) + torch.tensor(y)[:, None, None, None], torch.tensor(y)) for y in labels
    ]
    report = bnprobe.report(bnprobe.record(model, batches, loss=nn.functional.cross_entropy))
    return [rule for rule in report.findings["rule"] if rule == "batches-of-one-class"]


SORTED = [[c] * 8 for c in (0, 0, 1, 1, 2, 2, 3, 3)]
MIXED = np.random.default_rng(0).integers(0, 4, (8, 8)).tolist()


@pytest.mark.parametrize(
    ("labels", "training", "fires"),
    [
        (SORTED, True, 1),
        (MIXED, True, 0),
        (SORTED, False, 0),
        ([[1] * 8] * 8, True, 0),
        (SORTED[:3], True, 0),
        ([*SORTED[:6], *MIXED[:2]], True, 0),
    ],
    ids=["sorted", "mixed", "sorted in eval", "one class in all", "three batches", "partly"],
)
def test_batches_of_one_class(labels, training, fires):
    """Fails if an unshuffled folder in train mode is not named, or one that is only evaluated is."""
    assert len(recorded(labels, training)) == fires


@pytest.mark.parametrize(("place", "named"), [(0, True), (2, False)])
def test_dropout_before_a_norm_is_named(place, named):
    """Fails if the variance that dropout adds in training is called other data, or dropout after the norm is blamed."""
    torch.manual_seed(0)
    layers = [nn.Linear(20, 32, bias=False), nn.BatchNorm1d(32)]
    layers.insert(place, nn.Dropout(0.5))
    model = nn.Sequential(*layers).train()
    for _ in range(200):
        model(torch.randn(64, 20) + 1.5)
    findings = bnprobe.report(
        bnprobe.record(model.eval(), [torch.randn(64, 20) + 1.5 for _ in range(4)])
    ).findings
    said = findings.loc[findings["rule"] == "data-shifted", ["says", "because"]]
    assert len(said) == named
    if named:
        assert "the dropout before this norm (0, p = 0.5)" in said["says"].iloc[0]
        assert "explains" in said["because"].iloc[0]


@pytest.mark.parametrize("before", [nn.Dropout(0.5), nn.Dropout2d(0.6), nn.Dropout(0.1)], ids=str)
def test_dropout_directly_before_a_norm_is_named(before: nn.Module) -> None:
    """Fails if running variances of dropped values are taken for those of other images."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(16, momentum=None)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), before, norm, nn.ReLU())
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.constant_(model[0].bias, 0.7)
    batches = [torch.randn(64, 3, 8, 8) for _ in range(120)]
    with torch.no_grad():
        for x in batches:
            model(x)
    found = bnprobe.report(bnprobe.record(model.eval(), batches[:6])).findings
    shifted = found[(found["rule"] == "data-shifted") & (found["severity"] == "warning")]
    if before.p < 0.3:  # which changes variances by less than the limit
        assert shifted.empty
        return
    (says,) = shifted["says"]
    assert f"the dropout before this norm (2, p = {before.p})" in says


@pytest.mark.parametrize("p", [0.5, 0.0])
def test_what_dropout_changes_is_passed_on(p):
    """Fails if a norm further on is not told of the dropout where it began, or of one that drops nothing."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(20, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Dropout(p), nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()]
    model = nn.Sequential(*layers).train()
    for _ in range(200):
        model(torch.randn(64, 20))
    recording = bnprobe.record(model.eval(), [torch.randn(64, 20) for _ in range(6)])
    row = bnprobe.report(recording).layers.iloc[-1]
    measured = tables(recording)
    text = upstream(Evidence.of(measured), row)
    assert ("off in eval mode" in text) == bool(p)
    assert text.startswith(" At layer 5 dropout explains" if p else "")
    assert upstream(Evidence.of(measured), measured.layers.iloc[0]) == ""


@pytest.mark.parametrize("cause", ["groups", "one group", "dropout"])
@pytest.mark.parametrize(("discrepancy", "speaks"), [(0.3, False), (np.nextafter(0.3, 1), True)])
def test_statistics_that_do_not_know_of_groups_are_told_earlier(cause, discrepancy, speaks):
    """Fails if groups that explain no more than 0.3 are reported, or below the thresholds of a shift another cause is, or
    a mean that lies elsewhere, which weights that moved on explain as well."""
    row: dict[str, Any] = {
        "layer": "bn",
        "call": 0,
        "cause": cause,
        "certain": True,
        "explains": 0.95,
        "next_best": 0.5,
    }
    found = pd.DataFrame([{**row, "facts": {"names": "drop", "p": 0.5}}])
    small = replace(edited(evidence(), discrepancy=discrepancy), causes=found)
    assert len(findings("data-shifted", small)) == (speaks and cause == "groups")


@pytest.mark.parametrize(("limit", "fires"), [(0.5, 0), (np.nextafter(0.5, 0), 1)])
def test_how_far_samples_lie_apart(limit: float, fires: int):
    """Fails if the limit itself is too much: a variance of 2.5 over one of 2 within samples leaves half of it."""
    cells = {"running_var": 2.0, "scale_ratio": 1.0, "pre_var": 2.5}
    found = edited(evidence(limits=Limits(samples_apart=limit)), cells, kind="instance_norm", eps=0.0)
    assert len(findings("instance-norm-stored", found)) == fires


@pytest.mark.parametrize(("n_others", "named"), [(0, True), (1, True), (2, False)])
def test_groups_are_named_where_most_norms_that_do_not_match_show_them(n_others: int, named: bool):
    """Fails if one norm of several, whose shift looks like that of groups, has other data called groups of samples."""
    sites = evidence(*(healthy(name) for name in ["bn", *(f"other{i}" for i in range(n_others))]))
    row = {
        "layer": "bn",
        "call": 0,
        "cause": "one group",
        "certain": True,
        "explains": 0.95,
        "next_best": 0.5,
    }
    layers = sites.layers.assign(discrepancy=0.9, shift_rms=0.9, shifted_share=1.0)
    judged = replace(sites, layers=layers, causes=pd.DataFrame([{**row, "facts": {}}]))
    found = [one for one in findings("data-shifted", judged) if "one group" in one.says]
    assert bool(found) == named


def test_a_cause_is_that_of_its_own_norm_and_call():
    """Fails if the cause of another norm, or of another call of the same, is named, or one that is not certain."""
    told = {"explains": 0.95, "next_best": 0.5, "cause": "young", "facts": {}}
    rows = [
        {"layer": "a", "call": 0, "certain": False, **told},
        {"layer": "a", "call": 1, "certain": True, **told},
        {"layer": "b", "call": 0, "certain": True, **told},
    ]
    found = replace(evidence(), causes=pd.DataFrame(rows))
    assert cause_of(found, pd.Series({"layer": "a", "call": 0})) is None
    for layer, call in (("a", 1), ("b", 0)):
        cause = cause_of(found, pd.Series({"layer": layer, "call": call}))
        assert cause is not None
        assert (cause["layer"], cause["call"]) == (layer, call)
    assert cause_of(found, pd.Series({"layer": "b", "call": 1})) is None
    assert cause_of(evidence(), pd.Series({"layer": "b", "call": 0})) is None


def alike(batches: list[torch.Tensor], learns: bool = False, labels: list[int] | None = None) -> pd.DataFrame:
    """What samples-alike finds where a small network in eval mode, or one that learns, is given these batches."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).train(learns)
    step = torch.optim.SGD(model.parameters(), lr=0.5)
    with bnprobe.attach(model, gradients=False) as probe:
        for i, x in enumerate(batches):
            with torch.set_grad_enabled(learns):
                if labels is None:
                    y = model(x)
                else:
                    with probe.labels(torch.full((len(x),), labels[i])):
                        y = model(x)
            if learns:
                (y.mean() - i).square().backward()
                step.step()
    found = bnprobe.report(probe).findings
    return found[found["rule"] == "samples-alike"]


@pytest.mark.parametrize(
    ("labels", "by", "severities"),
    [([3] * 4, 2.0, ["warning"]), ([3] * 4, 0.0, ["info"]), ([0, 0, 1, 1], 2.0, []), ([3, -1], 2.0, [])],
)
def test_data_of_one_class_are_named(labels, by, severities):
    """Fails if a folder in its order, cut short, is judged as the data: the shift of one class is taken for one of all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.ReLU())
    model(torch.randn(400, 3, 6, 6))
    with bnprobe.attach(model.eval()) as probe:
        for label in labels:
            with probe.labels([label] * 20):
                model(torch.randn(20, 3, 6, 6) + by)
    found = bnprobe.report(probe).findings
    found = found[found["says"].str.startswith("All samples are of one class")]
    assert found["severity"].tolist() == severities
    assert set(found["rule"]) <= {"samples-alike"}


def places(n: int) -> torch.Tensor:
    """n photos of places of their own, of equal contrast."""
    return torch.randn(n, 3, 1, 1) + torch.randn(n, 3, 8, 8)


def test_copies_side_by_side_are_reported_and_shuffled_samples_are_not():
    """Fails if 300 samples of 30 photos are taken for 300 photos, or the repaired data or other photos are accused."""
    torch.manual_seed(1)
    copies = places(30).repeat_interleave(10, dim=0) + 0.05 * torch.randn(300, 3, 8, 8)
    (says,) = alike(list(copies.split(20)))["says"]
    worth = float(says.split("worth about ")[1].split()[0])
    assert 20 <= worth <= 60
    assert says.startswith("Samples of one batch are alike: 300 samples")
    assert alike(list(copies[torch.randperm(300)].split(20))).empty
    assert alike(list(copies[::10].split(2))).empty
    assert alike(list(places(300).split(20))).empty


def test_what_the_errors_do_about_it_is_told():
    """Fails if errors are said to allow for copies where folds are too few, or the reverse, or copies allowed for warn."""
    torch.manual_seed(1)
    copies = places(30).repeat_interleave(10, dim=0)
    (row,) = alike(list(copies.split(20))).itertuples()
    assert row.because.endswith("Standard errors allow for that.")
    assert row.severity == "info"
    (row,) = alike(list(copies.split(60))).itertuples()
    assert row.because.endswith("Standard errors do not allow for that: batches are too few.")
    assert row.severity == "warning"


def test_data_in_order_are_reported_unless_labels_show_every_class():
    """Fails if a folder in its order passes for shuffled, or one whose labels are known is accused of copies."""
    torch.manual_seed(1)
    classes = [4 * torch.randn(1, 3, 1, 1) + places(40) for _ in range(5)]
    batches = [part for one in classes for part in one.split(20)]
    (found,) = alike(batches)["do"]
    assert "shuffle=True" in found
    mixed = torch.cat(classes)[torch.randperm(200)]
    assert alike(list(mixed.split(20))).empty
    assert alike(batches, labels=[i // 2 for i in range(10)]).empty


def test_batches_that_differ_because_weights_move_are_no_copies():
    """Fails if a model that learns is said to see copies: its own weights make its batches differ."""
    torch.manual_seed(1)
    x = torch.randn(200, 3, 8, 8)
    assert alike(list(x.split(20)), learns=True).empty
    assert alike(list(x.split(20))).empty
    for learning, mode, fires in ((9, "train", 0), (9, "eval", 1), (0, "train", 1)):
        seen = edited(evidence(), batch_effect_least=9.0, n_calls_learning=learning, mode=mode)
        assert len(findings("samples-alike", seen)) == fires, (learning, mode)


@pytest.mark.parametrize("batch", [2, 4, 10, 50])
def test_chance_is_not_reported(batch):
    """Fails if small or few batches of photos of their own are reported: 40 networks each."""
    torch.manual_seed(2)
    for _ in range(40):
        x = places(max(100, 2 * batch)) ** 3
        assert alike(list(x.split(batch))).empty


@pytest.mark.parametrize(
    ("row", "apart", "told"),
    [
        ({}, 0.5, True),
        ({}, 0.301, True),
        ({}, 0.299, False),
        ({"kind": "batch_norm"}, 0.5, False),
        ({"call": 1}, 0.5, False),
        ({"normalized_by": "sample"}, 0.5, True),
        ({"normalized_by": "both"}, 0.5, True),
    ],
)
def test_what_is_said_of_stored_instance_norms(row: dict[str, Any], apart: float, told: bool):
    """Fails if the distance is not √(all / within − 1) of the typical channel, or eps stands on one side alone."""
    eps, var = 0.5, 1.5
    # within a sample 4 times what is stored with eps: 2² (1.5 + 0.5) = 8
    all_of = 8 * (1 + apart**2)
    cells = {"scale_ratio": 2.0, "running_var": var, "pre_var": [all_of, 0.1, 99 * all_of]}
    base = edited(evidence(), cells, eps=eps, **{"kind": "instance_norm", "normalized_by": "running", **row})
    found = findings("instance-norm-stored", base)
    assert len(found) == told
    for one in found:
        assert (
            f"the means of samples are {apart:.2g} times as far apart as values within a sample"
            in one.because
        )
        in_use = row.get("normalized_by") != "sample"
        assert one.says.endswith(" by stored ones, and the samples differ.") is in_use
    bare = edited(base, {"running_var": np.nan})
    assert findings("instance-norm-stored", bare) == []


LABELED = {"n_calls_labeled": 10.0, "n_calls_one_class": 9.0, "n_classes": 2.0, "normalized_by": "batch"}


@pytest.mark.parametrize(
    ("row", "because"),
    [
        (
            {},
            "9 batches of 10 with labels had a single class, of 2 classes in all; 1 batch norm normalized with such "
            "batches.",
        ),
        ({"n_calls_one_class": 8.9}, None),
        ({"n_calls_labeled": 4.0, "n_calls_one_class": 4.0}, "4 batches of 4 with labels"),
        ({"n_calls_labeled": 3.0, "n_calls_one_class": 3.0}, None),
        ({"n_classes": 1.0}, None),
        ({"n_calls_labeled": np.nan}, None),
        ({"normalized_by": "both"}, "9 batches of 10"),
        ({"normalized_by": "running"}, None),
        ({"kind": "instance_norm"}, None),
    ],
)
def test_batches_of_one_class_at_their_limits(row: dict[str, Any], because: str | None):
    """Fails if nine of ten are too few or fewer enough, or one class in all makes batches of one."""
    found = findings("batches-of-one-class", edited(evidence(), **{**LABELED, **row}))
    assert len(found) == (because is not None)
    for one in found:
        assert one.because.startswith(str(because))


ORDERED = {
    "n_calls_labeled": 11.0,
    "n_calls_one_class": 1.0,
    "n_calls_in_order": 9.0,
    "n_classes": 5.0,
    "n_images": 44,
    "normalized_by": "batch",
}


@pytest.mark.parametrize(
    ("row", "because"),
    [
        (
            {},
            "9 batches of 11 with labels had no class that comes before the last of the batch before, of 5 classes in all; "
            "1 batch norm normalized with such batches.",
        ),
        ({"n_calls_in_order": 8.9}, None),
        ({"n_calls_labeled": 5.0, "n_calls_in_order": 4.0}, "4 batches of 5"),
        ({"n_calls_labeled": 4.0, "n_calls_in_order": 3.0}, None),
        ({"n_images": 43}, None),
        ({"n_classes": 1.0}, None),
        ({"n_calls_in_order": np.nan}, None),
        ({"normalized_by": "running"}, None),
        ({"n_calls_one_class": 10.0}, "10 batches of 11 with labels had a single class"),
    ],
)
def test_batches_in_the_order_of_classes_at_their_limits(row: dict[str, Any], because: str | None):
    """Fails if nine of ten steps are too few or fewer enough, or small batches, which are in order by chance, are told."""
    found = findings("batches-of-one-class", edited(evidence(), **{**ORDERED, **row}))
    assert len(found) == (because is not None)
    for one in found:
        assert one.because.startswith(str(because))


@pytest.mark.parametrize(("batch", "in_order"), [(20, True), (50, True), (20, False)])
def test_a_folder_that_is_read_in_order_while_training(batch: int, in_order: bool):
    """Fails if batches of two or three classes each, one after the other, are no order, or shuffled ones are."""
    torch.manual_seed(0)
    y = torch.arange(10).repeat_interleave(33)  # classes end within batches
    order = torch.arange(len(y)) if in_order else torch.randperm(len(y))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    with bnprobe.attach(model) as probe:
        for at in order.split(batch):
            with probe.labels(y[at]):
                model(torch.randn(len(at), 3, 6, 6))
    report = bnprobe.report(probe)
    n_batches = -(-len(y) // batch)
    steps = sum(
        bool(after.min() >= before.max())
        for before, after in zip(y[order].split(batch)[:-1], y[order].split(batch)[1:], strict=True)
    )
    assert report.layers["n_calls_in_order"].tolist() == [steps]
    told = report.findings[report.findings["rule"] == "batches-of-one-class"]
    assert len(told) == in_order
    if in_order:
        assert steps == n_batches - 1
        assert told["says"].iloc[0].startswith("Batches come in the order of their classes")


ALIKE = {
    "batch_effect_least": 3.0,
    "batch_effect": 5.0,
    "n_effective": 8.0,
    "n_images": 40,
    "n_calls": 4,
    "error_from": "folds",
    "n_calls_learning": 0,
    "mode": "eval",
}


@pytest.mark.parametrize(
    ("rows", "layer", "severity"),
    [
        ([ALIKE], "a", "info"),
        ([{**ALIKE, "error_from": "samples"}], "a", "warning"),
        ([ALIKE, {**ALIKE, "batch_effect_least": 4.0, "error_from": "samples"}], "b", "warning"),
        ([{**ALIKE, "n_calls_learning": 1, "mode": "train"}], None, None),
        ([{**ALIKE, "n_calls_learning": 1}], "a", "info"),
        ([{**ALIKE, "mode": "train"}], "a", "info"),
        ([{**ALIKE, "n_calls_learning": 1, "mode": "mixed"}], None, None),
    ],
)
def test_samples_of_a_batch_that_are_alike(
    rows: list[dict[str, Any]], layer: str | None, severity: str | None
):
    """Fails if weights that move are told as data, or the least of several is named."""
    base = evidence(*map(healthy, "ab"[: len(rows)]))
    for i, row in enumerate(rows):
        base = edited(base, at=i, **row)
    found = findings("samples-alike", base)
    assert [(one.layer, one.severity) for one in found] == ([(layer, severity)] if layer else [])
    for one in found:
        assert "40 samples are worth about 8 independent ones." in one.says
        assert one.because.startswith("the means of 4 batches have 5 times the variance")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    ).eval()


@pytest.mark.parametrize(
    ("order", "different"),
    [
        ([0] * 6, 1),
        ([0, 1, 2] * 2, 3),
        ([0, 0, 1, 2, 3, 4], 5),
        (range(6), None),
        ([0] * 45, 1),
        (range(45), None),
    ],
)
def test_batches_that_are_given_again(order: list[int], different: int | None) -> None:
    """Fails if copies of a batch pass for more samples, or batches that differ for copies."""
    batches = [torch.randn(20, 3, 6, 6) for _ in range(max(order) + 1)]
    report = bnprobe.report(bnprobe.record(network(), [batches[i] for i in order]))
    found = report.findings[report.findings["says"].str.contains("recorded more than once")]
    assert len(found) == (different is not None)
    if different is not None:
        assert f"of {len(order)} batches only {different} " in found["says"].iloc[0]
        assert found["severity"].tolist() == ["info"]
        # mean and error of a channel's shift are those of each batch once, weighed alike where all are repeated as often
        if order in ([0] * 6, [0] * 45, [0, 1, 2] * 2):
            once = bnprobe.report(bnprobe.record(network(), batches))
            np.testing.assert_allclose(report.channels["shift"], once.channels["shift"], rtol=1e-5)
            np.testing.assert_allclose(report.channels["shift_se"], once.channels["shift_se"], rtol=0.03)


def test_what_no_sample_changes_is_no_copy() -> None:
    """Fails if a norm of learned queries, which are the same in each batch, speaks of repeated samples."""

    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries, self.norm = nn.Parameter(torch.randn(5, 8)), nn.LayerNorm(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.queries.expand(len(x), 5, 8)) + x

    torch.manual_seed(0)
    report = bnprobe.report(bnprobe.record(Queries(), [torch.randn(20, 5, 8) for _ in range(6)]))
    assert not report.findings["says"].str.contains("recorded more than once").any()


def sound(n: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Four pitches with their overtones, at loudnesses of their own, (n, 1, 400)."""
    y = torch.randint(0, 4, (n,))
    pitch = (0.025 + 0.058 * y) * (1 + 0.02 * torch.randn(n))
    time, phase = torch.arange(400.0), torch.rand(n, 3)
    x = sum(
        torch.sin(2 * torch.pi * (k * pitch[:, None] * time + phase[:, k - 1, None])) / k for k in (1, 2, 3)
    )
    return (x * (1 + 0.3 * torch.randn(n, 1)) + 0.05 * torch.randn(n, 400))[:, None], y


def test_sound_that_is_prepared_otherwise_is_not_one_group():
    """Fails if another rate, length, filter or curve before the first norm, which moves the means of each channel in a
    direction of its own, is put down to running statistics of one group of samples."""
    torch.manual_seed(11)
    layers: list[nn.Module] = []
    for n_in, kernel in ((1, 16), (16, 3), (16, 3)):
        layers += [
            nn.Conv1d(n_in, 16, kernel, 1 + 3 * (n_in == 1), kernel // 2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
        ]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        x, y = sound()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    data = [sound()[0] for _ in range(4)]
    for change in (
        lambda x: x[..., ::2],
        lambda x: nn.functional.interpolate(x, scale_factor=1.3, mode="linear"),
        lambda x: nn.functional.avg_pool1d(x, 5, 1, 2),
        lambda x: x.sign() * x.abs() ** 2,
        lambda x: x**3,
    ):
        found = causes.table(bnprobe.record(model, map(change, data)))
        assert "one group" not in set(found["cause"])
