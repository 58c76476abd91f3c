"""What `bnprobe.invariances` returns: a row per probe, the answer in words, and findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from bnprobe.notebook import facts
from bnprobe.report.numbers import count, number
from bnprobe.rules import judge_invariances

_CHANGED = {
    "causality": "the last token is another",
    "padding": "padding is added",
    "batch": "there are others in the batch",
}
_KEPT = {
    "causality": "outputs of earlier tokens",
    "padding": "outputs of tokens",
    "batch": "outputs of a sample",
}


@dataclass(frozen=True, repr=False, eq=False)
class Invariances:
    """What `bnprobe.invariances` returns: what moves a model's outputs and should not.

    Attributes:
        table: A row per probe. `probe` is "causality", "padding" or "batch"; `holds` whether outputs stay, None where it was
            not tried; `largest_change` of one number of the outputs; `first_norm`, the path of the first norm whose input
            changes; `culprit`, that of the first module that is given the same and gives something else,
            `culprit_class`, and `culprit_stores`, whether it is in train mode and has buffers that eval mode would use, as
            running statistics; `largest_output`; `allowed`, the change that counts as rounding; `meant`, whether the model
            is meant to hold (not to be causal, where it sees both sides); `n` samples; `note`, what else there is to say, as
            why it was not tried.
        model: Its class name.
        n_samples: Number of samples in all batches.
        seconds: How long it took.
        notes: What the model's own code left changed, in sentences; empty as a rule.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).train()
        >>> tried = bnprobe.invariances(model, [torch.randn(5, 6)], probes="batch")
        >>> tried.table[["probe", "holds"]].values.tolist()
        [['batch', False]]
    """

    table: pd.DataFrame
    model: str
    n_samples: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """What holds and what does not, in words."""
        return " ".join(self.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same, one per probe."""
        return tuple(_sentence(row) for _, row in self.table.iterrows())

    @cached_property
    def findings(self) -> pd.DataFrame:
        """A row per finding, with the columns of `Report.findings`."""
        return judge_invariances(self.table)

    def __repr__(self) -> str:
        words = {True: "holds", False: "does not hold", None: "not tried"}
        said = ", ".join(f"{row['probe']} {words[row['holds']]}" for _, row in self.table.iterrows())
        return f"Invariances({self.model}: {said})"

    def _repr_html_(self) -> str:
        return facts(repr(self), self._facts())

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield from zip(self.table["probe"], self.sentences, strict=True)
        yield from (("note", note) for note in self.notes)


def _sentence(row: pd.Series) -> str:
    probe, note = str(row["probe"]), f" {row['note']}" if row["note"] else ""
    name = f"{probe[:1].upper()}{probe[1:]}"
    if row["holds"] is None:
        return f"{name}:{note[:1]}{note[1:2].lower()}{note[2:]}"
    n = count(int(row["n"]), "sample" if probe == "batch" else "sequence")
    what = f"{_KEPT[probe]} {{}} when {_CHANGED[probe]}"
    if row["holds"]:
        return f"{name} holds: {what.format('stay')}, on {n}.{note}"
    words = (
        f"{name} does not hold: {what.format(f'''change by up to {number(row['largest_change'])}''')}, on {n}"
    )
    if not row["meant"]:
        usual = ", as in any model that sees both sides" if probe == "causality" else ""
        return f"{words}{usual}.{note}"
    where = f"; it starts in {row['culprit']}" if row["culprit"] else ""
    norm = f", and the first norm whose input changes is {row['first_norm']}" if row["first_norm"] else ""
    return f"{words}{where}{norm}.{note}"
