"""What an operation on a copy of the model returns: the new model, a table of what was done, and the effect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd
import torch
from torch import nn

from bnprobe.errors import NoNormLayers, class_name
from bnprobe.experiments.effect import Effect
from bnprobe.experiments.outputs import Metric
from bnprobe.experiments.run import Call
from bnprobe.experiments.surgery.either import compare
from bnprobe.experiments.surgery.look import Look, Norm, tolerance
from bnprobe.norms import ModuleTree
from bnprobe.notebook import facts
from bnprobe.recording.terms import ACCURACY

NOT_CHOSEN = "no pattern of layers= matches it"

ANOTHER_WAY = (
    "The outputs change by more than rounding, though what was done changes none where all runs as on the first batch: "
    "on others it takes another way, or it multiplies rounding. Find out which before you use the new model."
)


@dataclass(frozen=True, repr=False)
class Converted:
    """What `fold`, `replace_norms` and `prune` return. The model that was given is as it was.

    Attributes:
        model: The new model, a copy in eval mode.
        layers: A row per norm in the order of execution: `layer`, `kind`, `n_channels`; `done`, in words, "" where it was
            left as it is, and then `why`; `change`, the largest change of one number of that norm's output where what came
            before it is as it was, and `change_relative`, that over the largest number of its output.
        effect: What the whole does to the outputs, on the same samples before and after.
    """

    model: nn.Module
    layers: pd.DataFrame
    effect: Effect

    @property
    def says(self) -> str:
        """The result in a sentence."""
        n, of = int((self.layers["done"] != "").sum()), len(self.layers)
        found = f"{n:,} of {of:,} norm{'s' * (of != 1)} changed"
        if not n:
            return f"{found}: {self.layers['why'].iloc[0]}"
        decided = (
            ""
            if pd.isna(self.effect.agreement)
            else f", {100 * self.effect.agreement:.1f}% of decisions stay"
        )
        measured = f"; {self.effect.says}" if self.effect.metric == ACCURACY else ""
        return f"{found}; outputs change by at most {self.effect.largest_relative:.2g} of their size{decided}{measured}"

    def __repr__(self) -> str:
        return f"Converted({self.says})"

    def _repr_html_(self) -> str:
        shown = self.layers.to_html(index=False, float_format="{:.2g}".format)
        return facts(repr(self), [("note", note) for note in self.effect.notes]) + shown


@dataclass
class Row:
    """One norm's line in the table."""

    norm: Norm
    done: str = ""
    why: str = ""
    change: float = 0.0
    size: float = 0.0

    def saw(self, change: float, size: float) -> None:
        """Add one call's largest change of the output, and the output's largest value."""
        self.change, self.size = max(self.change, change), max(self.size, size)

    @property
    def relative(self) -> float:
        """The change over the size."""
        return self.change / self.size if self.size else float(self.change > 0)

    def keeps(self, why: str) -> None:
        """Leave this norm as it is."""
        self.done, self.why, self.change, self.size = "", why, 0.0, 0.0


def rows_of(look: Look, layers: str | Sequence[str] | None, act: str) -> dict[str, Row]:
    """A row for each norm in the order of execution, those that cannot be changed with the reason.

    Raises:
        NoNormLayers: No norm matches `layers`, or none of those is the affine map of stored statistics.
    """
    patterns = [layers] if isinstance(layers, str) else layers
    kind = class_name(look.model)
    rows: dict[str, Row] = {}
    for norm in look.in_order:
        matches = patterns is None or any(fnmatchcase(norm.path, pattern) for pattern in patterns)
        why = norm.why or ("" if norm.n_calls else "these batches do not reach it")
        rows[norm.path] = Row(norm, why=why if matches else NOT_CHOSEN)
    chosen = [row for row in rows.values() if row.why != NOT_CHOSEN]
    if not chosen:
        raise NoNormLayers(
            f"no norm of {kind} matches {', '.join(patterns or [])}. It has {', '.join(list(rows)[:3])}. Pass a path or a "
            "pattern of these."
        )
    if all(row.why for row in chosen):
        first = chosen[0]
        raise NoNormLayers(
            f"no norm of {kind} can be {act}: {first.norm.path}: {first.why}. Only batch norms in eval mode with running "
            "statistics can; take away what is named, or leave this model as it is."
        )
    return rows


def put_in_place(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Every place of a model that holds a module holds the new one, in the mode of the old."""
    new.training = old.training
    for parent in ModuleTree.of(model).modules.values():
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def converted(
    old: nn.Module,
    new: nn.Module,
    rows: Iterable[Row],
    batches: Iterable[Any],
    metric: Metric | None,
    call: Call | None,
    same: bool = True,
) -> Converted:
    """The new model with its table, measured against the old one. `same`: its outputs should be those of the old."""
    effect = compare(old, new, batches, metric, call)
    weights = [w for w in ModuleTree.of(new).parameters().values() if w.is_floating_point()]
    rounding = max(map(tolerance, weights or [torch.empty(0)]))
    if same and effect.largest_relative > rounding:
        effect = replace(effect, notes=(*effect.notes, ANOTHER_WAY))
    table = pd.DataFrame(
        [
            {
                "layer": row.norm.path,
                "kind": row.norm.plan.kind,
                "n_channels": row.norm.plan.n_channels,
                "done": row.done,
                "why": row.why,
                "change": row.change,
                "change_relative": row.relative,
            }
            for row in rows
        ]
    )
    return Converted(new, table, effect)
