"""Initial values, counts of updates and copies: each rule fires on its fault, is silent beside it, and needs no data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from measures.sites import call_log, memory_of, recording, site, some_rows
from torch import nn

import bnprobe
from bnprobe.checkpoints.records import without_calls
from bnprobe.measures import tables
from bnprobe.recording.terms import MISFIT
from bnprobe.rules import judge
from rules.edited import edited, evidence, findings, healthy
from rules.firing import fired
from rules.stored import ROWS, STATISTICS, at, stored


def test_a_healthy_norm_is_silent_without_data():
    """Fails if a rule takes a missing statistic for a bad one."""
    assert len(judge(tables(recording(stored("a"), stored("b", ROWS * 3))))) == 0


def test_an_affine_that_never_moved_is_told_from_a_new_layer():
    """Fails if a frozen affine is missed, or an untrained network is blamed."""
    assert fired("affine-untrained", stored(gamma=1, beta=0))["severity"].tolist() == ["warning"]
    assert fired("affine-untrained", stored(gamma=1, beta=0, running_mean=0, running_var=1)).empty
    fresh = without_calls(site(ROWS, "ln", "layer_norm", gamma=1, beta=0))
    assert fired("affine-untrained", fresh)["severity"].tolist() == ["info"]
    assert fired("affine-untrained", fresh, stored())["severity"].tolist() == ["warning"]
    assert fired("affine-untrained", stored(gamma=at(1.001, 1, 0), beta=0)).empty
    first_batches = stored(gamma=1, beta=0, n_batches_tracked=5)
    assert fired("affine-untrained", first_batches)["severity"].tolist() == ["info"]
    # beside a norm that has learned, it is left behind and not new
    assert fired("affine-untrained", first_batches, stored("b"))["severity"].tolist() == ["warning"]
    assert fired("affine-untrained", stored(gamma=None, beta=None)).empty


def test_a_norm_without_scale_is_a_note_where_no_norm_has_one():
    """Fails if a library without scale is blamed, or one frozen gamma among trained ones is not."""
    assert fired("affine-untrained", stored(gamma=1))["severity"].tolist() == ["info"]
    both = fired("affine-untrained", stored("a", gamma=1), stored("b", ROWS * 2))
    assert both[["layer", "severity"]].to_numpy().tolist() == [["a", "warning"]]


def test_counters_that_differ():
    """Fails if twice as many are not distinguished from a few fewer, or the usual count is an average."""
    layers = [
        stored(name, ROWS * k, n_batches_tracked=n)
        for name, k, n in (("a", 1, 40), ("b", 2, 40), ("c", 3, 80), ("d", 4, 7))
    ]
    found = fired("batches-differ", *layers)
    assert found[["layer", "severity"]].to_numpy().tolist() == [["c", "warning"], ["d", "info"]]
    assert "2 times as many" in found["because"].iloc[0]
    assert fired("batches-differ", *layers[:2]).empty
    assert fired("batches-differ", stored("x", n_batches_tracked=None), layers[0]).empty


def test_an_instance_norm_is_not_counted():
    """Fails if a count that torch never touches is held against those of batch norms."""

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.BatchNorm2d(8),
    )
    for _ in range(20):
        model(torch.randn(8, 3, 12, 12))
    assert model[3].num_batches_tracked == 0
    assert not torch.equal(model[3].running_mean, torch.zeros(8))
    report = bnprobe.report(bnprobe.record(model.eval(), [(torch.randn(16, 3, 12, 12), None)]))
    assert "batches-differ" not in set(report.findings["rule"])


def test_counters_of_norms_that_were_new_when_training_began_are_compared():
    """Fails if counters are left out because the running statistics were initial before the recording."""
    new = {
        "running_mean": 0,
        "running_var": 1,
        "call_log": call_log(running_mean_after=STATISTICS["running_mean"]),
    }
    layers = [stored(name, **new, n_batches_tracked=n) for name, n in (("a", 40), ("b", 40), ("c", 80))]
    assert fired("batches-differ", *layers)["layer"].tolist() == ["c"]


def test_copies_that_went_their_own_ways_are_left_alone():
    """Fails if γ and β of the end are compared under running statistics from before the recording."""
    after = call_log(running_mean_after=STATISTICS["running_mean"] + 1)
    assert fired(
        "statistics-alike", stored("a", call_log=after), stored("b", gamma=1.4, call_log=after)
    ).empty


def test_copied_and_even_statistics():
    """Fails if a copy of another layer's buffers is missed, or one module under two names is blamed."""
    copied = fired("statistics-alike", stored("a"), stored("b", gamma=1.4))
    assert copied["layer"].tolist() == ["b"]
    assert "those of a" in copied["because"].iloc[0]
    assert fired("statistics-alike", stored("a"), stored("same module")).empty
    assert fired("statistics-alike", stored(running_var=3.0))["severity"].tolist() == ["warning"]
    assert fired("statistics-alike", stored(running_mean=0, running_var=1)).empty


@pytest.mark.parametrize(
    ("changes", "of"),
    [
        ({"running_mean": 0.0}, "mean, which"),
        ({"running_var": 0.0}, "variance, which"),
        ({"running_mean": 0.0, "running_var": 2.0}, "mean and variance"),
    ],
)
def test_one_mean_or_one_variance_for_all_channels(changes: dict[str, float], of: str) -> None:
    """Fails if means that were set to 0 pass for those of data, as only variances were looked at."""
    (row,) = fired("statistics-alike", stored(**changes)).itertuples()
    assert f"the same running {of}" in row.says


@pytest.mark.parametrize(
    ("learned", "severity"), [(1e-3, "info"), (0.3, "warning")], ids=["just begun", "trained"]
)
def test_a_norm_that_lags_in_the_first_steps_is_no_warning(learned, severity):
    """Fails if a norm whose γ has not moved yet is blamed while those of the others moved by a thousandth."""
    rows = some_rows()
    other = site(rows, "a", "layer_norm", gamma=1 + learned, beta=learned)
    found = fired("affine-untrained", other, site(rows, "b", "layer_norm", gamma=1, beta=0))
    assert found["severity"].tolist() == [severity]


def counted(*counts: float, **row: Any) -> list[tuple[str, str]]:
    """Layer and severity of what is said of norms with these counts."""
    base = evidence(*(healthy(f"n{i}") for i in range(len(counts))))
    for i, n in enumerate(counts):
        base = edited(base, at=i, n_batches_tracked=n, **row)
    return [(one.layer, one.severity) for one in findings("batches-differ", base)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((40, 40, 40), []),
        ((40, 40, 80), [("n2", "warning")]),
        ((40, 40, 120), [("n2", "warning")]),
        ((40, 40, 60), [("n2", "info")]),
        ((40, 40, 0), [("n2", "info")]),
        ((1, 1, 2), [("n2", "warning")]),
        ((2, 2, 1), [("n2", "info")]),
        ((0, 0, 40), [("n2", "info")]),
        ((40, 80), [("n1", "warning")]),
        ((80, 80, 40), [("n2", "info")]),
        ((40, math.nan, 40), []),
        ((40, math.nan, 80), [("n2", "warning")]),
    ],
)
def test_norms_that_were_updated_more_or_less_often(
    counts: tuple[float, ...], expected: list[tuple[str, str]]
) -> None:
    """Fails if a norm that was never counted is several times the others, or the rarer of two counts is not usual."""
    assert counted(*counts) == expected


def test_counts_of_instance_norms_and_later_calls_are_no_counts() -> None:
    """Fails if a buffer that torch leaves at 0, or the same buffer at a second call, is compared."""
    assert counted(40, 40, 80, kind="instance_norm") == []
    both = evidence(healthy("a"), healthy("a", call=1))
    assert findings("batches-differ", edited(both, at=1, n_batches_tracked=80)) == []


def untrained(
    cells: dict[str, Any], other: dict[str, Any] | None = None, **row: Any
) -> list[tuple[str, str, str]]:
    """Layer, severity and first words of what is said of a norm with these vectors beside another."""
    base = evidence(healthy("a"), healthy("b"))
    base = edited(edited(base, cells, **row), other or {}, at=1)
    return [(one.layer, one.severity, one.says) for one in findings("affine-untrained", base)]


NEVER, SCALE = "γ and β never left their initial values.", "γ never left its initial value, while β did."
CREATED = "This norm is untrained: nothing was learned."
NEW = {"running_mean": math.nan, "running_var": math.nan}
ONES, ZEROS = {"gamma": 1.0, "beta": 0.0}, {"gamma": 0.0, "beta": 0.0}


@pytest.mark.parametrize(
    ("cells", "other", "expected"),
    [
        ({}, {}, []),
        (ONES, {}, [("a", "warning", NEVER)]),
        (ZEROS, {}, [("a", "warning", NEVER)]),
        ({**ONES, **NEW}, {}, [("a", "warning", NEVER)]),
        ({**ONES, **NEW}, {**ONES, **NEW}, [("", "info", "Every norm is untrained: nothing was learned.")]),
        ({"gamma": 1.0, "beta": math.nan, **NEW}, {}, [("a", "warning", NEVER)]),
        ({"gamma": 1.0, "beta": 0.5}, {}, [("a", "warning", SCALE)]),
        ({"gamma": 1.0, "beta": 0.5}, {"gamma": 1.0, "beta": 0.5}, [(n, "info", SCALE) for n in "ab"]),
        ({"gamma": [1.0, 1.0, 0.0]}, {}, []),
        ({"gamma": 2.0, "beta": 0.0}, {}, []),
        ({"gamma": math.nan, "beta": math.nan}, {}, []),
        ({"gamma": [1.0, 1.0, math.nan], "beta": 0.0}, {}, []),
    ],
)  # fmt: skip
def test_vectors_at_their_initial_values(
    cells: dict[str, Any], other: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    """Fails if training elsewhere is not seen, a start at 0 is no start, or a single channel makes a layer untrained."""
    assert untrained(cells, other) == expected


def test_a_branch_that_starts_at_zero_is_told_by_another_rule() -> None:
    """Fails if γ of 0 behind a skip connection is called untrained, or γ of 1 is not."""
    assert untrained(ZEROS, skip="bn0") == []
    assert [one[2] for one in untrained(ONES, skip="bn0")] == [NEVER]


@pytest.mark.parametrize(("n_calls", "told"), [(0, True), (1, False), (2, False)])
def test_a_layer_that_was_never_called_may_not_be_used(n_calls: int, told: bool) -> None:
    """Fails if a layer that ran is suspected not to, or one of a file is not."""
    base = evidence(healthy("a"), healthy("b"))
    (one,) = findings("affine-untrained", edited(base, ONES, n_calls=n_calls))
    assert ("the layer is called at all" in one.do) is told


def test_updated_statistics_make_an_untrained_layer_a_finding() -> None:
    """Fails if a network of initial vectors whose statistics moved, in mean or in variance, counts as new."""
    start = {"running_mean": 0.0, "running_var": 1.0}
    for moved in ({"running_mean": [0.0, 0.1, 0.0]}, {"running_var": [1.0, 1.0, 1.1]}):
        found = untrained({**ONES, **start, **moved}, {**ONES, **start})
        assert found == [("a", "warning", NEVER)]


def alike(cells: dict[str, Any], other: dict[str, Any] | None = None, **row: Any) -> list[str]:
    rows = some_rows(20, n_channels=4)
    fields = {"gamma": [1.0, 2, 3, 4], "beta": 0.1, **memory_of(rows)}
    base = evidence(
        site(rows, "a", **fields),
        site(rows + 1, "b", **{**fields, "gamma": 1.5, "running_var": [1.0, 2, 3, 4]}),
    )
    base = edited(edited(base, cells, **row), other or {}, at=1)
    return [one.layer for one in findings("statistics-alike", base)]


def test_one_variance_for_all_channels() -> None:
    """Fails if two equal variances are enough, or one that was never updated is called a copy."""
    assert alike({}) == []
    assert alike({"running_var": 2.0}) == ["a"]
    assert alike({"running_var": [2.0, 2.0, 2.0, 3.0]}) == []
    assert alike({"running_var": [2.0, 2.0, 2.0, math.nan]}) == []
    assert alike({"running_var": 1.0, "running_mean": 0.0}) == []
    assert alike({"running_var": 2.0}, memory_moved=0.1) == []


def test_statistics_of_another_layer() -> None:
    """Fails if a norm that shares its weights too is a copy, or means alone make one."""
    same = {"running_mean": [1.0, 2, 3, 4], "running_var": [2.0, 3, 4, 5]}
    assert alike(same, same) == ["b"]
    assert alike(same, {**same, "gamma": [1.0, 2, 3, 4]}) == []
    assert alike(same, {"running_mean": [1.0, 2, 3, 4]}) == []
    assert alike(same, {**same, "running_mean": [1.0, 2, 3, 4.5]}) == []


def called(
    counts: tuple[float, ...], calls: tuple[int, ...], names: Sequence[str] = "abcd"
) -> list[tuple[str, str]]:
    """Layer and severity of what is said of norms with these counts, called as often as that."""
    base = evidence(*(healthy(name) for name in names))
    for i, (n, n_calls) in enumerate(zip(counts, calls, strict=True)):
        base = edited(base, at=i, n_batches_tracked=n, n_calls=n_calls)
    return [(one.layer, one.severity) for one in findings("batches-differ", base)]


def test_a_norm_that_is_called_as_much_more_often_is_only_noted() -> None:
    """Fails if a discriminator that runs twice per step is a warning, or calls that do not explain the count excuse it."""
    assert called((40, 40, 80, 40), (5, 5, 10, 5)) == [("c", "info")]
    assert called((40, 40, 120, 40), (5, 5, 10, 5)) == [("c", "warning")]
    assert called((40, 40, 80, 40), (5, 5, 5, 5)) == [("c", "warning")]


def test_without_calls_a_part_that_was_updated_as_a_whole_is_only_noted() -> None:
    """Fails if the file of a network of two parts, each with its own count, is a warning, or a single norm counts as a
    part."""
    uncalled = (0, 0, 0, 0)
    whole = ["d.1", "d.2", "g.1", "g.2"]
    assert called((80, 80, 40, 40), uncalled, whole) == [("d.1", "info"), ("d.2", "info")]
    # one norm of the part, one in each of several, and a part beside others that differ among themselves
    assert called((80, 40, 40, 40), uncalled, whole) == [("d.1", "warning")]
    assert called((40, 40, 40, 80), uncalled) == [("d", "warning")]
    assert called((80, 40, 40, 40), uncalled, ["d.1", "g.1", "g.2", "g.3"]) == [("d.1", "warning")]
    mixed = ["d.1", "d.2", "g.1", "g.2", "g.3", "g.4"]
    assert ("d.1", "warning") in called((80, 80, 40, 40, 40, 60), (0,) * 6, mixed)


def test_norms_that_take_turns_on_one_input_have_the_same_statistics() -> None:
    """Fails if norms of several widths, which saw the very same input, are taken for copies, or a file excuses a copy."""
    same = {"running_mean": [1.0, 2, 3, 4], "running_var": [2.0, 3, 4, 5], "pre_mean": 1.0, "pre_var": 2.0}
    assert alike(same, same) == []
    assert alike(same, {**same, "pre_var": 2.1}) == ["b"]
    rows = evidence(healthy("a"), healthy("b", gamma=1.5))
    assert findings("statistics-alike", rows) == []
    uncalled = edited(edited(rows, n_calls=0), at=1, n_calls=0)
    assert [one.layer for one in findings("statistics-alike", uncalled)] == []


UPDATED, OTHERS = ", while the running statistics were updated.", ", while other norms were trained."
BARE = {**NEW, "beta": math.nan}


@pytest.mark.parametrize(
    ("cells", "other", "row", "because", "do"),
    [
        (ONES, {}, {}, f"γ is exactly 1 and β exactly 0 in all 3 channels{UPDATED}", "changes results: `n = model"),
        (ZEROS, {}, {}, f"γ is exactly 0 and β exactly 0 in all 3 channels{UPDATED}", "they are in the optimizer"),
        ({**ONES, **NEW}, {}, {}, f"γ is exactly 1 and β exactly 0 in all 3 channels{OTHERS}", "One step"),
        ({**ONES, **BARE}, {}, {}, f"γ is exactly 1 and β missing in all 3 channels{OTHERS}", "One step"),
        ({**ONES, **BARE}, {**ONES, **BARE}, {}, "γ is exactly 1 and β missing in all 3 channels.", "if there are any."),
        ({**ONES, **NEW}, {**ONES, **NEW}, {}, "γ is exactly 1 and β exactly 0 in all 3 channels.", "if there are any."),
        (
            {**ONES, **NEW},
            {**ONES, **NEW},
            {"parameter_dtype": "bfloat16"},
            "γ is exactly 1 and β exactly 0 in all 3 channels.",
            "near 1 the next number of bfloat16 is 0.0078 away, and smaller updates are rounded away",
        ),
        (
            {**ZEROS, **NEW},
            {**ZEROS, **NEW},
            {"parameter_dtype": "bfloat16"},
            "γ is exactly 0 and β exactly 0 in all 3 channels.",
            "if there are any.",
        ),
        (
            {"gamma": 1.0, "beta": 0.5},
            {},
            {},
            "γ is exactly 1 in all 3 channels, while other norms have learned theirs.",
            "Otherwise let it learn. One step",
        ),
        (
            {"gamma": 1.0, "beta": 0.5},
            {"gamma": 1.0, "beta": 0.5},
            {},
            "γ is exactly 1 in all 3 channels, as in every norm of this model.",
            "Otherwise let it learn. One step",
        ),
        (
            ONES,
            ONES,
            {"initial_weight": 0.1, "n_batches_tracked": 21},
            "γ is exactly 1 in all 3 channels after 21 batches.",
            "Nothing, in the first batches of training.",
        ),
        (
            ONES,
            ONES,
            {"initial_weight": 0.0999},
            f"γ is exactly 1 and β exactly 0 in all 3 channels{UPDATED}",
            "One step",
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_vectors_at_their_initial_values(
    cells: dict[str, Any], other: dict[str, Any], row: dict[str, Any], because: str, do: str
) -> None:
    """Fails if the numbers, what shows that there was training, or the advice are those of another case."""
    base = edited(edited(evidence(healthy("a"), healthy("b")), cells, **row), other, at=1)
    one = findings("affine-untrained", base)[0]
    assert one.because.endswith(because)
    assert do in one.do
    assert ("smaller updates are rounded away" in one.do) == ("bfloat16 is" in do)


@pytest.mark.parametrize(
    ("counts", "says", "because", "edited_too"),
    [
        (
            (40, 40, 80),
            "several times for each update",
            "is 80, and 40 in most norms, 2 times as many.",
            True,
        ),
        ((40, 40, 60), "more often than the others.", "is 60, and 40 in most norms.", False),
        ((40, 40, 7), "less often than the others.", "is 7, and 40 in most norms.", False),
        ((0, 0, 40), "more often than the others.", "is 40, and 0 in most norms.", False),
        ((1000, 1000, 0), "less often than the others.", "is 0, and 1,000 in most norms.", False),
    ],
)
def test_what_is_said_of_counts_that_differ(
    counts: tuple[float, ...], says: str, because: str, edited_too: bool
) -> None:
    """Fails if more and less are exchanged, a number is wrong, or statistics are made anew where that mends nothing."""
    base = evidence(*(healthy(f"n{i}") for i in range(len(counts))))
    for i, n in enumerate(counts):
        base = edited(base, at=i, n_batches_tracked=n)
    (one,) = findings("batches-differ", base)
    assert says in one.says
    assert one.because == f"num_batches_tracked {because}"
    assert (one.remedy is not None) is edited_too
    assert ("re-estimate the running statistics" in one.do) is edited_too


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((40, 40, 80, 80), ["n2", "n3"]),
        ((0, 0, 40, 40), ["n0", "n1"]),
        ((1, 1, 2, 2), ["n2", "n3"]),
        ((0, 0, 1, 1), ["n0", "n1"]),
    ],
)
def test_of_two_counts_that_are_as_frequent_the_smaller_above_zero_is_usual(
    counts: tuple[float, ...], expected: list[str]
) -> None:
    """Fails if the larger of two counts is usual, or one of 0 beside a smaller one that is not."""
    assert [layer for layer, _ in counted(*counts)] == expected


def test_three_channels_may_have_one_variance() -> None:
    """Fails if as few channels as agree by chance of rounding are blamed, or a second call is told again."""
    base = evidence(healthy("a"))
    assert findings("statistics-alike", edited(base, {"running_var": 2.0})) == []
    means = [0.5, 0.6, 0.7, 0.8]
    rows = some_rows(20, n_channels=4)
    both = [
        site(rows, "a", call=call, gamma=1.5, beta=0.1, running_mean=means, running_var=2.0)
        for call in (0, 1)
    ]
    (one,) = findings("statistics-alike", evidence(*both))
    assert (one.call, one.because) == (0, "running_var is 2 in all 4 channels.")


def test_a_norm_of_one_channel_may_be_untrained() -> None:
    """Fails if a second channel is asked for."""
    rows = some_rows(20, n_channels=1)
    one = site(rows, "a", gamma=1.0, beta=0.0, **memory_of(rows))
    (found,) = findings("affine-untrained", evidence(one, healthy("b")))
    assert (found.layer, found.says) == ("a", NEVER)


@pytest.mark.parametrize(
    ("n_calls", "means_fit", "severity"),
    [
        (0, math.nan, "info"),
        (0, MISFIT, "info"),
        (0, np.nextafter(MISFIT, 0), "warning"),
        (9, math.nan, "warning"),
    ],
)
def test_two_heads_of_a_file_may_take_one_input(n_calls: int, means_fit: float, severity: str) -> None:
    """Fails if the two heads of a distilled LeViT are said to have copied buffers, or copied ones are right in any file."""
    base = evidence(stored("a"), stored("b", gamma=1.4))
    seen = edited(base, {"pre_mean": 7.0}, at=1, n_calls=n_calls, means_fit=means_fit)
    (one,) = findings("statistics-alike", seen)
    assert (one.layer, one.severity) == ("b", severity)
    assert ("two heads" in one.do) == (severity == "info")
