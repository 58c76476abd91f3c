"""What `bnprobe.compare` returns: tables of differences, findings, a page, a text and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from bnprobe.comparison import (
    Differences,
    DifferenceSite,
    Pairs,
    differences,
    first_difference,
    glossary,
    pairs,
)
from bnprobe.comparison.gguf_gains import with_ones
from bnprobe.comparison.misplaced import misplaced
from bnprobe.comparison.names import gguf_side, under_names_of
from bnprobe.comparison.page.page import compose
from bnprobe.comparison.page.sentences import answer
from bnprobe.comparison.page.to_json import contents
from bnprobe.comparison.upstream import Upstream
from bnprobe.errors import CannotCompare, NothingRecorded
from bnprobe.measures import Column
from bnprobe.recording import Recording
from bnprobe.report.browser import Data
from bnprobe.report.document import Document
from bnprobe.report.drift import Drift
from bnprobe.report.nothing_seen import nothing_seen
from bnprobe.report.numbers import count, listed
from bnprobe.report.page.blocks import Page
from bnprobe.rules import COMPARED, judge
from bnprobe.rules.rule import Evidence
from bnprobe.rules.settings import Settings


class Comparison(Document):
    """What `bnprobe.compare` returns: how B differs from A, and where that starts.

    Everything is computed once, when first requested. Differences are B - A and ratios B / A. Distances (`pre_gap`,
    `post_gap`, `running_gap`, `affine_gap`) are sqrt((difference of means)² + (difference of standard deviations)²), in
    units of the root mean square of both standard deviations.

    Attributes:
        a: The `Recording` of side A, what was there before.
        b: The `Recording` of side B, under the names of A where a prefix of all names tells them apart, or B or A is a GGUF
            file. Gains that one side stores as w and the GGUF file as 1 + w are 1 + w on both.
        settings: Findings to leave out, and thresholds.

    Raises:
        CannotCompare: The sides have no norm in common.
        NothingRecorded: A side has no norm at all.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).eval()
        >>> before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        >>> with torch.no_grad():
        ...     weight = model[1].weight.mul_(2)
        >>> comparison = bnprobe.compare(before, model.state_dict())  # checkpoints: what is stored
        >>> comparison.channels["affine_ratio"].tolist()
        [2.0, 2.0, 2.0, 2.0]
        >>> comparison.opens.layer, comparison.opens.aspect
        ('1', 'affine')
    """

    SCHEMA = "comparison"

    def __init__(self, a: Recording, b: Recording, settings: Settings | None = None) -> None:
        for side, recording in (("A", a), ("B", b)):
            if not recording.layers:
                raise NothingRecorded(f"{side}: {nothing_seen(recording)}")
        self._gguf = gguf_side(a, b)
        renamed_b, renamed = under_names_of(a, b)
        self.a, self.b, added = with_ones(a, renamed_b, self._gguf)
        self._notes = tuple(filter(None, (renamed, added)))
        self.settings = settings or Settings()
        if not self._pairs.common:
            raise CannotCompare(
                f"{a.about.model} and {b.about.model} have no norm with the same path and width: A has {_names(a)}, "
                f"B has {_names(b)}. Rename the modules of one, or compare the same network in two states."
            )

    @cached_property
    def _pairs(self) -> Pairs:
        return pairs(self.a, self.b)

    @cached_property
    def _tables(self) -> Differences:
        return differences(self._pairs, Upstream.of(self.a, self.b), misplaced(self.a, self.b))

    @cached_property
    def _page(self) -> Page:
        return compose(
            self.a,
            self.b,
            self._pairs,
            self._tables,
            self.findings,
            self.answer,
            self.settings.limits.gap,
            self._left_out,
        )

    def _data(self) -> Data | None:
        from bnprobe.comparison.page.moving import data_of

        return data_of(self._pairs, self._tables, self.findings)

    @property
    def layers(self) -> pd.DataFrame:
        """A row per site that both sides have, in the order in which A reached them; sort by `change`."""
        return self._tables.layers

    @property
    def channels(self) -> pd.DataFrame:
        """A row per channel of these sites: both sides, differences, ratios, standard errors, adjusted p-values."""
        return self._tables.channels

    @property
    def unmatched(self) -> pd.DataFrame:
        """A row per site that could not be compared, with its `side` and the reason (`why`)."""
        return self._tables.unread

    @property
    def tensors(self) -> pd.DataFrame:
        """A row per tensor beside the norms that differs or that one side lacks, with its size (root mean square)."""
        return self._tables.tensors

    @property
    def identical(self) -> bool:
        """Whether both sides have the same norms with the same numbers, to the last bit, and no other tensor differs."""
        return bool(self.layers["identical"].all()) and self.unmatched.empty and self.tensors.empty

    @cached_property
    def opens(self) -> DifferenceSite | None:
        """The first place, in the order of the data, where the sides differ by half a standard deviation, or None.

        The threshold is `gap` of the settings. None, too, where the sides were trained apart, so that their channels do not
        correspond.
        """
        return None if self._tables.apart else first_difference(self.layers, self.settings.limits.gap)

    @cached_property
    def answer(self) -> tuple[str, ...]:
        """What changed, in a few sentences; the first one says where the difference starts."""
        said = answer(self.a, self.b, self._tables, self.findings, self.settings.limits)
        return (*said, *self._notes)

    def drift(self, alpha: float = 0.01) -> Drift:
        """Tell whether the inputs of B have drifted from those of A, at any time and as often as you like.

        As `Report.drift` of B with A as its reference: for a B that grows, when it is looked at again and again.

        Args:
            alpha: Chance of a false alarm over all channels and all looks, between 0 and 1.

        Returns:
            The drift: `drifted`, `answer`, and tables of layers and channels.

        Raises:
            CannotCompare: No norm in common is of one kind on both sides.
            NothingRecorded: A side has no samples.
            BnprobeError: `alpha` is not between 0 and 1.
        """
        return Drift(self.b, self.a, alpha)

    @cached_property
    def _judged(self) -> pd.DataFrame:
        tables = self._tables
        evidence = Evidence(
            tables.layers,
            tables.channels,
            tables.unread,
            self.settings.limits,
            tensors=tables.tensors,
            apart=tables.apart,
            misplaced=tables.misplaced,
            folds=tables.folds,
            gguf=self._gguf,
        )
        return judge(evidence, rules=COMPARED)

    @property
    def _columns(self) -> Sequence[Column]:
        return glossary()

    @property
    def _named_tables(self) -> Mapping[str, pd.DataFrame]:
        return {
            "layers": self.layers,
            "channels": self.channels,
            "unmatched": self.unmatched,
            "tensors": self.tensors,
            "findings": self.findings,
        }

    @property
    def _contents(self) -> Mapping[str, Any]:
        return contents(self.a, self.b, self._tables, self.identical, self.answer, self.opens)

    def __repr__(self) -> str:
        where = (
            "identical"
            if self.identical
            else f"first difference at {self.opens.words}"
            if self.opens
            else "no large difference"
        )
        return (
            f"Comparison({self.a.about.model} with {self.b.about.model}: {count(len(self.layers), 'common norm')}, "
            f"{where}, {count(len(self.findings), 'finding')})"
        )


def _names(recording: Recording) -> str:
    sites = [f"{record.site} ({record.kind}, {record.n_channels:,} channels)" for record in recording.layers]
    return listed(sites, 2)
