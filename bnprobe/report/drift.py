"""What `Report.drift` returns: whether inputs have drifted from a reference, by bounds that hold at every look."""

from __future__ import annotations

from functools import cached_property

import pandas as pd

from bnprobe.measures.drift import COLUMNS, DriftTables, drift_tables
from bnprobe.notebook import facts
from bnprobe.recording import Recording
from bnprobe.recording.names import site_name
from bnprobe.report.chapters.glossary import explain
from bnprobe.report.numbers import count, listed, number


class Drift:
    """What `Report.drift` returns: inputs measured now, against those of a reference, channel by channel.

    Attributes:
        now: The `Recording` that was looked at.
        reference: The `Recording` of inputs as they should be.
        alpha: Chance that anything is ever called drifted where nothing drifts: over all channels of all norms, and all
            looks at a recording that grows.

    Raises:
        CannotCompare: The two have no norm of the same path, kind and number of channels.
        NothingRecorded: One of the two has no samples.
        BnprobeError: `alpha` is not between 0 and 1.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.BatchNorm1d(4)).eval()
        >>> reference = bnprobe.record(model, [torch.randn(400, 4)])
        >>> drift = bnprobe.report(bnprobe.record(model, [torch.randn(200, 4) + 2])).drift(reference)
        >>> drift.drifted, drift.channels["drifted"].tolist()
        (True, [True, True, True, True])
    """

    def __init__(self, now: Recording, reference: Recording, alpha: float) -> None:
        self.now, self.reference, self.alpha = now, reference, alpha
        self._tables: DriftTables = drift_tables(now, reference, alpha)

    @property
    def layers(self) -> pd.DataFrame:
        """A row per norm that both have, in the order reached: samples, typical drift and its noise, channels drifted."""
        return self._tables.layers

    @property
    def channels(self) -> pd.DataFrame:
        """A row per channel: both means, drift in standard deviations of the reference, its bound, q, and `drifted`."""
        return self._tables.channels

    @property
    def drifted(self) -> bool:
        """Whether any channel has drifted."""
        return bool(self.channels["drifted"].any())

    @cached_property
    def answer(self) -> str:
        """The result in a few sentences, the verdict first."""
        n = f"{count(self.now.about.n_images, 'sample')} against {count(self.reference.about.n_images, 'sample')}"
        sentences = [self._verdict(n)]
        if not self._tables.same_weights:
            sentences.append("The weights of the two differ, which moves inputs as well.")
        if self._tables.left_out:
            names = list(self._tables.left_out)
            sentences.append(f"Not in both, and left out: {listed(names)}.")
        return " ".join(sentences)

    def _verdict(self, n: str) -> str:
        layers = self.layers[self.layers["n_drifted"] > 0]
        if layers.empty:
            limit = self.channels["drift_bound"].median()
            found = (
                f" A typical channel counts as drifted from {number(limit, 2)} σ on."
                if limit == limit
                else ""
            )
            return f"No drift beyond sampling error ({n}).{found}"
        first, moved = layers.iloc[0], self.channels[self.channels["drifted"]]
        farthest = moved.iloc[int(moved["drift"].abs().to_numpy().argmax())]
        where = site_name(str(first["layer"]), int(first["call"]))
        at = site_name(str(farthest["layer"]), int(farthest["call"]))
        return (
            f"Inputs have drifted at {len(layers)} of {count(len(self.layers), 'norm')}, first at {where} ({n}): "
            f"{count(len(moved), 'channel')} of {len(self.channels):,}, by {number(abs(farthest['drift']), 2)} σ at most "
            f"({at}, channel {farthest['channel']}). Chance of a false alarm at any look: {100 * self.alpha:g}% or less."
        )

    def explain(self, name: str) -> str:
        """What a column of the tables means: its meaning, formula, unit and source, as far as there are any.

        Args:
            name: A column of `layers` or `channels`, as "drift_bound".

        Returns:
            The column in words.

        Raises:
            NotDefined: There is no such column; the message names the nearest ones.
        """
        return explain(COLUMNS, name)

    def __repr__(self) -> str:
        n = int(self.channels["drifted"].sum())
        return f"Drift({n:,} of {count(len(self.channels), 'channel')} drifted, alpha {self.alpha})"

    def _repr_html_(self) -> str:
        return facts(repr(self), [("answer", self.answer)])
