"""The sample of random mutants, and what counts as caught."""

from __future__ import annotations

import pytest

from scripts.mutants.execution import Execution
from scripts.mutants.lists import BadList
from scripts.mutants.packages import Package, chosen, packages
from scripts.mutants.random_mutants import (
    EQUIVALENT,
    NEAR,
    OWN,
    SUITE,
    SURVIVED,
    TIMEOUT,
    share_caught,
    stages,
    summary,
)
from scripts.mutants.sample import RandomMutant, at, mutants_of, sample
from scripts.mutants.source import Source


def test_the_same_seed_is_the_same_sample() -> None:
    """Fails if a survivor of one run cannot be met again in the next."""
    stats = chosen(["stats"])
    first = sample(stats, seed=3, number=20)
    assert first == sample(stats, seed=3, number=20)
    assert first[:10] == sample(stats, seed=3, number=10)
    assert len(set(first)) == 20
    assert first != sample(stats, seed=4, number=20)


def test_every_package_is_drawn_from() -> None:
    """Fails if the sample holds the first package only, or the names of the file are ignored."""
    drawn = {mutant.package.name for mutant in sample(packages(), seed=1, number=200)}
    assert drawn == {package.name for package in packages()}
    with pytest.raises(BadList, match=r"no package 'statz'.*Known: .*stats"):
        chosen(["statz"])


def test_all_mutants_of_a_line_can_be_asked_for() -> None:
    """Fails if a survivor cannot be tried alone."""
    one = sample(chosen(["stats"]), seed=5, number=1)[0]
    assert one in at(chosen(["stats"]), one.place)
    assert {mutant.change.line for mutant in at(packages(), one.place)} == {one.change.line}
    assert len(at(packages(), one.file)) > len(at(packages(), one.place))


def outcomes(**counts: int) -> dict[RandomMutant, str]:
    names = {"own": OWN, "suite": SUITE, "timeout": TIMEOUT, "survived": SURVIVED, "equivalent": EQUIVALENT}
    results = [names[name] for name, n in counts.items() for _ in range(n)]
    return dict(zip(mutants_of(chosen(["stats"])[0]), results, strict=False))


def test_the_share_is_of_those_that_can_be_caught() -> None:
    """Fails if equivalent mutants count as caught or as survivors, or a hang as a survivor."""
    assert share_caught(outcomes(own=5, suite=2, timeout=1, survived=2, equivalent=3)) == 8 / 10
    assert share_caught(outcomes(equivalent=3)) == 1


def test_the_summary_lists_survivors_as_entries() -> None:
    """Fails if a survivor must be looked up before it can be excused or caught."""
    found = outcomes(own=3, survived=1, equivalent=1)
    lines = list(summary(found))
    (survivor,) = (mutant for mutant, outcome in found.items() if outcome == SURVIVED)
    assert f"# {survivor.place}" in lines
    assert f"becomes = '''{survivor.becomes}'''" in lines
    assert lines[-1] == "75.0% of 4 mutants caught (own tests 3, SURVIVED 1, equivalent 1)"


TEXT = "LIMIT = 3\n\ndef f(a):\n    return (\n        a + LIMIT\n    )\n"


def test_the_fewest_tests_come_first() -> None:
    """Fails if slow tests go before quick ones, those of other packages first, or a line's tests are missed."""
    lines = {"1": [], "4": ["tests/own/test_a.py::test_slow"], "5": ["tests/own/test_b.py::test_quick"]}
    lines["3"] = ["tests/other/test_c.py::test_import"]
    lines["4"] += ["tests/other/test_c.py::test_one", "tests/other/test_c.py::test_two"]
    seconds = {"tests/own/test_a.py::test_slow": 9.0, "tests/own/test_b.py::test_quick": 0.1}
    execution = Execution("", {"f.py": lines}, seconds)
    source = Source(TEXT)
    own = execution.tests_of("f.py", 5, source, ("tests/own",))
    assert own == ["tests/own/test_b.py::test_quick", "tests/own/test_a.py::test_slow"]
    assert execution.tests_of("f.py", 1, source, ("tests/own",)) == own
    assert execution.tests_of("f.py", 5, source, ("tests/ow",)) == []
    assert execution.time_of(["tests/own"]) == pytest.approx(9.1)
    assert execution.time_of(own[:1]) == pytest.approx(0.1)


def test_a_survivor_meets_whole_files() -> None:
    """Fails if a mutant may survive because a fixture hid who runs its line, or because a test is new."""
    own = ("tests/stats/test_moments.py", "tests/stats/test_images.py", "tests/stats/test_classes.py")
    package = Package("f", ("f.py",), own, ("tests/measures",))
    lines = {
        "5": [f"{own[0]}::test_x", "tests/measures/test_c.py::test_one", "tests/measures/test_c.py::test_two"]
    }
    known = {f"{file}::test_x": 1.0 for file in own[:2]}
    execution = Execution("", {"f.py": lines}, known)
    new = [own[2], own[0]]
    assert execution.files_that_may_notice("f.py", 5, Source(TEXT), own) == new
    assert execution.files_that_may_notice("f.py", 1, Source(TEXT), own) == [own[2], own[1], own[0]]
    assert "tests/stats/test_histogram.py" in execution.files_that_may_notice(
        "f.py", 1, Source(TEXT), ("tests/stats",)
    )
    assert list(stages(execution, package, "f.py", 5, Source(TEXT))) == [
        (OWN, [f"{own[0]}::test_x"]),
        (OWN, new),
        (SUITE, ["tests/measures/test_c.py"]),
    ]
    near = list(stages(execution, package, "f.py", 5, Source(TEXT), nearest=True))
    assert near == [
        (OWN, [f"{own[0]}::test_x"]),
        (OWN, [own[2]]),
        (SUITE, ["tests/measures/test_c.py::test_one", "tests/measures/test_c.py::test_two"]),
    ]


def test_what_runs_at_import_meets_its_own_tests_as_long_as_they_are_quick() -> None:
    """Fails if a constant is tried on every test that imports its file, or on those first that are of other files."""
    package = Package("f", ("f.py",), ("tests/stats",), ())
    seconds = {"tests/stats/test_f.py::test_x": 9.0, "tests/stats/test_a.py::test_y": 1.0}
    seconds["tests/stats/test_b.py::test_z"] = NEAR
    execution = Execution("", {"f.py": {"5": list(seconds)}}, seconds)
    (own, *_) = stages(execution, package, "f.py", 1, Source(TEXT), nearest=True)
    assert own == (OWN, ["tests/stats/test_f.py::test_x", "tests/stats/test_a.py::test_y"])
    assert execution.named_after("f/moments.py", ("tests/stats",)) == ["tests/stats/test_moments.py"]
    assert execution.within(0.5, own[1]) == own[1][:1]
    assert execution.within(10.0, own[1]) == own[1]
    assert execution.within(9.9, own[1]) == own[1][:1]
