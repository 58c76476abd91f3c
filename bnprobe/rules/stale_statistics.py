"""Rules about training that leaves the running statistics behind: the weights change, and they stay as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.rules.by_hand import TRAINING
from bnprobe.rules.edits import TrackStatistics, remedy
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count


def learning_in_eval(evidence: Evidence) -> Iterator[Finding]:
    """A model that is trained in eval mode: one finding for all of its batch norms."""
    norms = _with_running_statistics(evidence)
    found = norms[(norms["n_learned_in_eval"] > 0) & (norms["n_backward"] > 0)]
    if found.empty:
        return
    row = found.sort_values("n_learned_in_eval", kind="stable").iloc[-1]
    yield Finding(
        "warning",
        row["layer"],
        "The model learns in eval mode: weights change while the running statistics stay fixed, and dropout is off.",
        f"γ or β changed after {row['n_learned_in_eval']:,.0f} of {count(row['n_calls'], 'call')}, which computed gradients "
        f"while the model was in eval mode; {count(found['layer'].nunique(), 'batch norm')} learned like that.",
        "Call `model.train()` before each epoch and again after each validation. To train on fixed running statistics on "
        "purpose, freeze γ and β too.",
        call=row["call"],
    )


def never_updating(evidence: Evidence) -> Iterator[Finding]:
    """Batch norms that learn from batch statistics and never update the running ones that they hold."""
    norms = _with_running_statistics(evidence)
    found = norms[
        (norms["mode"] == "train")
        & (norms["normalized_by"] == "batch")
        & (norms["n_calls_learning"] == norms["n_calls"])
        & (norms["n_backward"] > 0)
        & (norms["memory_moved"] == 0)
        & ~(norms["n_updates"] > 0)
        & ~(norms["momentum"] == 0)  # the rule on momentum reports these
    ]
    if found.empty:
        return
    row = found.iloc[0]
    yield Finding(
        "warning",
        row["layer"],
        "Training uses batch statistics and never updates the running statistics: eval mode will use the old ones.",
        f"train mode with gradients in {count(row['n_calls'], 'call')}, after which the running means were exactly as "
        f"before, in {count(found['layer'].nunique(), 'batch norm')}. track_running_stats = False does this: it freezes "
        "the running statistics, not the norm.",
        "To freeze the norms, put them into eval mode after every model.train(); to let them follow, "
        "`[setattr(m, 'track_running_stats', True) for m in model.modules() if isinstance(m, "
        "torch.nn.modules.batchnorm._BatchNorm)]`, and train on.",
        call=row["call"],
        remedy=remedy(TrackStatistics()),
    )


def _with_running_statistics(evidence: Evidence) -> pd.DataFrame:
    layers = evidence.layers
    return layers[(layers["kind"] == "batch_norm") & (layers["n_calls"] > 0) & layers["memory_moved"].notna()]


RULES = (
    Rule(
        "learning-in-eval",
        "Was the model in train mode while it learned?",
        "https://github.com/joeynmt/joeynmt/issues/184, https://github.com/tk-rusch/coRNN/issues/1",
        "train mode, or γ and β that do not change, wherever gradients are computed",
        learning_in_eval,
        by_hand=TRAINING,
        of_calls=True,
    ),
    Rule(
        "statistics-not-updated",
        "Are the running statistics updated while batch statistics are used in training?",
        "https://github.com/pytorch/pytorch/issues/86590; torch.nn.BatchNorm2d, track_running_stats",
        "running means that move while the norm learns in train mode",
        never_updating,
        edits=(TrackStatistics,),
        of_calls=True,
    ),
)
