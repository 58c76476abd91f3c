"""The table of exemplars of records made by hand: names of files, parts of a run, and the order of rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures.exemplars import exemplars, of_samples, purity
from bnprobe.recording import Recording, SampleTable
from bnprobe.stats.exemplars import Exemplars
from measures.sites import recording, site, some_rows

NAN = np.nan


def table(is_path: tuple[float, ...], classes: tuple[str, ...] = ()) -> SampleTable:
    return SampleTable(
        numbers=np.array([0.0, 5.0, 7.0, 11.0]),
        parts=("b", "a", "", "b"),
        captions=("a text", "x/y.png", "", "z.png"),
        is_path=np.array(is_path),
        labels=np.array([1.0, NAN, 0.0, 2.0]),
        classes=classes,
    )


def test_files_are_called_by_their_paths_and_other_samples_by_their_numbers() -> None:
    """Fails if a caption is taken for a path, a path is shown twice, or a file has the number of a part."""
    found = of_samples(table((0.0, 1.0, 0.0, 1.0)))
    assert found["sample"].tolist() == ["0", "x/y.png", "7", "z.png"]
    assert found["caption"].tolist() == ["a text", "", "", ""]
    assert found["part"].tolist() == [1, 0, 0, 1]
    assert found["label"].tolist() == [1, None, 0, 2]


def test_without_files_samples_are_numbers() -> None:
    """Fails if numbers become text."""
    found = of_samples(table((0.0, 0.0, 0.0, 0.0), ("cat", "dog")))
    assert found["sample"].dtype == np.int64
    assert found["sample"].tolist() == [0, 5, 7, 11]
    assert found["caption"].tolist() == ["a text", "x/y.png", "", "z.png"]
    # the third class has no name
    assert found["label"].tolist() == ["dog", None, "cat", None]


KEPT = Exemplars(
    value=np.array([[[9.0, 8.0], [7.0, NAN]], [[-9.0, -8.0], [-7.0, NAN]]]),
    sample=np.array([[[0.0, 2.0], [3.0, -1.0]], [[1.0, 3.0], [2.0, -1.0]]]),
    position=np.array([[[4.0, NAN], [6.0, NAN]], [[1.0, 2.0], [NAN, NAN]]]),
)


def test_rows_go_by_channel_then_side_then_rank() -> None:
    """Fails if sides and channels are exchanged, a rank begins at 0, or places without a sample are rows."""
    made = site(some_rows(n_channels=2), "a.bn", exemplars=KEPT)
    other = replace(made, layer="b.bn", call=3)
    about = recording(replace(made, exemplars=None)).about
    whole = Recording(about, (made, site(some_rows()), other), samples=table((0.0, 0.0, 0.0, 0.0)))
    found = exemplars(whole)
    names = ["layer", "call", "channel", "side", "rank", "sample", "value"]
    expected = [
        (0, "high", 1, 0, 9.0),
        (0, "high", 2, 7, 8.0),
        (0, "low", 1, 5, -9.0),
        (0, "low", 2, 11, -8.0),
        (1, "high", 1, 11, 7.0),
        (1, "low", 1, 7, -7.0),
    ]
    rows = [("a.bn", 0, *one) for one in expected] + [("b.bn", 3, *one) for one in expected]
    assert list(found[names].itertuples(index=False, name=None)) == rows
    np.testing.assert_array_equal(found["position"], [4.0, NAN, 1.0, 2.0, 6.0, NAN] * 2)


def test_purity_of_those_with_a_label() -> None:
    """Fails if one labelled exemplar is all of one class, or classes are compared across channels."""
    labels = np.array([1.0, NAN, 1.0, 0.0])
    known = replace(table((0.0,) * 4), labels=labels)
    found = purity(site(some_rows(n_channels=2), exemplars=KEPT), known)
    # 1 and 1; of channel 1 one alone; none and 0; one alone
    np.testing.assert_array_equal(found, [[1.0, NAN], [NAN, NAN]])
    split = replace(known, labels=np.array([1.0, 2.0, 0.0, 0.0]))
    found = purity(site(some_rows(n_channels=2), exemplars=KEPT), split)
    assert found == pytest.approx(np.array([[0.5, NAN], [0.5, NAN]]), nan_ok=True)
