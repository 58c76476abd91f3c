"""What `bnprobe.synthesize` returns: images, a table of how they were made and judged, and a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from bnprobe.errors import BnprobeError
from bnprobe.files import write_output
from bnprobe.notebook import facts
from bnprobe.report.chapters.made import answer, page
from bnprobe.report.made_table import MadeTable
from bnprobe.report.numbers import count

SUFFIX = ".safetensors"


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class Made(MadeTable):
    """What `bnprobe.synthesize` returns: images made from running statistics and classes, with their controls.

    Attributes:
        images: The inputs that were made from both, normalized as the model takes them, shape (n, *shape), on the CPU.
        targets: The class of each, shape (n,), int64; None where the model scores no classes.
        table: A row per way to make images, as `images` names it: "statistics and classes", the controls "classes only",
            "statistics only" and "permuted statistics", then "real" and "noise". `n` images, `steps` done; `own` and
            `judge`, the share of images whose class comes first by the network itself and by the judge, with its 95%
            interval `judge_low` to `judge_high` (Wilson); `own_rank` and `judge_rank`, the median rank of the class, 1 for
            the first, with `judge_rank_low` to `judge_rank_high` (order statistics), and `judge_worse`, the probability of
            ranks as much worse than those of the first row by chance (Wilcoxon signed-rank test, image by image); `distance`
            from the running statistics, root mean square over norms, in running standard deviations; `seconds`. NaN where it
            is not known.
        nearest: A row per image, where data were given: the distance of pixels (root mean square, of 0 to 1) to the nearest
            real one, `distance`; of the first real images to their nearest, `real_distance`. None without data.
        model: Class name of the network.
        judge: Class name of the judge; empty without one.
        n_classes: Number of classes; None where the model scores none.
        sheets: Images of each row as colors, for the page.
        shape: Of one input.
        steps: Of each way.
        seed: Of all random numbers.
        seconds: How long it took.
        n_real: Number of real images that were compared.
        notes: What a reader should know, in sentences.
        interrupted: Whether Ctrl-C ended it early.
        class_names: What the classes are called.
    """

    images: Tensor
    targets: Tensor | None

    @property
    def answer(self) -> str:
        """What the running statistics add to the classes, in two sentences."""
        return answer(self)

    def save(self, path: str | Path) -> Path:
        """Write images and targets as safetensors, whole or not at all: calibration data for quantization, for example.

        `safetensors.torch.load_file(path)` gives a dict of "images" and "targets".

        Args:
            path: The file to write, NAME.safetensors; its folder is made if needed.

        Returns:
            The path.

        Raises:
            CannotWrite: The file cannot be written.
            BnprobeError: The name ends in something else.
        """
        path = Path(path)
        if path.suffix != SUFFIX:
            raise BnprobeError(f"{path.name} is written as safetensors. Name it {path.stem}{SUFFIX}.")
        tensors = {"images": self.images.contiguous()}
        tensors |= {} if self.targets is None else {"targets": self.targets}
        return write_output(
            path, save(tensors, {"format": "pt", "made_by": f"bnprobe synthesize of {self.model}"})
        )

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
        shape = " x ".join(map(str, self.shape))
        return f"Made({count(len(self.images), 'image')} of {shape} from {self.model}: {count(len(self.table), 'row')})"

    def _repr_html_(self) -> str:
        return facts(repr(self), [("answer", self.answer), *(("note", note) for note in self.notes)])
