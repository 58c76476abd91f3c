"""Every difference against a slow reference from the raw values; the laws that a comparison obeys."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from measures.sites import memory_of, recording, site, some_rows
from scipy.stats import false_discovery_control, ttest_ind

import bnprobe
from bnprobe.comparison import differences, glossary, pairs
from bnprobe.recording import LayerRecord

EPS = 1e-5
GAMMA = {"a": np.array([0.7, -0.4, 1e-4]), "b": np.array([0.9, 0.4, 2e-4])}
BETA = {"a": np.array([0.1, -0.3, 0.2]), "b": np.array([0.0, -0.3, 0.5])}


def rows_of(side: str) -> np.ndarray:
    """Values of one side (N, C, P), with other numbers of images and of positions."""
    if side == "a":
        return some_rows(n=23, n_positions=6, seed=1)
    return some_rows(n=17, n_positions=8, seed=2) * 1.2 + 0.3


def record_of(side: str, **changes: object) -> LayerRecord:
    rows = rows_of(side)
    memory = {
        "running_mean": rows.mean((0, 2)) + 0.1,
        "running_var": rows.var((0, 2)) * (1.3 if side == "a" else 0.8),
    }
    return site(rows, "bn", gamma=GAMMA[side], beta=BETA[side], **memory, **changes)


@pytest.fixture(scope="module")
def tables():
    return differences(pairs(recording(record_of("a")), recording(record_of("b"))))


def by_hand(channel: int) -> dict[str, float]:
    """All numbers of one channel, from its values, one after the other."""
    out: dict[str, float] = {}
    side: dict[str, dict[str, float]] = {}
    for name in "ab":
        x = rows_of(name)[:, channel]
        rows = rows_of(name)
        mean, var = (
            float(rows[:, channel].mean() + 0.1),
            float(rows[:, channel].var() * (1.3 if name == "a" else 0.8)),
        )
        g, b = float(GAMMA[name][channel]), float(BETA[name][channel])
        y = g * (x - mean) / math.sqrt(var + EPS) + b
        means = [math.fsum(image) / len(image) for image in x.tolist()]
        centre = float(np.mean(x))
        squares = [math.fsum((v - centre) ** 2 for v in image) / len(image) for image in x.tolist()]
        n = len(means)
        between, spread = float(np.var(means, ddof=1)), float(np.var(squares, ddof=1))
        side[name] = {
            "n": n,
            "mean": centre,
            "sd": math.sqrt(float(np.var(x))),
            "v": float(np.var(x)) + between / n,
            "mean_error": math.sqrt(between / n),
            "square_error": math.sqrt(spread / n),
            "post_mean": float(np.mean(y)),
            "post_sd": float(np.std(y)),
            "running_mean": mean,
            "running_sd": math.sqrt(var),
            "slope": abs(g) / math.sqrt(var + EPS),
            "fires": float(np.mean(y > 0)),
        }
        side[name]["values"] = x  # type: ignore[assignment]
    a, b = side["a"], side["b"]
    sigma = math.sqrt((a["sd"] ** 2 + b["sd"] ** 2) / 2 + EPS)
    out["pre_shift"] = (b["mean"] - a["mean"]) / sigma
    out["pre_ratio"] = b["sd"] / a["sd"]
    out["pre_gap"] = math.hypot(b["mean"] - a["mean"], b["sd"] - a["sd"]) / sigma
    out["pre_shift_se"] = math.hypot(a["mean_error"], b["mean_error"]) / sigma
    out["pre_ratio_se"] = math.hypot(a["square_error"] / a["v"], b["square_error"] / b["v"]) / 2
    remembered = math.sqrt((a["running_sd"] ** 2 + b["running_sd"] ** 2) / 2 + EPS)
    out["running_shift"] = (b["running_mean"] - a["running_mean"]) / remembered
    out["running_ratio"] = b["running_sd"] / a["running_sd"]
    out["running_gap"] = (
        math.hypot(b["running_mean"] - a["running_mean"], b["running_sd"] - a["running_sd"]) / remembered
    )
    out["fires_change"] = b["fires"] - a["fires"]
    out["post_mean_change"] = b["post_mean"] - a["post_mean"]
    out["post_sd_a"], out["post_sd_b"] = a["post_sd"], b["post_sd"]
    out["post_mean_error"] = math.hypot(a["slope"] * a["mean_error"], b["slope"] * b["mean_error"])
    # sorted values against sorted values, weighted by their shares: the area between two step functions
    x = np.concatenate([a["values"].ravel(), b["values"].ravel()])  # type: ignore[attr-defined]
    grid = np.sort(x)
    f_a = np.searchsorted(np.sort(a["values"].ravel()), grid, side="right") / a["values"].size  # type: ignore[attr-defined]
    f_b = np.searchsorted(np.sort(b["values"].ravel()), grid, side="right") / b["values"].size  # type: ignore[attr-defined]
    out["w1_of_values"] = float(np.sum(np.abs(f_a - f_b)[:-1] * np.diff(grid))) / sigma
    return out


@pytest.mark.parametrize("channel", range(3))
def test_every_difference_agrees_with_its_reference(tables, channel):
    """Fails if a difference is taken the other way, in another unit, or a side is taken for the other."""
    row, expected = tables.channels.iloc[channel], by_hand(channel)
    for name, value in expected.items():
        if name in row.index:
            assert row[name] == pytest.approx(value, rel=1e-9), name


def test_outputs_are_told_in_the_layers_deviations(tables):
    """Fails if a channel that hardly varies is blown up by its own tiny deviation."""
    found, all_of = tables.channels, [by_hand(c) for c in range(3)]
    unit = math.sqrt(np.mean([(t["post_sd_a"] ** 2 + t["post_sd_b"] ** 2) / 2 for t in all_of]))
    for c, expected in enumerate(all_of):
        row = found.iloc[c]
        assert row["post_shift"] == pytest.approx(expected["post_mean_change"] / unit, rel=1e-9)
        gap = math.hypot(expected["post_mean_change"], expected["post_sd_b"] - expected["post_sd_a"]) / unit
        assert row["post_gap"] == pytest.approx(gap, rel=1e-9)
        assert row["post_shift_se"] == pytest.approx(expected["post_mean_error"] / unit, rel=1e-9)
    taught = math.sqrt(np.mean((GAMMA["a"] ** 2 + GAMMA["b"] ** 2) / 2))
    np.testing.assert_allclose(found["affine_shift"], (BETA["b"] - BETA["a"]) / taught)
    gaps = np.hypot(BETA["b"] - BETA["a"], GAMMA["b"] - GAMMA["a"]) / taught
    np.testing.assert_allclose(found["affine_gap"], gaps)


def test_the_layer_is_the_root_mean_square_of_its_channels(tables):
    """Fails if gaps are averaged instead, or the layers are sorted by another gap than the largest."""
    row = tables.layers.iloc[0]
    for aspect in ("affine", "running", "pre", "post"):
        gaps = tables.channels[f"{aspect}_gap"]
        assert row[f"{aspect}_gap"] == pytest.approx(math.sqrt(np.mean(gaps**2)))
    assert row["change"] == max(row[f"{aspect}_gap"] for aspect in ("affine", "running", "pre", "post"))
    errors = tables.channels["pre_shift_se"] ** 2
    assert row["pre_noise"] > math.sqrt(np.mean(errors))


def test_the_test_of_the_means_is_welchs(tables):
    """Fails if pixels are counted, degrees of freedom are another, or the adjustment leaves out a test."""
    p = [
        ttest_ind(rows_of("b")[:, c].mean(1), rows_of("a")[:, c].mean(1), equal_var=False).pvalue
        for c in range(3)
    ]
    scales = []
    for c in range(3):
        squares = [((x := rows_of(s)[:, c]) - x.mean()) ** 2 for s in "ab"]
        each = [q.mean(1) for q in squares]
        v = [rows_of(s)[:, c].var() + rows_of(s)[:, c].mean(1).var(ddof=1) / len(rows_of(s)) for s in "ab"]
        errors = [e.std(ddof=1) / math.sqrt(len(e)) / (2 * w) for e, w in zip(each, v, strict=True)]
        z = (math.log(v[1]) - math.log(v[0])) / 2 / math.hypot(*errors)
        df = math.hypot(*errors) ** 4 / sum(e**4 / (len(s) - 1) for e, s in zip(errors, each, strict=True))
        from scipy.stats import t

        scales.append(2 * t.sf(abs(z), df))
    q = false_discovery_control([*p, *scales])
    np.testing.assert_allclose(tables.channels["pre_shift_q"], q[:3], rtol=1e-6)
    np.testing.assert_allclose(tables.channels["pre_ratio_q"], q[3:], rtol=1e-6)


def test_histograms_tell_the_distance_of_the_values(tables):
    """Fails if the two curves are laid over each other on the wrong scale."""
    for c in (0, 1, 2):
        found, expected = tables.channels["pre_w1"][c], by_hand(c)["w1_of_values"]
        width = 0.125 / math.sqrt((rows_of("a")[:, c].var() + rows_of("b")[:, c].var()) / 2)
        assert found == pytest.approx(expected, rel=0.02, abs=width)
    assert tables.channels["pre_w1"].notna().all()


def test_exchanging_the_sides_changes_signs_only():
    """Fails if a unit belongs to one side: then A against B would be further than B against A."""
    a, b = recording(record_of("a")), recording(record_of("b"))
    there, back = differences(pairs(a, b)).channels, differences(pairs(b, a)).channels
    for column in there.columns:
        if column.endswith(("_shift", "_change")):
            np.testing.assert_allclose(there[column], -back[column], atol=1e-12, err_msg=column)
        elif column.endswith("_ratio"):
            np.testing.assert_allclose(there[column] * back[column], 1.0, err_msg=column)
        elif column.endswith(("_gap", "_se", "_q", "_w1", "_ks")):
            np.testing.assert_allclose(there[column], back[column], atol=1e-12, err_msg=column)


def test_inputs_that_are_the_same_do_not_differ_by_eps():
    """Fails if eps is added to what enters, or to what is stored, before the sides are compared."""
    rows, small = rows_of("a"), rows_of("a") * 1e-3
    for values in (rows, small):
        a, b = (site(values, "bn", eps=eps, **memory_of(values)) for eps in (1e-5, 1e-3))
        found = differences(pairs(recording(a), recording(b)))
        for name in ("pre", "running"):
            assert found.layers[f"{name}_gap"][0] == 0
            assert (found.channels[f"{name}_ratio"] == 1).all()
        assert not found.channels["pre_changed"].any()
        assert found.layers["post_gap"][0] > 0


def test_a_channel_that_hardly_varies_beside_eps_hardly_counts():
    """Fails if the unit leaves out eps: a millionth of what the norm divides by would be a whole standard deviation."""
    rows = rows_of("a")
    a, b = rows.copy(), rows.copy()
    a[:, 0], b[:, 0] = rows[:, 0] * 1e-12, rows[:, 0] * 3e-12
    found = differences(pairs(recording(site(a, "bn")), recording(site(b, "bn"))))
    assert found.channels["pre_gap"][0] < 1e-6
    assert not found.channels["pre_changed"][0]
    assert found.channels["pre_ratio"][0] == pytest.approx(3)


@pytest.mark.parametrize(
    ("kind", "pools"),
    [
        ("layer_norm", lambda x: x.transpose(0, 2, 1).reshape(-1, 1, x.shape[1])),
        ("rms_norm", lambda x: x.transpose(0, 2, 1).reshape(-1, 1, x.shape[1])),
        ("group_norm", lambda x: x.reshape(len(x), 1, -1)),
        ("instance_norm", lambda x: x),
    ],
)
def test_own_statistics_agree_with_their_twin(kind, pools):
    """Fails if what a norm takes from each sample is not compared, counts eps, or is of another group."""
    sides = [rows_of("a"), rows_of("a")[::-1] * 2 + 1]
    found = differences(pairs(*(recording(site(x, "n", kind=kind)) for x in sides))).layers.iloc[0]
    own = []
    for x in sides:
        values = pools(x)  # (samples, groups, values)
        mean = np.zeros(values.shape[:2]) if kind == "rms_norm" else values.mean(2)
        own.append((mean.mean(0), ((values - mean[:, :, None]) ** 2).mean(2).mean(0)))
    (mean_a, var_a), (mean_b, var_b) = own
    unit = np.sqrt((var_a + var_b) / 2 + EPS)
    shift, width = (mean_b - mean_a) / unit, (np.sqrt(var_b) - np.sqrt(var_a)) / unit
    assert found["own_shift"] == pytest.approx(shift.mean(), rel=1e-9, abs=1e-12)
    assert found["own_ratio"] == pytest.approx(np.exp(np.log(var_b / var_a).mean() / 2), rel=1e-9)
    assert found["own_gap"] == pytest.approx(math.sqrt((shift**2 + width**2).mean()), rel=1e-9)
    assert found["change"] >= found["own_gap"]


def test_a_recording_against_itself_differs_in_nothing():
    """Fails if an undefined unit, a NaN in a vector or an empty statistic makes a difference to itself."""
    rows = some_rows()
    holes = some_rows()
    holes[:, 1] = np.nan
    layers = (
        record_of("a"),
        site(rows, "flat", gamma=0.0, beta=0.0, **memory_of(rows)),
        site(rows, "nan", running_mean=[np.nan, 0, 0], running_var=[1, -1, np.inf]),
        site(holes, "holes"),
        site(rows, "ln", kind="layer_norm"),
        site(rows, "none", histograms=False),
    )
    found = differences(pairs(recording(*layers), recording(*layers)))
    assert found.layers["identical"].all()
    for name in ("affine", "running", "pre", "post"):
        assert (found.layers[f"{name}_gap"].fillna(0) == 0).all(), name
    assert not found.channels["pre_changed"].any()
    assert bnprobe.compare(recording(*layers), recording(*layers)).findings.empty


def test_every_column_has_a_line_in_the_glossary(tables):
    """Fails if a column is added that nobody explains, or a line is left of one that is gone."""
    told = {
        (c.name, table) for c in glossary() for table in ("layers", "channels") if c.table in (table, "both")
    }
    there = {(name, "layers") for name in tables.layers} | {(name, "channels") for name in tables.channels}
    assert told == there
    assert all(c.meaning.endswith(".") for c in glossary())


def test_what_only_one_side_has_is_listed_with_the_reason():
    """Fails if a layer is compared with one of another width, or forgotten."""
    rows, narrow = some_rows(), some_rows(n_channels=2)
    a = recording(site(rows, "same"), site(rows, "wide"), site(rows, "gone"), never_called=())
    b = recording(site(rows, "same"), site(narrow, "wide"), site(rows, "new"), never_called=("gone",))
    found = differences(pairs(a, b))
    assert list(found.layers["layer"]) == ["same"]
    expected = pd.DataFrame(
        [
            ("wide", 0, 3, "A", "3 channels here, 2 on the other side"),
            ("gone", 0, 3, "A", "not reached on the other side"),
            ("wide", 0, 2, "B", "2 channels here, 3 on the other side"),
            ("new", 0, 3, "B", "not there on the other side"),
        ],
        columns=["layer", "call", "n_channels", "side", "why"],
    )
    pd.testing.assert_frame_equal(found.unread, expected)


def test_channels_that_went_silent_were_not_silent_before():
    """Fails if a channel counts that was silent on both sides, woke up, or still fires; or records apart are compared."""
    rows = rows_of("a")
    on, off = (0.7, 0.0), (1e-3, -9.0)

    def record(*channels: tuple[float, float]) -> LayerRecord:
        gamma, beta = np.array(channels).T
        return site(rows, "bn", gamma=gamma, beta=beta, **memory_of(rows))

    one, other = record(on, off, off), record(off, on, off)
    found = differences(pairs(recording(one), recording(other))).layers.iloc[0]
    y = (rows - rows.mean((0, 2))[:, None]) / np.sqrt(rows.var((0, 2)) + EPS)[:, None]
    a, b = ((r.gamma[:, None] * y + r.beta[:, None] > 0).mean((0, 2)) for r in (one, other))
    assert found["went_silent"] == np.sum((a > 0) & (b == 0)) == 1
    assert found["fires_change_mean"] == pytest.approx(np.abs(b - a).mean(), abs=1e-9)
