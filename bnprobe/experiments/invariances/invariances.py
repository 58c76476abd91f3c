"""What must not move an output, tried on a model: its last token, padding, and the other samples of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import pandas as pd
import torch
from torch import nn

from bnprobe.errors import BnprobeError, class_name
from bnprobe.experiments.invariances.changes import (
    BATCH,
    CAUSALITY,
    PADDING,
    PROBES,
    NotTried,
    Pair,
    batch,
    causality,
    padding,
)
from bnprobe.experiments.invariances.parting import Parting
from bnprobe.experiments.invariances.passes import Moved, Passes
from bnprobe.experiments.invariances.sequences import NotSequences, Sequences, sequences
from bnprobe.experiments.put_back import put_back
from bnprobe.experiments.run import Batches, Call
from bnprobe.report.invariances import Invariances


def invariances(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    probes: str | Sequence[str] = PROBES,
    mask: str | None = None,
    causal: bool | None = None,
    call: Call | None = None,
) -> Invariances:
    """Try what must not move a model's outputs, and name the first norm whose input moves where it does.

    Three probes, two passes each. "causality": another last token must leave the outputs of earlier tokens as they are.
    "padding": padding before the tokens (with a mask, and with the positions that they had) and after them must leave the
    outputs of tokens as they are. "batch": a sample must have the same outputs alone and beside others. The first two need
    tokens: whole numbers of shape (N, T), as `input_ids` or as the model's only input.

    The model runs in the mode it is in and is afterwards as it was, bit for bit, also after an exception: batch norms in
    train mode couple the samples of a batch, in eval mode they do not. Outputs may differ by rounding where matrices have
    other shapes: 0.0001 of the largest output in float32 (0.005 on a GPU), 0.05 in half precision, a tenth of that for
    "causality", whose passes have the same shapes.

    Args:
        model: Any `torch.nn.Module`. What it gives is `logits` of an output that has them, else the first tensor.
        batches: A list of batches or a loader, as for `bnprobe.record`; a few are enough. Of padded batches the longest
            sequences are used.
        probes: Which of "causality", "padding" and "batch".
        mask: Name of the argument that holds the mask, "~" before it if it is true for padding. None finds the usual ones.
        causal: Whether the model is meant to predict each token from those before it. None takes it from the class, from
            `is_causal` of its attention, from targets that are the next tokens, or from outputs that score every token.
        call: Function of (model, batch) that runs one batch and returns the output, where `model(x)` does not.

    Returns:
        A table with a row per probe, its answer in words, and findings.

    Raises:
        BadMask: A mask has another shape than the tokens, or keeps none of them.
        NothingRecorded: There were no samples.
        BnprobeError: Two passes of one batch differ, as with dropout; there are no tokens; or an argument is out of range.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).eval()
        >>> bnprobe.invariances(model, [torch.randn(5, 6)]).table.loc[2, ["probe", "holds"]].tolist()
        ['batch', True]
        >>> tried = bnprobe.invariances(model.train(), [torch.randn(5, 6)], probes="batch")
        >>> tried.table["holds"].tolist()
        [False]
    """
    chosen = _demand(model, probes)
    began = monotonic()
    seen = Batches(model, batches, "trying")
    rows = {name: _Row(name) for name in chosen}
    with put_back(model) as afterwards, torch.no_grad():
        for given in seen:
            tokens = _sequences(model, given, mask, causal)
            passes = Passes(model, given, call)
            for row in rows.values():
                row.add(passes, given, tokens, model)
    return Invariances(
        pd.DataFrame([row.as_dict() for row in rows.values()]).astype({"holds": object}),
        model=class_name(model),
        n_samples=seen.n_samples,
        seconds=monotonic() - began,
        notes=tuple(f"The model itself changed: {words}." for words in afterwards.changes),
    )


def _demand(model: nn.Module, probes: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(model, nn.Module):
        raise BnprobeError(
            f"invariances needs a torch.nn.Module, got {class_name(model)}. Pass the model itself."
        )
    chosen = (probes,) if isinstance(probes, str) else tuple(probes)
    if not chosen or not set(chosen) <= set(PROBES):
        raise BnprobeError(
            f"probes={probes!r} must be of {', '.join(PROBES)}. Pass for example ('causality', 'padding')."
        )
    return tuple(name for name in PROBES if name in chosen)


def _sequences(
    model: nn.Module, given: Any, mask: str | None, causal: bool | None
) -> Sequences | NotSequences:
    """The batch as sequences, or why it holds none."""
    try:
        found = sequences(model, given, mask)
    except NotSequences as why:
        return why
    return found if causal is None else found.meant(causal)


@dataclass
class _Row:
    """One probe, batch after batch: the pair that moves most, or why there is none."""

    name: str
    worst: Moved | None = None
    where: Parting = field(default_factory=Parting)
    n_samples: int = 0
    causal: bool | None = None
    why: str = ""
    aside: str = ""

    def add(self, passes: Passes, given: Any, tokens: Sequences | NotSequences, model: nn.Module) -> None:
        """Try it on a batch."""
        try:
            for pair in self._pairs(given, tokens, model):
                if pair.instead and not self.why:
                    return
                self._take(passes, pair)
        except NotTried as why:
            self.why = self.why or str(why)

    def _pairs(self, given: Any, tokens: Sequences | NotSequences, model: nn.Module) -> Iterator[Pair]:
        if self.name == BATCH:
            return batch(given)
        if isinstance(tokens, NotSequences):
            raise NotTried(str(tokens))
        self.causal = tokens.causal
        if self.name == PADDING and tokens.mask is None:
            self.aside = "the model takes no mask, so only padding after the tokens was tried"
        return (causality if self.name == CAUSALITY else padding)(tokens, model)

    def _take(self, passes: Passes, pair: Pair) -> None:
        """Run a pair, and see where it parts, if it is the worst."""
        try:
            moved = passes.compare(pair)
        except NotTried as why:
            self.why = self.why or str(why)
            return
        self.n_samples += pair.n_samples
        if self.worst is None or moved.rank > self.worst.rank:
            self.worst = moved
            self.where = Parting() if moved.holds else passes.parting(moved)

    def as_dict(self) -> dict[str, Any]:
        """The row of the table."""
        worst = self.worst
        meant = self.causal is True or (
            self.causal is None and worst is not None and worst.n_scores > worst.pair.largest_token >= 0
        )
        return {
            "probe": self.name,
            "holds": None if worst is None else worst.holds,
            "largest_change": float("nan") if worst is None else worst.change,
            "first_norm": self.where.first_norm,
            "culprit": self.where.culprit,
            "culprit_class": self.where.culprit_class,
            "culprit_stores": self.where.culprit_stores,
            "largest_output": float("nan") if worst is None else worst.largest_output,
            "allowed": float("nan") if worst is None else worst.allowed,
            "meant": meant if self.name == CAUSALITY else worst is None or not worst.is_shift,
            "n": self.n_samples,
            "note": self._note,
        }

    @property
    def _note(self) -> str:
        worst = self.worst
        if worst is None:
            return f"Not tried: {self.why}."
        said = [self.aside] * bool(self.aside)
        if self.why:
            said.append(f"some batches were left out: {self.why}" if not worst.pair.instead else self.why)
        if worst.now_at is not None:
            said.append(f"outputs come in another order: that of the first sample is in row {worst.now_at}")
        if worst.is_shift:
            said.append(
                "it is padding before the tokens alone that moves them: they stand at other positions then, and the model "
                "takes no position_ids. Pad after the tokens"
            )
        elif not worst.holds and worst.pair.words:
            said.append(f"it is padding {worst.pair.words} that moves them")
        words = "; ".join(said)
        return f"{words[:1].upper()}{words[1:]}." if words else ""
