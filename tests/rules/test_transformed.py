"""Running statistics that hold a power of the variance, or minus the mean: the line over a network, cell by cell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import site, some_rows

from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Implied, Neighbours
from bnprobe.rules.transformed import FAR, FEWEST_NORMS, POWERS
from rules.firing import fired

N = 9
MEAN = np.linspace(-1, 2, N)
LEVELS = (0.01, 0.3, 20.0, 1.0, 0.05, 4.0, 0.1)
"""Variances of norms differ by their weights, more than those of the channels of one norm."""

RULE = "statistics-transformed"


def variances(i: int) -> tuple[np.ndarray, np.ndarray]:
    """What is implied for the i-th norm, and what its inputs have: half as much again, and a little at random."""
    rng = np.random.default_rng(i)
    implied = LEVELS[i] * rng.uniform(0.5, 2, N)
    return implied, 1.5 * implied * rng.uniform(0.8, 1.25, N)


def norm(
    i: int,
    var: np.ndarray,
    mean: float = 1.0,
    implied: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    **more: Any,
) -> LayerRecord:
    """A norm of a network whose running statistics are these, beside what is implied."""
    implied = variances(i)[0] if implied is None else implied
    around = Neighbours("relu", "conv", implied=Implied(MEAN, implied, MEAN, MEAN, MEAN, MEAN))
    vectors = {"running_mean": mean * MEAN, "running_var": var, "n_batches_tracked": 1000, **more}
    rows = some_rows(n_channels=N) if rows is None else rows
    return site(rows, f"n{i}", gamma=1.5, beta=0.1, neighbours=around, **vectors)


def network(power: float, n: int = FEWEST_NORMS, factor: float = 1.0, **more: Any) -> list[LayerRecord]:
    return [norm(i, factor * variances(i)[1] ** power, **more) for i in range(n)]


def said(*norms: LayerRecord) -> list[str]:
    return list(fired(RULE, *norms)["says"])


@pytest.mark.parametrize(
    ("power", "says"),
    [
        (1.0, None),
        (0.5, "the standard deviation σ, not"),
        (-1.0, "the inverse 1/σ², not"),
        (-0.5, "the inverse of the standard deviation, 1/σ, not"),
        (2.0, "the square of the variance, σ⁴, not"),
    ],
)
@pytest.mark.parametrize("factor", [1.0, 3.0], ids=["alone", "with a factor"])
def test_what_is_stored_for_a_variance(power: float, says: str | None, factor: float) -> None:
    """Fails if a power is taken for another, variances are accused, or a common factor hides or makes a power."""
    found = said(*network(power, factor=factor))
    assert found == ([] if says is None else [f"The running variances hold {says} σ²."])


@pytest.mark.parametrize(("away", "fires"), [(0.0, False), (0.29, False), (0.31, True)])
def test_what_data_confirm_is_no_other_power(away: float, fires: bool) -> None:
    """Fails if weights outvote the data: in a network whose branches training drops, variances are not as implied."""
    norms, rows = network(0.5), some_rows(n_channels=N)
    mean, var = rows.mean((0, 2)), rows.var((0, 2))
    seen = [
        (rows - mean[:, None]) * np.sqrt(one.running_var / var)[:, None]
        + (one.running_mean + away * np.sqrt(one.running_var))[:, None]
        for one in norms
    ]
    assert (
        bool(
            said(
                *(
                    norm(i, one.running_var, rows=x)
                    for i, (one, x) in enumerate(zip(norms, seen, strict=True))
                )
            )
        )
        is fires
    )


@pytest.mark.parametrize(("n", "fires"), [(FEWEST_NORMS - 1, False), (FEWEST_NORMS, True)])
def test_few_norms_show_no_line(n: int, fires: bool) -> None:
    """Fails if five norms are enough, or six are not."""
    assert bool(said(*network(0.5, n))) is fires


@pytest.mark.parametrize(
    ("slope", "fires"),
    [(1.28, False), (1.45, False), (1.55, True), (2.6, True), (2.7, False), (0.72, False), (0.64, True)],
)
def test_slopes_between_powers(slope: float, fires: bool) -> None:
    """Fails if what lies between two powers, or beyond all of them, is taken for one: 2 to the ± 0.4 is near."""
    exact = [norm(i, variances(i)[0] ** (1 / slope)) for i in range(FEWEST_NORMS)]
    assert bool(said(*exact)) is fires


def test_numbers_of_the_finding_by_hand() -> None:
    """Fails if norms, channels, the slope, the correlation, or how far the values are off is another: numpy, written out."""
    norms = network(0.5)
    (row,) = fired(RULE, *norms).itertuples()
    assert (row.severity, row.layer) == ("critical", "")
    x = np.concatenate([np.log(variances(i)[1] ** 0.5) for i in range(FEWEST_NORMS)])
    y = np.concatenate([np.log(variances(i)[0]) for i in range(FEWEST_NORMS)])
    assert f"{N * FEWEST_NORMS} channels of {FEWEST_NORMS} norms" in row.because
    assert f"to the power {y.std() / x.std():.2f} " in row.because
    assert f"correlation of the logarithms {np.corrcoef(x, y)[0, 1]:.2f})" in row.because
    off = [math.exp(np.median(np.abs((d := y - p * x) - np.median(d)))) for p in (1, 2)]
    assert f"off by a factor of {off[0]:.2g}, as σ by {off[1]:.2g}." in row.because


def test_every_norm_has_the_same_weight() -> None:
    """Fails if one norm of many channels outweighs the others: it has no line of its own."""
    implied = np.exp(0.5 * np.random.default_rng(0).normal(size=400))
    mean = np.random.default_rng(1).normal(size=400)
    wide = site(
        some_rows(n_channels=400),
        "wide",
        gamma=1.5,
        running_mean=mean,
        running_var=np.exp(0.5 * np.random.default_rng(2).normal(size=400)),
        n_batches_tracked=1000,
        neighbours=Neighbours("relu", "conv", implied=Implied(mean, implied, *[mean] * 4)),
    )
    assert said(*network(0.5, 7), wide)


def test_norms_that_a_sum_feeds_are_left_out() -> None:
    """Fails if norms whose means follow by another factor, and whose variances are anything, hide the line."""
    stored = [10.0 ** (3 - i) * (MEAN**2 + 1) for i in range(4)]
    others = [replace(norm(i, var, mean=3.0), layer=f"sum{i}") for i, var in enumerate(stored)]
    (row,) = fired(RULE, *network(0.5, 7), *others).itertuples()
    assert "of 7 norms" in row.because


def test_a_common_factor_of_means_hides_nothing() -> None:
    """Fails if means that are off as well, all alike, are taken for those of other norms."""
    assert said(*network(0.5, mean=3.0))


@pytest.mark.parametrize("side", ["stored", "implied"])
def test_constant_inputs_are_left_out(side: str) -> None:
    """Fails if channels at the smallest number, or without any implied variance to speak of, make or hide a line."""
    norms = []
    for i in range(FEWEST_NORMS):
        implied, var = variances(i)
        stored = 1 / np.sqrt(var)
        (stored if side == "stored" else implied)[:2] = 1e-30
        norms.append(norm(i, stored, implied=implied))
    (row,) = fired(RULE, *norms).itertuples()
    assert f"over {(N - 2) * FEWEST_NORMS} channels" in row.because


@pytest.mark.parametrize(("away", "n"), [(0.99, N), (1.01, N - 1)])
def test_how_far_from_its_norm_a_channel_is_left_out(away: float, n: int) -> None:
    """Fails if the limit is not a factor of 10,000 from the typical channel."""
    stored = np.exp(1e-3 * np.arange(N))
    stored[0] = stored[N // 2] * np.exp(-away * FAR)
    (row,) = fired(RULE, *network(2.0), norm(6, stored, implied=stored**0.5)).itertuples()
    assert f"over {FEWEST_NORMS * N + n} channels" in row.because


def test_one_norm_makes_no_line() -> None:
    """Fails if a line holds by a single norm: without it the channels of the others say nothing."""
    flat = [np.full(N, 1.0) + 0.01 * np.random.default_rng(i).normal(size=N) for i in range(6)]
    norms = [norm(i, one, implied=np.roll(one, 3)) for i, one in enumerate(flat)]
    far = norm(6, np.full(N, 1e3) * flat[0], implied=np.full(N, 1e6) * flat[1])
    assert said(*norms, far) == []


@pytest.mark.parametrize(("correlation", "fires"), [(0.8, False), (0.87, False), (0.95, True)])
def test_what_follows_no_line(correlation: float, fires: bool) -> None:
    """Fails if variances that go with the implied ones loosely are said to be a power of them, whatever their spread."""
    rng = np.random.default_rng(0)
    x, noise = np.linspace(-2, 2, 8 * N), rng.permutation(np.linspace(-2, 2, 8 * N))
    y = 2 * (correlation * x + math.sqrt(1 - correlation**2) * noise)
    order = rng.permutation(8 * N).reshape(8, N)
    norms = [norm(0, np.exp(x[own]), implied=np.exp(y[own])) for own in order]
    assert bool(said(*(replace(one, layer=f"{i}") for i, one in enumerate(norms)))) is fires


@pytest.mark.parametrize(("updates", "fires"), [(49, False), (50, True)])
def test_young_statistics(updates: int, fires: bool) -> None:
    """Fails if variances that hold much of their initial 1 are taken for another power."""
    assert bool(said(*network(0.5, n_batches_tracked=updates))) is fires


def test_the_advice_makes_variances() -> None:
    """Fails if the code beside a power does not give the variance back."""
    import torch

    for power, what in POWERS.items():
        model = torch.nn.BatchNorm1d(N)
        var = torch.from_numpy(variances(0)[1]).float()
        model.running_var = var ** (1 / power)
        exec(f"[{what.mend} for n in model.modules()]", {"model": model})
        torch.testing.assert_close(model.running_var, var)


# The sign of the means


def of_file(fits: Sequence[tuple[float, float]]) -> list[LayerRecord]:
    """Norms of a file with these fits, as they are and negated."""
    return [
        site(
            some_rows(),
            f"n{i}",
            gamma=1.5,
            beta=0.1,
            running_mean=0.1,
            running_var=1.0,
            neighbours=Neighbours("relu", "conv", guessed=True, means_fit=fit, means_fit_negated=negated),
        )
        for i, (fit, negated) in enumerate(fits)
    ]


NEGATED, RIGHT = (0.3, 0.95), (0.95, 0.3)


@pytest.mark.parametrize(
    ("fits", "fires"),
    [
        ([NEGATED] * 6, True),
        ([NEGATED] * 5, False),
        ([RIGHT] * 6, False),
        ([*[NEGATED] * 8, RIGHT, RIGHT], True),
        ([*[NEGATED] * 7, RIGHT, RIGHT, RIGHT], False),
        ([(0.90, 0.94)] * 6, False),
        ([(0.90, 0.96)] * 6, True),
        ([(-0.2, 0.54)] * 6, False),
        ([(-0.2, 0.55)] * 6, True),
        ([*[NEGATED] * 5, (math.nan, math.nan)], False),
    ],
)
def test_the_sign_of_means(fits: list[tuple[float, float]], fires: bool) -> None:
    """Fails if few norms, bad fits or a small difference are enough, or a fifth of the norms may not be otherwise."""
    found = fired(RULE, *of_file(fits))
    assert list(found["says"]) == ["The running means have the opposite sign."] * fires
    if fires:
        opposite = sum(negated > fit for fit, negated in fits)
        assert f"at {opposite} of {len(fits)} norms" in found["because"].iloc[0]


def test_the_advice_negates() -> None:
    """Fails if the code leaves a mean as it is."""
    import torch

    (row,) = fired(RULE, *of_file([NEGATED] * 6)).itertuples()
    model = torch.nn.Sequential(
        torch.nn.BatchNorm1d(3), torch.nn.ReLU(), torch.nn.BatchNorm1d(3, affine=False)
    )
    for module in (model[0], model[2]):
        module.running_mean += 2
    exec(re.findall("`([^`]+)`", row.do)[0], {"model": model})
    assert all((module.running_mean == -2).all() for module in (model[0], model[2]))


def test_both_are_said() -> None:
    """Fails if one of the two findings hides the other."""
    others = [replace(one, layer=f"file {one.layer}") for one in of_file([NEGATED] * 6)]
    found = fired(RULE, *network(0.5), *others)
    assert isinstance(found, pd.DataFrame)
    assert len(found) == 2
