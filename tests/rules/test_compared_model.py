"""Two sides as wholes: what is said of changes in common, of trainings apart, and of tensors beside the norms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from measures.sites import recording

import bnprobe
from bnprobe.rules.compared_model import _renamed
from bnprobe.rules.rule import Evidence
from rules.edited import compared, edited, findings, healthy

Row = tuple[str, str, str, str, float, float]
"""Name, side, shapes and sizes of a tensor."""


def tensors(*rows: Row) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["tensor", "side", "shape_a", "shape_b", "size_a", "size_b"])


def both(name: str, a: float = 1.0, b: float = 1.0, shapes: tuple[str, str] = ("3", "3")) -> Row:
    return (name, "both", *shapes, a, b)


def of(*rows: Row, **changes: Any) -> Evidence:
    return replace(compared(), tensors=tensors(*rows), **changes)


NAN = float("nan")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], []),
        (
            [both("m.w", 1, 1.5)],
            [("info", "One tensor beside the norms differs.", "m.w (root mean square 1 in A, 1.5 in B).")],
        ),
        (
            [both("m.w", 1, 10)],
            [
                (
                    "warning",
                    "One tensor beside the norms differs in size by a factor of 10 or more.",
                    "m.w (root mean square 1 in A, 10 in B).",
                )
            ],
        ),
        ([both("m.w", 10, 1)], [("warning", None, "m.w (root mean square 10 in A, 1 in B).")]),
        ([both("m.w", 1, 9.99)], [("info", None, "m.w (root mean square 1 in A, 9.99 in B).")]),
        ([both("m.bias", 1, 10)], [("info", None, "m.bias (root mean square 1 in A, 10 in B).")]),
        (
            [both("m.w", 1, 99, ("3", "4"))],
            [("warning", "One tensor beside the norms has another shape.", "m.w (3 in A, 4 in B).")],
        ),
        (
            [both("a", 1, 2), both("b", 1, 20), both("c", 1, 1, ("3", "4")), both("d", 1, 0.25)],
            [
                ("warning", "One tensor beside the norms has another shape.", "c (3 in A, 4 in B)."),
                ("warning", "One tensor beside the norms differs in size by a factor of 10 or more.", None),
                (
                    "info",
                    "2 tensors beside the norms differ.",
                    "d (root mean square 1 in A, 0.25 in B); a (root mean square 1 in A, 2 in B).",
                ),
            ],
        ),
        (
            [both(name, 1, 1 + i) for i, name in enumerate("abcdef", 1)],
            [
                (
                    "info",
                    "6 tensors beside the norms differ.",
                    "; ".join(
                        f"{name} (root mean square 1 in A, {n} in B)"
                        for name, n in zip("fedc", (7, 6, 5, 4), strict=True)
                    )
                    + "; and 2 more.",
                )
            ],
        ),
        (
            [both("zero", 0, 5), both("a", 1, 2), both("nothing", 0, 0), both("b", NAN, 1)],
            [
                ("warning", None, "zero (root mean square 0 in A, 5 in B)."),
                (
                    "info",
                    None,
                    "a (root mean square 1 in A, 2 in B); nothing (root mean square 0 in A, 0 in B); b (root mean "
                    "square nan in "
                    "A, 1 in B).",
                ),
            ],
        ),
        (
            [both(name, 1, 2, ("3", "4")) for name in "ab"],
            [("warning", "2 tensors beside the norms have another shape.", None)],
        ),
        ([("a", "A", "3", "", 1, NAN)], []),
    ],
)
def test_tensors_that_differ(rows: list[Row], told: list[tuple[str, str | None, str | None]]) -> None:
    """Fails if a factor of ten is a note, a bias that began at 0 a warning, or the tensors named are not the farthest."""
    found = findings("tensors-differ", of(*rows))
    assert [one.severity for one in found] == [severity for severity, _, _ in told]
    for one, (_, says, because) in zip(found, told, strict=True):
        assert says in (None, one.says)
        assert because in (None, one.because)
        assert one.do.startswith(
            "Training moves all" if one.severity == "warning" else "Nothing, if B was trained"
        )


@pytest.mark.parametrize(("widths", "severity"), [((3, 4), "info"), ((3, 3), "warning"), ((3,), "warning")])
def test_weights_around_a_pruned_norm_have_another_shape(widths: tuple[int, ...], severity: str) -> None:
    """Fails if pruning is called a wrong load, or a norm that one side lacks explains another shape elsewhere."""
    unread = pd.DataFrame(
        [("bn2", 0, n, side, "") for n, side in zip(widths, "AB", strict=False)],
        columns=["layer", "call", "n_channels", "side", "why"],
    )
    (one,) = findings("tensors-differ", of(both("m.w", 1, 1, ("3", "4")), unread=unread))
    assert one.severity == severity


def test_tensors_that_jump_while_the_norms_train_are_a_note() -> None:
    """Fails if weights are called lost where γ or β moved too, or not where both stayed."""
    jump = of(both("m.w", 1, 100))
    for name in ("gamma_b", "beta_b"):
        assert [
            one.severity for one in findings("tensors-differ", edited(jump, {name: [5.0, 6.0, 7.0]}))
        ] == ["info"]
    assert findings("tensors-differ", replace(jump, apart={"γ": 0.1})) == []


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], []),
        ([both("m.w")], []),
        (
            [("m.gamma", "A", "3", "", 1, NAN), ("m.weight", "B", "", "3", NAN, 1)],
            [("warning", "other names: “gamma” in A, “weight” in B.", "1: m.gamma and m.weight.")],
        ),
        (
            [("m.gamma", "A", "3", "", 1, NAN), ("m.weight", "B", "", "4", NAN, 1)],
            [("info", "Only A has some", "1: m.gamma."), ("info", "Only B has some", "1: m.weight.")],
        ),
        (
            [("m.gamma", "A", "3", "", 1, NAN), ("n.weight", "B", "", "3", NAN, 1)],
            [("info", "Only A has some", "1: m.gamma."), ("info", "Only B has some", "1: n.weight.")],
        ),
        (
            [(f"{m}.g", "A", "3", "", 1, NAN) for m in "abcde"] + [(f"{m}.w", "B", "", "3", NAN, 1) for m in "abcde"],
            [("warning", "“g” in A, “w” in B.", "5: a.g and a.w; b.g and b.w; c.g and c.w; d.g and d.w; and 1 more.")],
        ),
        (
            [(f"{m}.g", "A", "3", "", 1, NAN) for m in "abcd"] + [(f"{m}.w", "B", "", "3", NAN, 1) for m in "abcd"],
            [("warning", "“g” in A, “w” in B.", "4: a.g and a.w; b.g and b.w; c.g and c.w; d.g and d.w.")],
        ),
        (
            [(f"m{i}.w", "B", "", "3", NAN, 1) for i in range(5)],
            [("info", "Only B has some", "5: m0.w, m1.w, m2.w, m3.w and 1 more.")],
        ),
    ],
)  # fmt: skip
def test_tensors_without_a_counterpart(rows: list[Row], told: list[tuple[str, str, str]]) -> None:
    """Fails if a new name is not seen as one, tensors of other shapes or modules are paired, or sides are exchanged."""
    found = findings("tensors-unmatched", of(*rows))
    assert [(one.severity, one.because) for one in found] == [
        (severity, because) for severity, _, because in told
    ]
    for one, (_, says, _) in zip(found, told, strict=True):
        assert says in one.says


def in_blocks() -> Evidence:
    """Two norms of three channels, in blocks."""
    one = recording(healthy("m.norm"), healthy("n.norm"))
    comparison = bnprobe.compare(one, one)
    return Evidence(comparison.layers, comparison.channels, comparison.unmatched)


@pytest.mark.parametrize(
    ("rows", "lost"),
    [
        ([("m.g", "A", "3", "", 1, NAN)], ["m.g"]),
        ([("m.ls.g", "A", "3×1×1", "", 1, NAN), ("n.g", "A", "3", "", 1, NAN)], ["m.ls.g", "n.g"]),
        ([("m.g", "B", "", "3", NAN, 1)], ["m.g"]),
        ([("m.ls.deep.g", "A", "3", "", 1, NAN)], []),
        ([("g", "A", "3", "", 1, NAN)], []),
        ([("m.inv_freq", "A", "4", "", 1, NAN)], []),
        ([("m.w", "A", "3×3", "", 1, NAN)], []),
        ([("m.fc.bias", "A", "3", "", 1, NAN)], []),
        ([("m.g", "A", "3", "", 1, NAN), both("m.fc.weight", 1, 0.1)], []),
        ([("m.weight_g", "A", "3", "", 1, NAN), ("m.weight", "B", "", "3×3", NAN, 1)], []),
    ],
    ids=["beside", "in a part", "in B", "too deep", "of the whole", "another width", "a matrix", "a bias", "taken in",
         "replaced"],
)  # fmt: skip
def test_scales_of_branches_that_one_side_lacks(rows: list[Row], lost: list[str]) -> None:
    """Fails if a layer scale that was dropped is a note, or whatever else one side lacks is called a scale."""
    found = findings("tensors-unmatched", replace(in_blocks(), tensors=tensors(*rows)))
    of_scales = [one for one in found if one.severity == "warning"]
    assert [one.because for one in of_scales] == ([f"{len(lost)}: {', '.join(lost)}."] if lost else [])
    moved = edited(replace(in_blocks(), tensors=tensors(*rows)), {"gamma_b": [5.0, 6.0, 7.0]})
    assert {one.severity for one in findings("tensors-unmatched", moved)} == {"info"}


@pytest.mark.parametrize(
    ("rows", "severities"),
    [
        ([both("m.g", 0.2, 1), both("n.g", 0.2, 1)], ["warning"]),
        ([both("m.g", 0.2, 1), both("n.fc.weight", 0.2, 0.3, ("3×3", "3×3"))], ["info"]),
        ([both("m.bias", 0.2, 1)], ["info"]),
        ([both("g", 0.2, 1)], ["info"]),
    ],
    ids=["alone", "with a matrix", "biases", "of the whole"],
)
def test_scales_of_branches_that_alone_differ(rows: list[Row], severities: list[str]) -> None:
    """Fails if scales that were set to 1 while all else stayed are a note, or training of everything a warning."""
    found = findings("tensors-differ", replace(in_blocks(), tensors=tensors(*rows)))
    assert [one.severity for one in found] == severities
    assert all("“g”" in one.says for one in found if one.severity == "warning")


def test_a_new_name_is_one_where_there_is_one_on_either_side() -> None:
    """Fails if one of two candidates is taken, on either side."""

    def table(*names: str) -> pd.DataFrame:
        return pd.DataFrame({"tensor": names, "shape_a": "3", "shape_b": "3"})

    assert _renamed(table("m.a"), table("m.b")) == [("m.a", "m.b")]
    assert _renamed(table("m.a"), table("m.b", "m.c")) == []
    assert _renamed(table("m.a", "m.d"), table("m.b")) == []
    assert _renamed(table("m.a", "n.a"), table("n.b", "m.b")) == [("m.a", "m.b"), ("n.a", "n.b")]
    assert _renamed(table("a"), table("b")) == [("a", "b")]


def test_trainings_apart_are_told_by_their_correlations() -> None:
    """Fails if the numbers are left out, or two states of one training are told."""
    assert findings("channels-unrelated", compared()) == []
    (one,) = findings("channels-unrelated", replace(compared(), apart={"γ": 0.123, "β": -0.04}))
    assert one.because.startswith(
        "correlation across the channels of a layer: γ 0.12, β -0.04 (threshold 0.5"
    )


def changed(
    n: int, of_all: int, modes: tuple[str, str] = ("eval", "eval"), **cells: Any
) -> list[tuple[str, str, str]]:
    """What is said where the first n of so many norms have other vectors in B."""
    one = recording(*(healthy(f"n{i}") for i in range(of_all)))
    comparison = bnprobe.compare(one, one)
    evidence = Evidence(comparison.layers, comparison.channels, comparison.unmatched)
    for i in range(n):
        evidence = edited(evidence, cells, at=i)
    for i in range(of_all):
        evidence = edited(evidence, at=i, mode_a=modes[0], mode_b=modes[1])
    return [(one.severity, one.says, one.do) for one in findings("changed-alike", evidence)]


ADDED = [1.5, 0.3, 2.2]
"""γ and 1."""
ONE_MORE = "Every γ is exactly 1 larger in B than in A, in all 2 norms."


@pytest.mark.parametrize(
    ("modes", "severity", "do"),
    [
        (("eval", "eval"), "warning", "Some norms multiply by 1 + w"),
        (("weights only", "eval"), "info", "Nothing: the file stores w"),
        (("eval", "weights only"), "info", "Nothing: the file stores w"),
        (("weights only", "weights only"), "warning", "Some norms multiply by 1 + w"),
    ],
)
def test_a_scale_that_is_one_larger(modes: tuple[str, str], severity: str, do: str) -> None:
    """Fails if 1 + w is a fault where one side is a file, or none between two files or two runs."""
    ((found, says, advice),) = changed(2, 2, modes, gamma_b=ADDED)
    assert (found, says) == (severity, ONE_MORE)
    assert advice.startswith(do)


@pytest.mark.parametrize(
    ("cells", "n", "says", "do"),
    [
        ({"gamma_b": [-0.5, -1.7, 0.2]}, 3, "Every γ is exactly 1 smaller in B than in A, in all 3 norms.", "Some norms"),
        ({"gamma_b": [1.515, 0.315, 2.215]}, 3, "Every γ is 1.015 larger in B than in A, in all 3 norms.", "A change that"),
        ({"gamma_b": ADDED}, 2, "Every γ is exactly 1 larger in B than in A, in 2 of 3 norms.", "Some norms"),
        ({"beta_b": 1.1}, 3, "Every β is exactly 1 larger in B than in A, in all 3 norms.", "A change that"),
        ({"gamma_b": [1.0, -1.4, 2.4]}, 3, "Every γ is 2 times as large in B as in A, in all 3 norms.", "A change that"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_change_in_common(cells: dict[str, Any], n: int, says: str, do: str) -> None:
    """Fails if larger and smaller are exchanged, 1 is said of another number, or the norms are counted wrongly."""
    ((_, found, advice),) = changed(n, 3, **cells)
    assert found == says
    assert advice.startswith(do)


def test_a_factor_in_the_running_statistics_comes_from_a_converter() -> None:
    """Fails if mean and variance are not told together, or their factor is not taken for a converter's."""
    one = compared()
    means, variances = (one.channels[f"running_{name}_a"].to_numpy(float) for name in ("mean", "var"))
    ((severity, says, do),) = changed(2, 2, running_mean_b=list(3 * means), running_var_b=list(3 * variances))
    assert severity == "warning"
    assert says == "Every running_mean and running_var is 3 times as large in B as in A, in all 2 norms."
    assert do.startswith("A factor that all channels share comes from a converter")
