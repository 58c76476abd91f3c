"""Where every rule fires: a case for each, and one rule on one recording.

A new rule gets its case here: a site in `troubled`, or where other trouble there hides it, a recording of its own in
`cases`. Its name goes to NOT_PLANTED, unless the benchmark has a fault for it. The tests of the rule book as a whole
(`test_judge.py`) go over what all cases find.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from measures.drawn import folds_of
from measures.sites import call_log, gradient, recording, running_stats_of, site, some_rows
from torch import nn

import bnprobe
from bnprobe.measures import tables
from bnprobe.recording import LayerRecord, Normalize, RankGap, Recording
from bnprobe.recording.neighbours import Folded, Implied, Neighbours, Stem
from bnprobe.recording.output_check import OutputCheck
from bnprobe.rules import judge, judge_invariances
from bnprobe.stats import ClassMoments, Moments
from rules import of_streams, of_tokens

NOT_PLANTED = {
    "batch-normalized",
    "bias-redundant",
    "few-images",
    "more-than-a-norm",
    "identity-violated",
    "tensors-empty",
    # of home-made norms, of backward passes and of steps of training: tests/probe/calls/test_alternatives.py,
    # tests/probe/backward/test_nonfinite.py, tests/rules/test_frozen_parts.py and test_precision.py plant these
    *("digits-lost", "rows-zero", "rows-constant", "outputs-saturated"),
    *("gradient-not-finite", "updates-below-step"),
    # of data in order and of copies: tests/rules/test_groups.py
    "samples-alike",
    # of files: tests/checkpoints/test_fits.py plants these in trained networks
    *("statistics-misplaced", "folded-and-kept"),
    # of networks that no subject here is: the cases of real users have them
    *("batches-of-one-class", "batches-of-two-kinds", "instance-norm-stored"),
    *("learning-in-eval", "statistics-not-updated", "positions-as-channels", "vectors-swapped"),
    # of tokens, and of gains over features: tests/rules/of_tokens.py and tests/experiments/test_invariances.py
    *("sink-token", "square-overflows", "first-block-overwrites", "block-off", "tokens-alike"),
    *("no-residual", "norm-repeated"),
    *("no-final-norm", "gain-convention", "gains-decayed", "attention-saturates"),
    *("future-leaks", "padding-leaks", "samples-mixed"),
    # of processes that run together: tests/scaling/test_gather.py
    *("ranks-drifted", "ranks-unlike"),
}
"""Rules that no fault in `scripts/rule_benchmark/faults.py` makes fire on a whole network. A warning that people cause by a
line of code belongs there instead."""


def fired(rule: str, *layers: LayerRecord, **about: object) -> pd.DataFrame:
    """What this rule finds in a recording of these sites."""
    found = judge(tables(recording(*layers, **about)))
    return found[found["rule"] == rule].reset_index(drop=True)


def cases() -> list[Recording]:
    """Recordings in which together every rule finds something, but those on what was tried (see `all_found`)."""
    return [
        troubled(),
        recording(first_norm("stem", 1.0, 0.0, 3.0), normalize=Normalize((0.4,) * 3, (0.2,) * 3)),
        recording(site(some_rows(), **TRAINED)),
        recording(site(some_rows(n_channels=9), "converted", **TRAINED, **converted(9))),
        grouped(),
        taking_turns(),
        exchanged(),
        *unlike_their_weights(),
        negated(),
        computed_otherwise(),
        lone_channel(),
        *trained_wrongly(),
        *of_tokens.faults(),
        of_streams.recorded(adds=False),
        of_streams.recorded(twice=True),
    ]


def all_found() -> pd.DataFrame:
    """The findings in all cases."""
    return pd.concat(
        [
            *(judge(tables(case)) for case in cases()),
            *(judge_invariances(pd.DataFrame([{**LEAK, "probe": one}])) for one in TRIED),
        ],
        ignore_index=True,
    )


ONE = np.ones(3)
DECAYED = Neighbours("relu", "conv", folded=Folded(np.array([0.01, 1, 1]), -ONE, ONE, None))


TRAINED = {"gamma": 1.5, "beta": 0}
LEARNING = {"n_calls_learning": 1, "n_calls_model_training": 1}
BY_BATCH = {"n_calls_training": 1, "n_calls_running": 0}
MATRIX = np.random.default_rng(0).normal(size=(12, 3))
TRIED = ("causality", "padding", "batch")
LEAK: dict[str, Any] = {
    "probe": "causality",
    "holds": False,
    "largest_change": 0.75,
    "first_norm": "blocks.1.ln2",
    "culprit": "blocks.1.ln1",
    "culprit_class": "NormOverTime",
    "culprit_stores": True,
    "largest_output": 12.0,
    "allowed": 1e-4,
    "meant": True,
    "n": 4,
    "note": "",
}
"""A language model that looks ahead, as `bnprobe.invariances` tells of it."""


def first_norm(layer: str, gain: float, offset: float, detail: float) -> LayerRecord:
    """A stem that saw gain x + offset for x, and fine filters that saw more than their running variance says."""
    inputs = np.random.default_rng(1).normal(loc=(0.3, -0.2, 0.5), size=(40, 20, 3)).swapaxes(1, 2)
    trained, seen = (np.einsum("cf,nfp->ncp", MATRIX, x) for x in (inputs, gain * inputs + offset))
    finer = np.where(np.arange(12) < 4, detail, 1.0)
    statistics = {"running_mean": trained.mean((0, 2)), "running_var": trained.var((0, 2)) / finer**2}
    lengths = np.linalg.norm(MATRIX, axis=1) * np.where(np.arange(12) < 4, 100.0, 1.0)
    folded = Folded(lengths, -np.ones(12), np.ones(12), None)
    neighbours = Neighbours(
        "linear", "conv", ("input",), source="input", stem=Stem(MATRIX, None), folded=folded
    )
    return site(seen, layer, **TRAINED, **statistics, neighbours=neighbours)


def in_use(rows: np.ndarray) -> list[LayerRecord]:
    """Sites that are used wrongly, or that stand in wrong company."""
    statistics = running_stats_of(rows)
    moved = call_log(**{**LEARNING, "gamma_learns": False, "beta_learns": False}, running_mean_after=0 * ONE)
    small = call_log(**LEARNING, fewest_values=5.0, fewest_call=0, fewest_images=1, n_updates=2)
    still = call_log(**LEARNING, running_mean_after=statistics["running_mean"])
    stuck = call_log(n_calls_learning=1, n_learned_in_eval=2, running_mean_after=statistics["running_mean"])
    young = {
        "running_mean": 0.6 * statistics["running_mean"],
        "running_var": 0.6 * statistics["running_var"] + 0.4,
    }
    alone = Neighbours("add", "conv", skip="bn0")
    wide = np.random.default_rng(0).normal(size=(40, 100, 6)) * np.where(np.arange(100) == 3, 70, 1)[:, None]
    return [
        site(rows, "small", **TRAINED, **statistics, **BY_BATCH, call_log=small),
        site(rows, "evaluated", **TRAINED, **statistics, **BY_BATCH, call_log=call_log()),
        site(rows, "frozen", **TRAINED, **statistics, **BY_BATCH, gradient=gradient(rows), call_log=moved),
        site(rows, "left in eval", **TRAINED, **statistics, gradient=gradient(rows), call_log=stuck),
        site(rows, "standing", **TRAINED, **statistics, **BY_BATCH, gradient=gradient(rows), call_log=still),
        site(rows, "half frozen", **TRAINED, **statistics, call_log=call_log(**LEARNING)),
        site(rows, "last batch", **TRAINED, **statistics, momentum=0.99),
        site(rows, "young", **TRAINED, **young, n_batches_tracked=9),
        site(rows, "sync", **TRAINED, **statistics, **BY_BATCH, class_name="SyncBatchNorm", call_log=small),
        site(
            rows,
            "ranks",
            **TRAINED,
            **statistics,
            ranks=RankGap(0.9, 0.1, "rank 0 and rank 1", 0.5, "rank 0 and rank 1"),
        ),
        site(rows, "shared", **TRAINED, **statistics),
        site(rows + 99, "shared", call=1, **TRAINED, **statistics),
        site(
            rows,
            "biased",
            **TRAINED,
            **statistics,
            neighbours=Neighbours("relu", "conv", folded=Folded(ONE, ONE, ONE, ONE), feeds_alone=True),
        ),
        site(rows, "off", gamma=1e-4, beta=1, **statistics, neighbours=alone),
        site(rows, "full", gamma=0.5, beta=[20, 3, 3], **statistics, neighbours=Neighbours("relu6", "conv")),
        site(
            rows,
            "silent",
            gamma=[-1.8, 1, 1],
            beta=[-10, 0, 0],
            **statistics,
            neighbours=Neighbours("relu", "conv"),
        ),
        site(wide, "lopsided", "layer_norm"),
        site(
            rows,
            "over time",
            **TRAINED,
            **statistics,
            neighbours=Neighbours("relu", features_elsewhere="linear after"),
        ),
    ]


def converted(n: int) -> dict[str, Any]:
    """Running statistics a thousand times those that the previous layers imply."""
    mean, var = np.linspace(-1, 2, n), np.ones(n)
    implied = Implied(mean, var, mean[::-1], np.full(n, 0.5), mean, mean)
    neighbours = Neighbours("relu", "conv", implied=implied)
    return {
        "running_mean": 1000 * mean,
        "running_var": 1000 * var,
        "neighbours": neighbours,
        "n_batches_tracked": 999,
    }


def computed_otherwise() -> Recording:
    """Outputs that the formula does not give, an input without digits, and updates that are lost."""
    rows = some_rows(40)
    check = OutputCheck("float32", False, constant_rows=0.5, zero_rows=0.5, saturated=0.5)
    statistics = running_stats_of(rows)
    far = rows + 1e7 * rows.std()
    return recording(
        site(rows, "checked", "layer_norm", **TRAINED, output="read", mismatch=0.4, output_check=check),
        site(far, "far", **TRAINED, **running_stats_of(far)),
        site(rows, "stuck", gamma=1, beta=0.3, **statistics, parameter_dtype="bfloat16"),
    )


class Distilled(nn.Module):
    """A teacher in train mode, and a student that learns over frozen statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = (nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = self.teacher(x)
        return self.student(x) - target


def trained_wrongly() -> list[Recording]:
    """Training steps of it, with a loss, and with one that is not finite."""
    torch.manual_seed(0)
    model = Distilled()
    model.student[1].eval()
    batches = [torch.randn(16, 4) for _ in range(3)]
    losses = (lambda y, _: y.square().mean(), lambda y, _: (y * math.inf).mean())
    return [bnprobe.record(model, [(x, x) for x in batches], loss=loss) for loss in losses]


def exchanged() -> Recording:
    """A network whose converter took γ for β."""
    rows, c = some_rows(n_channels=36), np.arange(36)
    return recording(site(rows, gamma=0.2 * np.cos(c), beta=1 + 0.1 * np.sin(c), **running_stats_of(rows)))


def unlike_their_weights() -> list[Recording]:
    """Files with one norm whose means are not those of its weights, and with norms that are in their weights as well."""

    def file(fits: list[float], unfolded: float, like: str) -> Recording:
        rows = some_rows()
        around = Neighbours("relu", "conv", guessed=True, means_fit_unfolded=unfolded, directly_fed=True)
        return recording(
            *(
                site(
                    rows,
                    f"{i}",
                    **TRAINED,
                    neighbours=replace(around, means_fit=fit, fits_like=like * (fit < 0.4)),
                )
                for i, fit in enumerate(fits)
            )
        )

    return [file([0.9] * 6 + [0.1], 0.5, ""), file([0.9] * 6 + [0.1], 0.5, "2"), file([0.9] * 7, 0.95, "")]


def negated() -> Recording:
    """A file whose running means have the opposite sign."""
    around = Neighbours("relu", "conv", guessed=True, means_fit=0.2, means_fit_negated=0.9)
    return recording(*(site(some_rows(), f"{i}", **TRAINED, neighbours=around) for i in range(6)))


def grouped() -> Recording:
    """Samples in groups, which an instance norm's stored statistics and batches of one class do not know of."""
    rows = some_rows()
    log = call_log(n_calls_labeled=8, n_calls_one_class=8)
    classes = ClassMoments.of(Moments.of(rows, axis=2), np.array([0, 0, 1, 1, 1.0]))
    return recording(
        site(rows, "stored", "instance_norm", gamma=1.5, beta=0, **running_stats_of(rows)),
        site(rows, "sorted", gamma=1.5, beta=0, call_log=log, classes=classes),
        alike(),
    )


def lone_channel() -> Recording:
    """One channel of forty whose running mean is 6 standard deviations away."""
    rows = some_rows(64, n_channels=40)
    statistics = running_stats_of(rows)
    away = np.where(np.arange(40) == 17, 6 * rows.std((0, 2)), 0)
    moved = {**statistics, "running_mean": statistics["running_mean"] - away}
    return recording(site(rows, "lone", **TRAINED, **moved))


def taking_turns() -> Recording:
    """Batches of two kinds, in train mode."""
    rows = some_rows(80, n_channels=2)
    rows += 9 * rows.std() * (np.arange(80) // 10 % 2)[:, None, None]
    made = site(rows, "turns", gamma=1.5, beta=0)
    return recording(replace(made, pre_folds=folds_of(rows, 10, np.zeros(2)), n_calls_running=0))


def alike() -> LayerRecord:
    """Six batches, each of ten copies of a sample."""
    rows = np.repeat(some_rows(6), 10, axis=0)
    made = site(rows, "alike", gamma=1.5, beta=0, **running_stats_of(rows))
    return replace(made, pre_folds=folds_of(rows, 10, made.pre_images.origin))


def troubled() -> Recording:
    """One recording in which every rule finds something."""
    rows, spoilt, four = some_rows(), some_rows(), some_rows(n_channels=4)
    statistics = running_stats_of(rows)
    spoilt[0, 1, 0] = np.nan
    return recording(
        site(rows, "healthy", gamma=1.5, beta=0, **statistics),
        site(rows, "flat", gamma=[1e-4, 1, 1], beta=0, **statistics),
        site(spoilt, "spoilt", gamma=1.5, beta=0, **statistics),
        site(rows, "moved", gamma=1.5, beta=0, running_mean=statistics["running_mean"] - 1e3, running_var=1),
        site(rows, "forgotten", gamma=1.5, beta=0, running_mean=0, running_var=1),
        site(rows, "poisoned", gamma=1.5, beta=0, running_mean=np.nan, running_var=1),
        site(rows, "by batch", gamma=1.5, beta=0),
        site(rows, "fused", gamma=1.5, beta=0, output="read", mismatch=0.4, **statistics),
        site(rows, "pulled", gamma=1.5, beta=0, gradient=gradient(rows - rows.mean()), **statistics),
        site(
            rows, "exploding", gamma=1.5, beta=0, gradient=gradient(rows * 1e-6, gap_centre=ONE), **statistics
        ),
        site(rows, "cut off", gamma=1.5, beta=0, gradient=gradient(rows * 0), **statistics),
        site(rows, "dead", gamma=[1e-5, 1, 1], beta=[-1, 0, 0], **statistics),
        site(rows, "decayed", gamma=[1e-3, 1, 1], beta=0, neighbours=DECAYED, **statistics),
        site(rows * 1e-4, "faint", gamma=1.5, beta=0, **running_stats_of(rows * 1e-4)),
        site(rows, "left out", gamma=1, beta=0, **statistics),
        site(rows * 1e6, "wide", gamma=1.5, beta=0, **running_stats_of(rows * 1e6)),
        site(rows, "twice", gamma=1.5, beta=0, n_batches_tracked=80, **statistics),
        *in_use(some_rows(40)),
        first_norm("stem", 0.2, 0.4, 1.0),
        site(four, "even", gamma=1.5, beta=0, running_mean=four.mean((0, 2)), running_var=4),
        never_called=("spare",),
        folded=("fused",),
        normalize=Normalize((0.4,) * 3, (0.2,) * 3),
        not_understood=("odd (StrangeNorm)", "fc.weight: 1 of 9 tensors (empty)"),
    )
