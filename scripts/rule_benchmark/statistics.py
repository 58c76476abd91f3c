"""How often errors and tests are wrong: nominal rates against those found on data whose truth is known.

The simulation error is that of the mean over draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from scripts.rule_benchmark.claims import AT_LEAST, AT_MOST, NO_CLAIM, Claim, Trial, rows
from scripts.rule_benchmark.other_trials import OTHERS
from scripts.rule_benchmark.random_network import N_CHANNELS, N_NORMS, Setting, draw, mean_moved

N_DRAWS = 24
MOVED = np.array([norm < 3 and channel < 3 for norm in range(N_NORMS) for channel in range(N_CHANNELS)])


def few_moved(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the MOVED channels, by 0.3 standard deviations."""
    return np.asarray(x + 0.3 * MOVED[:, None])


def called(channels: pd.DataFrame) -> NDArray[np.bool_]:
    """What the page calls beyond sampling error, in mean or scale."""
    return np.asarray((channels["shift_q"] < 0.01) | (channels["scale_q"] < 0.01))


def false_share(_: pd.DataFrame, channels: pd.DataFrame) -> float:
    """Of what is called, the share that did not move; 0 of nothing."""
    found = called(channels)
    return float((found & ~MOVED).sum() / max(found.sum(), 1))


def bounded(by: float) -> Callable[[pd.DataFrame, pd.DataFrame], float]:
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
FALSE = Claim("false among those with q < 0.01", 0.01, AT_MOST, false_share)
FOUND_FEW = Claim("q < 0.01 where moved (power)", NO_CLAIM, "", lambda _, c: called(c)[MOVED].mean())

NULL = (OF_MEANS, OF_SCALES, LESS, ANY, SHIFTED)
WRONG = tuple(replace(claim, holds="", nominal=NO_CLAIM) for claim in NULL)
"""What a wrong assumption costs; the page says that it may be wrong."""


def of_network(setting: Setting, *claims: Claim) -> Trial:
    """Claims about the tables of layers and channels of a run."""
    return Trial(setting.words, setting.n, claims, lambda rng: draw(rng, setting))


OF_NETWORKS = (
    *(of_network(Setting("nothing moved", n), *NULL, KNOWN) for n in (30, 50, 100, 200, 1000)),
    of_network(Setting("half the contrast, same mean", 500, run=lambda x: 0.5 * x), OF_MEANS),
    *(
        of_network(Setting(f"nothing moved, training batch {batch}, {how}", 500, batch, given), *claims)
        for batch in (8, 128)
        for how, given, claims in (
            ("32 assumed", None, WRONG if batch < 32 else NULL),
            ("given", batch, NULL),
        )
    ),
    of_network(Setting("9 of 80 means moved by 0.3 σ", 200, run=few_moved), FALSE, FOUND_FEW),
    *(
        of_network(Setting(f"every mean moved by {by} σ", n, run=mean_moved(by)), FOUND)
        for by in (0.1, 0.3)
        for n in (50, 200, 500)
    ),
    *(
        of_network(
            Setting(f"every mean moved by {by} σ", 200, run=mean_moved(by)),
            Claim("true shift within shift_bound", 0.95, AT_LEAST, bounded(by)),
        )
        for by in (0.0, 0.2)
    ),
    *(
        of_network(Setting("40% of the means moved by 0.25 σ", n, run=mean_moved(0.25, 0.4)), SAME)
        for n in (15, 30, 50, 100, 200)
    ),
)


def statistics(n_draws: int = N_DRAWS) -> pd.DataFrame:
    """A row per claim and setting: nominal rate, the one found, its simulation error, and whether the claim holds."""
    trials = (*OF_NETWORKS, *OTHERS)
    return pd.DataFrame(row for trial in tqdm(trials, desc="statistics") for row in rows(trial, n_draws))
