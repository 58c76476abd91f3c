"""What came of a remedy that was carried out, as data and in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

GONE, REMAINS, CHANGED, NOT_TRIED = "gone", "remains", "changed", "not tried"

ENOUGH = 0.75
"""Share of the squared discrepancy that must go with a cause for its name to be kept."""


@dataclass(frozen=True)
class Tried:
    """What came of the remedy of one finding, in `findings["tried"]` after `bnprobe.try_remedies`.

    `str()` of it says it in a sentence.

    Attributes:
        fate: "gone"; "remains"; "changed", if the finding is still there, with another severity, sentence or channels; or
            "not tried".
        why: Why the remedy was not carried out; empty if it was.
        n: Number of samples.
        largest_change: Largest change of one number of the outputs.
        largest_relative: Largest over samples of the norm of the output's change over the norm of the output.
        agreement: Share of samples (positions) decided as before; NaN where nothing is decided.
        kl: Mean Kullback-Leibler divergence of the softmax after from the softmax before, in nats; NaN likewise.
        metric: Name of the metric; empty without one.
        before: Mean of the metric over samples, before.
        after: The same, after.
        low: Lower end of the 95% interval of after - before: paired bootstrap over samples.
        high: Upper end of it.
        explains: Where the finding names a cause that the remedy undoes: the share of the squared discrepancy from the
            running statistics that is gone; NaN otherwise.
        brings: Rules with findings at warning or above that were not there before.
        together: Number of places where the remedy was carried out, all together.
    """

    fate: str
    why: str = ""
    n: int = 0
    largest_change: float = nan
    largest_relative: float = nan
    agreement: float = nan
    kl: float = nan
    metric: str = ""
    before: float = nan
    after: float = nan
    low: float = nan
    high: float = nan
    explains: float = nan
    brings: tuple[str, ...] = ()
    together: int = 1

    def __str__(self) -> str:
        if self.fate == NOT_TRIED:
            return f"Not tried: {self.why}."
        return f"Tried: {'; '.join([self._finding, *self._effects])}."

    @property
    def refutes(self) -> bool:
        """Whether the finding names a cause, which was undone, and most of the discrepancy was left."""
        return self.explains < ENOUGH

    def corrected(self, says: str) -> str:
        """What the finding says, without the cause where undoing that cause did not help.

        Args:
            says: What it said before.

        Returns:
            A sentence.
        """
        if not self.refutes:
            return says
        head, _, cause = says.rstrip(".").partition(": ")
        return f"{head}, for another reason than that which fits best ({cause}): undoing that does not help."

    @property
    def _finding(self) -> str:
        """The finding's fate, in words."""
        share = f"{_percent(max(self.explains, 0.0))} of the discrepancy" if isfinite(self.explains) else ""
        if self.fate == GONE:
            return f"finding gone, and with it {share}" if share else "finding gone"
        left = (
            "the finding remains" if self.fate == REMAINS else "the finding is still there, in other numbers"
        )
        if not share:
            return left
        return f"{left}, so this is not the cause" if self.refutes else f"{left}, without {share}"

    @property
    def _effects(self) -> list[str]:
        """What else changes: outputs, decisions, the metric, other findings."""
        said = [self._outputs]
        if isfinite(self.agreement) and self.agreement < 1:
            said.append(f"{_percent(1 - self.agreement)} of decisions change")
        if self.metric:
            said.append(self._metric)
        if self.brings:
            said.append(f"new findings: {', '.join(self.brings)}")
        return said

    @property
    def _outputs(self) -> str:
        n = f"on {self.n:,} sample{'s' * (self.n != 1)}"
        if not isfinite(self.largest_relative):
            return f"outputs that are NaN or infinite, before or after, {n}"
        if self.largest_change == 0:
            return f"outputs stay, bit for bit, {n}"
        return f"outputs change by at most {_percent(self.largest_relative)} {n}"

    @property
    def _metric(self) -> str:
        shares = self.metric == "accuracy"
        before, after, low, high = (
            v * (100 if shares else 1) for v in (self.before, self.after, self.low, self.high)
        )
        show = "{:.1f}".format if shares else "{:.4g}".format
        unit = "%" if shares else ""
        if low == high == 0:
            return f"{self.metric} stays {show(after)}{unit}"
        interval = f"{low:+.1f} to {high:+.1f}" if shares else f"{low:+.2g} to {high:+.2g}"
        return f"{self.metric} {show(before)} → {show(after)}{unit} ({interval}, 95% interval)"


def of_all(tried: Sequence[Tried]) -> str:
    """What came of a remedy at several places, in a sentence: at how many the finding is gone, and what else changes."""
    first = tried[0]
    n_gone = sum(one.fate == GONE for one in tried)
    if len(tried) == 1 or len(set(map(str, tried))) == 1:
        return str(first)
    of_one = next((one for one in tried if one.fate != NOT_TRIED), first)
    words = str(of_one).partition("; ")[2] or str(of_one)
    return f"Tried: finding gone at {n_gone} of {len(tried)} places; {words}"


def not_tried(why: str) -> Tried:
    """Why nothing was carried out."""
    return Tried(NOT_TRIED, why)


def _percent(share: float) -> str:
    """A share or a change, rounded up to a thousandth of a percent where it is less."""
    percent = max(100 * share, 0.001) if share > 0 else 0.0
    if percent >= 9.95:
        return f"{percent:,.0f}%"
    return f"{percent:.1f}%" if percent >= 0.1 else f"{percent:.1g}%"
