"""What `bnprobe.ablate` returns: a table of what each replacement does, what each vector is worth, a page and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bnprobe.files import write_output
from bnprobe.report.chapters.worth import page, sentence
from bnprobe.report.numbers import count
from bnprobe.report.study_file import decoded, encoded
from bnprobe.report.study_table import StudyTable

if TYPE_CHECKING:
    from bnprobe.report.figures.axes import Axes


@dataclass(frozen=True, repr=False, eq=False)
class Study(StudyTable):
    """What `bnprobe.ablate` returns: what each vector of each norm is worth.

    Attributes:
        table: A row per replacement, the whole network first (`layer` ""), then stages, then layers in the order of
            execution, as `level` says. `vector` ("mean", "var", "scale", "centering", "weight", "bias") became `replacement`
            ("data", "0", "1", "mean", "implied", "permuted", "unsigned", "initial"; of a scale "constant", "two",
            "position", "loud"; of centering "removed", "added"). `before`, `after` and `difference` of the metric;
            `low` and `high`, the 95% interval of the difference (paired bootstrap over samples); `agreement`, the share
            of decisions that stay, and `kl`, of the softmax after from the softmax before, in nats (NaN where nothing is
            decided); `n` samples. `difference_rest` is the difference without the first token of each sequence, of a loss.
            `estimated` rows were not measured, for lack of time, and have only `estimate`: to first order, the change of a
            sample's loss, root mean square over samples.
        model: Its class name.
        metric: Name of what was measured.
        n_samples: Number of samples.
        seconds: How long it took.
        seed: Of the permutations.
        notes: What a reader should know, in sentences.
        interrupted: Whether Ctrl-C ended it early.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).eval()
        >>> study = bnprobe.ablate(model, [torch.randn(50, 6) for _ in range(4)], vectors="mean")
        >>> study
        Study(Sequential: 1 norm, 4 replacements on 200 samples)
        >>> study.worth[["layer", "vector"]].values.tolist()
        [['', 'mean'], ['1', 'mean']]
    """

    @property
    def answer(self) -> str:
        """Which vectors are worth most, in a sentence."""
        return sentence(self)

    def plot(self, vector: str | None = None, ax: Axes | None = None) -> Axes:
        """Plot what vectors are worth by depth, or the metric by depth with each replacement of one vector.

        Args:
            vector: "mean", "var", "weight" or "bias". None draws what each of them is worth.
            ax: The matplotlib axes to draw into. None makes new ones.

        Returns:
            The axes.

        Raises:
            NotDefined: No row is about this vector.
        """
        from bnprobe.report.figures.worth import plot

        return plot(self, vector, ax)

    def save(self, path: str | Path) -> Path:
        """Write the study as JSON, whole or not at all, for `Study.load` and `bnprobe report --study`.

        Args:
            path: The file to write; its folder is made if needed.

        Returns:
            The path.

        Raises:
            CannotWrite: The file cannot be written.
        """
        return write_output(Path(path), encoded(self))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a study that `Study.save` wrote; needs no torch.

        Args:
            path: The file.

        Returns:
            The study.

        Raises:
            BadRecordingFile: The file is missing, truncated, or no study; the message names the field.
        """
        return cls(**decoded(Path(path)))

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page, whole or not at all; it works offline and as an attachment.

        Args:
            path: The file to write; its folder is made if needed.

        Returns:
            The path.

        Raises:
            CannotWrite: The file cannot be written.
        """
        from bnprobe.report.formats.html import to_html

        return write_output(Path(path), to_html(page(self), None).encode())

    def __repr__(self) -> str:
        return (
            f"Study({self.model}: {count(len(self.layers), 'norm')}, {count(len(self.table), 'replacement')} on "
            f"{count(self.n_samples, 'sample')})"
        )
