"""What `bnprobe.report` returns: tables for the machine, a page and a text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from bnprobe.errors import NothingRecorded
from bnprobe.measures import (
    Column,
    StemReading,
    Tables,
    exemplars,
    glossary,
    imbalance,
    stem,
    tables,
    timesteps,
)
from bnprobe.recording import NO_PHASE, HasRecording, Recording
from bnprobe.report.browser import Data, data_of
from bnprobe.report.chapters import invariances
from bnprobe.report.chapters.answer import Answer, answer
from bnprobe.report.chapters.phases import phases_section
from bnprobe.report.chapters.transfer import most_telling
from bnprobe.report.compose import compose, opening
from bnprobe.report.document import Document
from bnprobe.report.drift import Drift
from bnprobe.report.figures.specs import Picture
from bnprobe.report.invariances import Invariances
from bnprobe.report.nothing_seen import nothing_seen
from bnprobe.report.numbers import count
from bnprobe.report.page.blocks import Page
from bnprobe.report.source import recording_of
from bnprobe.report.study_table import StudyTable
from bnprobe.rules import judge
from bnprobe.rules.edits import Remedy
from bnprobe.rules.rule import Evidence
from bnprobe.rules.settings import Settings
from bnprobe.rules.tried import Tried

if TYPE_CHECKING:
    from bnprobe.report.figures.axes import Axes


class Report(Document):
    """What `bnprobe.report` and `bnprobe.check` return: tables, findings and pages on one recording.

    Everything is computed once, when first requested. Variances are population variances (divisor n), kurtosis is excess
    kurtosis, and a value that is not defined is NaN. The glossary at the end of each page has a line for every column.

    Attributes:
        recording: The `Recording` it is about, with all phases.
        settings: Findings to leave out, and thresholds.
        study: What `bnprobe.ablate` measured on the same model, for a chapter of the page; or None.
        invariances: What `bnprobe.invariances` found of the same model, for findings and a chapter of the page; or None.
        images: Folder in which the page finds the files of exemplars, for thumbnails; or None.

    Raises:
        NothingRecorded: No forward pass reached a normalization layer.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).eval()
        >>> report = bnprobe.report(bnprobe.record(model, [torch.randn(5, 6)]))
        >>> report.layers[["layer", "n_channels", "mode"]].values.tolist()
        [['1', 4, 'eval']]
        >>> report.channels.sort_values("pre_var").tail(1)["n_values"].item()
        5
    """

    SCHEMA = "report"

    def __init__(
        self,
        recording: Recording,
        settings: Settings | None = None,
        study: StudyTable | None = None,
        invariances: Invariances | None = None,
        images: Path | None = None,
    ) -> None:
        self.recording = recording
        parts = (recording, *recording.parts)
        found = next((part for part in parts if part.weights_only or not part.saw_nothing), None)
        if found is None:
            raise NothingRecorded(nothing_seen(recording))
        self._shown = found
        self.settings = settings or Settings()
        self.study = study
        self.invariances = invariances
        self.images = images
        self._tried: tuple[Tried, ...] | None = None

    @cached_property
    def _tables(self) -> Tables:
        return tables(self._shown)

    @cached_property
    def phases(self) -> dict[str, Report]:
        """A report on each phase that `Probe.phase` kept apart, by name.

        Tables and pages of this report are about what ran in no phase, or about the first phase if nothing did.
        """
        return {
            name: Report(part, self.settings)
            for name, part in self.recording.phases.items()
            if not part.saw_nothing
        }

    @cached_property
    def _page(self) -> Page:
        tried = self.invariances
        page = compose(
            self._shown,
            self._tables,
            self.findings,
            self._answer,
            self._left_out,
            self.study,
            () if tried is None else (invariances.chapter(tried.table, (*tried.sentences, *tried.notes)),),
        )
        return self._with_phases(page)

    @property
    def _opening(self) -> Page:
        page = opening(self._shown, self._tables, self.findings, self._answer, self._left_out)
        return self._with_phases(page)

    def _with_phases(self, page: Page) -> Page:
        """The page with a section on what was recorded apart, where there is such."""
        shown = self._shown.about.phase
        reports = {NO_PHASE: self} | self.phases | {shown: self}
        if shown:
            del reports[NO_PHASE]
        if len(reports) < 2:
            return page
        recordings = {name: one._shown for name, one in reports.items()}
        section = phases_section(shown, recordings, {name: one._counted for name, one in reports.items()})
        return replace(page, sections=(page.sections[0], section, *page.sections[1:]))

    def _data(self) -> Data:
        return data_of(self._shown, self._tables, self.findings, self.images)

    @property
    def _drawn_by_scripts(self) -> Sequence[tuple[str, Picture]]:
        telling = most_telling(self._shown, self._tables)
        return [] if telling is None else [("transfer", telling)]

    @cached_property
    def _answer(self) -> Answer:
        return answer(self._shown, self._tables, self.findings)

    @property
    def answer(self) -> str:
        """What the norms learned and whether something is wrong, in a few sentences."""
        return " ".join(self._answer.sentences)

    @property
    def layers(self) -> pd.DataFrame:
        """A row per site, that is per norm layer and call of it in a forward pass, in the order reached.

        Columns include `layer`, `call`, `kind`, `n_channels`, `n_calls`, `n_values`, `mode` ("eval", "train", "mixed" or
        "weights only") and `verdict`.
        """
        return self._tables.layers

    @property
    def channels(self) -> pd.DataFrame:
        """A row per channel of every site.

        Columns include `gamma`, `beta`, `running_mean`, `running_var`; `pre_mean`, `pre_var`, `pre_skew`, `pre_kurtosis`,
        `pre_min`, `pre_max` of the inputs and the same with `post_` of the outputs; `fires`, the share of outputs above
        0; `shift` in running standard deviations; with a backward pass `grad_gamma`, `grad_beta` and more.
        """
        return self._tables.channels

    @cached_property
    def exemplars(self) -> pd.DataFrame:
        """A row per channel, side and rank: the samples with the highest and lowest means after the norm.

        Columns: `layer`, `call`, `channel`, `side` ("high" or "low"), `rank` from 1, `sample` (its path where it is a file,
        else its running number in the run), `value` (the mean over positions; of norms over channels the highest or lowest
        value at one position), `label` (its class, missing without one), `position` (that one position, else NaN), `caption`
        (its text, if it was given one) and `part` (of merged recordings, that in which the number counts). Empty unless
        exemplars were kept: `attach(model, exemplars=8)`.
        """
        return exemplars(self._shown)

    @cached_property
    def timesteps(self) -> pd.DataFrame:
        """A row per site, bucket of timesteps and group of channels: what norms divide by, and what modulates them.

        For models whose forward takes one timestep, or noise level, per sample as `timestep`, `timesteps`, `t`, `time`,
        `sigma` or `sigmas`; else it is empty. Buckets are of one width, a power of 2; of noise levels they are of log2.

        Columns: `layer`, `call`, `argument` (the name of the timestep), `low` and `high` (the bucket, without `high`),
        `timestep` (their mean in it; of noise levels the geometric one), `n_samples`, `group` from 0; `group_mean` and
        `group_sd`, the mean of the group and the standard deviation that the norm divides by (geometric) in a sample, and
        `group_mean_sd` and `group_log_sd` (of the log) between samples; of layer and RMS norms the group is all channels,
        and these are means over a sample's tokens. `scale` and `shift` are what the norm's output is multiplied by and what
        is added, where one layer makes them of each sample, as in adaLN, `gate` what its branch is multiplied by before it
        is added to the stream; `scale_sd`, `shift_sd` and `gate_sd` are their standard deviations over samples and the
        channels of the group. What was not seen is NaN.
        """
        return timesteps(self._shown)

    @cached_property
    def _judged(self) -> pd.DataFrame:
        evidence = Evidence.of(self._tables, self.settings.limits)
        if self.invariances is not None:
            evidence = replace(evidence, invariances=self.invariances.table)
        return judge(evidence)

    @property
    def remedies(self) -> tuple[Remedy | None, ...]:
        """For each finding what `bnprobe.try_remedies` can carry out; None where it is nothing."""
        return tuple(self._judged["remedy"][~self._ignored])

    def again(self, recording: Recording) -> Report:
        """A report on another recording with the settings of this one.

        Args:
            recording: What it is about.

        Returns:
            The report.

        Raises:
            NothingRecorded: No forward pass reached a normalization layer.
        """
        return Report(recording, self.settings, self.study, self.invariances, self.images)

    def take(self, tried: Sequence[Tried]) -> None:
        """Show what came of each finding's remedy: a column `tried` of the findings, and a line on the pages.

        Args:
            tried: One per finding, in the order of `findings`.
        """
        self._tried = tuple(tried)
        for name in ("findings", "_page", "_answer", "figures"):
            vars(self).pop(name, None)

    def _annotated(self, findings: pd.DataFrame) -> pd.DataFrame:
        if self._tried is None:
            return findings
        says = [one.corrected(says) for one, says in zip(self._tried, findings["says"], strict=True)]
        return findings.assign(says=says, tried=pd.Series(self._tried, index=findings.index, dtype=object))

    @property
    def gradient_imbalance(self) -> float:
        """How unevenly the gradient reaches the norms: 0 if it is equally long at all of them.

        The standard deviation (divisor n) over layers of log10 of the gradient's length at the norm's output. NaN if no
        backward pass was recorded.
        """
        return imbalance(self.layers)

    @cached_property
    def stem(self) -> StemReading:
        """What the first norm's running mean reveals of the training images.

        `mean_rgb` is their mean color (0 to 1, with `normalize` given to `attach`), `padding_share` the share of black
        pixels that augmentation added, `trusted` whether to believe them, and `why` the reason in a sentence.
        """
        return stem(self._shown)

    def drift(self, reference: Recording | HasRecording | str | Path, alpha: float = 0.01) -> Drift:
        """Tell whether inputs have drifted from those of a reference, at any time and as often as you like.

        For monitoring: the chance that anything is ever called drifted where nothing drifts is at most `alpha`, over
        all channels of all norms and all looks at one growing recording. What `shift_q` says holds for one look only.

        Args:
            reference: A recording of inputs as they should be, made with the same model: a `Recording`, `Probe` or
                `Report`, or the path of a saved recording. The more samples it has, the smaller a drift is found.
            alpha: Chance of a false alarm, between 0 and 1.

        Returns:
            The drift: `drifted`, `answer`, and tables of layers and channels.

        Raises:
            CannotCompare: The reference has no norm of the same path, kind and number of channels.
            NothingRecorded: One of the two has no samples.
            BadRecordingFile: The path does not hold a sound recording.
            BnprobeError: `alpha` is not between 0 and 1, or `reference` is something else.

        Example:
            >>> import torch, bnprobe
            >>> seed = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.BatchNorm1d(4)).eval()
            >>> reference = bnprobe.record(model, [torch.randn(400, 4)])
            >>> bnprobe.report(bnprobe.record(model, [torch.randn(200, 4)])).drift(reference).drifted
            False
            >>> bnprobe.report(bnprobe.record(model, [torch.randn(200, 4) + 2])).drift(reference).drifted
            True
        """
        return Drift(self._shown, recording_of(reference, "the reference"), alpha)

    def plot(
        self,
        y: str,
        x: str | None = None,
        *,
        layer: str | None = None,
        ax: Axes | None = None,
        columns: Literal[1, 2] | None = None,
    ) -> Axes:
        """Plot one measure by depth, in one layer, or against another measure, with seaborn.

        Args:
            y: A column of `channels`, drawn as a box per layer by depth, or one of `layers`, drawn as a line by depth.
            x: A column of `channels`; then channels are points of `y` against `x`, colored by how often they are
                positive.
            layer: Draw only the channels of this layer: as a histogram, or as points with `x`.
            ax: The matplotlib axes to draw into. None makes new ones.
            columns: How wide a new figure is on a page of two columns: 1 is 3.4 inches, 2 is 7. None is as wide as the
                names of its layers need.

        Returns:
            The axes.

        Raises:
            NotDefined: There is no such column or layer, or none of its values is defined.
            BnprobeError: `columns` is another number, or is given with `ax`.

        Example:
            >>> import torch, bnprobe
            >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).eval()
            >>> report = bnprobe.report(bnprobe.record(model, [torch.randn(5, 6)]))
            >>> axes = report.plot("pre_mean", layer="1")
            >>> axes.figure.savefig("pre_mean.svg")
        """
        from bnprobe.report.figures.paper import known, plot

        known(self._tables, y, needs_channels=x is not None or layer is not None)
        if x is not None:
            known(self._tables, x, needs_channels=True)
        return plot(self._tables, y, x, layer, ax, columns)

    @property
    def _columns(self) -> Sequence[Column]:
        return glossary()

    @property
    def _named_tables(self) -> Mapping[str, pd.DataFrame]:
        named = {"layers": self.layers, "channels": self.channels, "findings": self.findings}
        more = {"exemplars": self.exemplars, "timesteps": self.timesteps}
        return {**named, **{name: table for name, table in more.items() if not table.empty}}

    @property
    def _contents(self) -> Mapping[str, Any]:
        return {
            "about": self._shown.about,
            "integrity": self._shown.integrity,
            "never_called": self._shown.never_called,
            "not_understood": self._shown.not_understood,
            "answer": self._answer.sentences,
            "gradient_imbalance": self.gradient_imbalance,
            "stem": self.stem,
            "layers": self.layers,
        }

    def __repr__(self) -> str:
        return (
            f"Report({self._shown.about.model}: {count(len(self.layers), 'norm layer')}, "
            f"{count(len(self.channels), 'channel')}, {self._counted})"
        )
