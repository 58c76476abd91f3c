"""How often errors and tests are wrong: nominal rates against those found on data whose truth is known.

The simulation error is that of the mean over draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from scripts.rule_benchmark.claims import AT_LEAST, AT_MOST, NO_CLAIM, Claim, Trial, rows
from scripts.rule_benchmark.other_trials import OTHERS, of_sides, of_streams
from scripts.rule_benchmark.random_network import MADE_UP, Population, Setting, copied, draw, moved, real

N_DRAWS = 24

Tables = Callable[[pd.DataFrame, pd.DataFrame], float]


def called(channels: pd.DataFrame) -> NDArray[np.bool_]:
    """What the page calls beyond sampling error, in mean or scale."""
    return np.asarray((channels["shift_q"] < 0.01) | (channels["scale_q"] < 0.01))


def false_share(part: NDArray[np.bool_]) -> Tables:
    """Of what is called, the share that did not move; 0 of nothing."""
    return lambda _, c: float((called(c) & ~part).sum() / max(called(c).sum(), 1))


def found_share(part: NDArray[np.bool_]) -> Tables:
    """Of what moved, the share that is called."""
    return lambda _, c: float(called(c)[part].mean())


def bounded(by: float) -> Tables:
    """Share of channels whose true shift is no larger than the bound."""
    return lambda _, c: float((by / np.sqrt(c["running_var"]) <= c["shift_bound"]).mean())


OF_MEANS = Claim("p < 0.01 for the mean", 0.01, AT_MOST, lambda _, c: (c["shift_p"] < 0.01).mean())
OF_SCALES = Claim("p < 0.01 for the scale", 0.01, AT_MOST, lambda _, c: (c["scale_p"] < 0.01).mean())
LESS = Claim(
    "p < 0.01 and varies less",
    0.005,
    AT_MOST,
    lambda _, c: ((c["scale_p"] < 0.01) & (c["scale_z"] < 0)).mean(),
)
ANY = Claim("a channel of any norm has q < 0.01", 0.01, AT_MOST, lambda _, c: float(called(c).any()))
SHIFTED = Claim("verdict shifted", 0.0, AT_MOST, lambda t, _: t["verdict"].str.contains("shifted").mean())
SAME = Claim("verdict same", 0.05, AT_MOST, lambda t, _: (t["verdict"] == "same").mean())
FOUND = Claim("q < 0.01 for the mean (power)", NO_CLAIM, "", lambda _, c: (c["shift_q"] < 0.01).mean())
KNOWN = Claim("verdict same (power)", NO_CLAIM, "", lambda t, _: (t["verdict"] == "same").mean())

NULL = (OF_MEANS, OF_SCALES, LESS, ANY, SHIFTED)
WRONG = tuple(replace(claim, holds="", nominal=NO_CLAIM) for claim in NULL)
"""What a wrong assumption costs; the page says that it may be wrong."""


def of_network(population: Population) -> Iterator[Trial]:
    """Claims about the tables of layers and channels of a run."""

    def trial(setting: Setting, *claims: Claim) -> Trial:
        return Trial(
            population.words + setting.words,
            setting.n,
            claims,
            partial(draw, setting=setting, population=population),
        )

    every, few = population.part(1), population.part(0.3, n_norms=3)
    for n in (30, 50, 100, 200, 1000):
        yield trial(Setting("nothing moved", n), *NULL, KNOWN)
    yield trial(Setting("half the contrast, same mean", 500, run=lambda x: 0.5 * x), OF_MEANS)
    yield trial(Setting("nothing moved, ten copies of each image", 400, run=copied(10)), *NULL)
    for batch in (8, 128):
        of_unknown = WRONG if batch < 32 else NULL
        yield trial(Setting(f"nothing moved, training batch {batch}, 32 assumed", 500, batch), *of_unknown)
        yield trial(Setting(f"nothing moved, training batch {batch}, given", 500, batch, batch), *NULL)
    yield trial(
        Setting(f"{few.sum()} of {len(few)} means moved by 0.3 σ", 200, run=moved(few, 0.3)),
        Claim("false among those with q < 0.01", 0.01, AT_MOST, false_share(few)),
        Claim("q < 0.01 where moved (power)", NO_CLAIM, "", found_share(few)),
    )
    for by in (0.1, 0.3):
        for n in (50, 200, 500):
            yield trial(Setting(f"every mean moved by {by} σ", n, run=moved(every, by)), FOUND)
    for by in (0.0, 0.2):
        yield trial(
            Setting(f"every mean moved by {by} σ", 200, run=moved(every, by)),
            Claim("true shift within shift_bound", 0.95, AT_LEAST, bounded(by)),
        )
    for n in (15, 30, 50, 100, 200):
        run = moved(population.part(0.4), 0.25)
        yield trial(Setting("40% of the means moved by 0.25 σ", n, run=run), SAME)


def statistics(data: Path, n_draws: int = N_DRAWS) -> pd.DataFrame:
    """A row per claim and setting: nominal rate, the one found, its simulation error, and whether the claim holds.

    `data` is the folder of the ResNet-20 and its images; without it, only what is made up is tried.
    """
    populations = [MADE_UP, real(data)] if data.is_dir() else [MADE_UP]
    trials = [*OTHERS]
    for population in populations:
        trials += [*of_network(population), *of_sides(population), *of_streams(population)]
    return pd.DataFrame(row for trial in tqdm(trials, desc="statistics") for row in rows(trial, n_draws))
