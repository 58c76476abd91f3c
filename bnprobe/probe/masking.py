"""What masks did over all passes: positions kept and left out, norms that do not have them, and masks not used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bnprobe.errors import BadMask
from bnprobe.probe.calls import InputReading
from bnprobe.probe.masks import INVERTED, MARKS_PADDING, EmptyMask, Kept, Mask, MaskArgument, usual_argument
from bnprobe.probe.masks import USUAL as USUAL_ARGUMENT
from bnprobe.probe.packing import NAMED, Packing
from bnprobe.probe.places import earlier, tokens_in

USUAL = ("attention_mask", "pixel_mask", "input_mask")
"""Names under which models take a mask that is true for what counts."""

DECODED = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
"""Arguments that have as many tokens as a decoder; the first says that a model has one."""


class Masking:
    """The masks of a probe's passes.

    `off` holds the sizes of inputs that do not have the positions of the mask, by the layer; `nowhere` is the first mask
    with padding whose positions no norm of its pass had; `with_padding` the layers that
    normalize with statistics of all positions, of a batch with some left out; `unused` is the name of a mask in the
    model's arguments that nobody asked for, and the share of positions that it leaves out; `unpacked` is the name of the
    argument that says where sequences begin, if nobody asked for that; `n_empty` counts passes with such a
    mask that kept nothing.
    """

    def __init__(self, argument: MaskArgument | None) -> None:
        self.n_valid = self.n_left_out = 0
        self.off: dict[str, tuple[int, ...]] = {}
        self.nowhere: Kept | None = None
        self.with_padding: set[str] = set()
        self.unused: tuple[str, float] | None = None
        self.unpacked = ""
        self.n_without = self.n_empty = 0
        self._argument = argument
        self._looked = argument is not None and argument.asked

    def of_call(self, args: Sequence[Any], kwargs: Mapping[str, Any], n_samples: int) -> Kept | None:
        """The mask in the arguments of a pass of so many samples, to which none was given.

        Where nobody asked for one it is `attention_mask`, if that has a value per token.
        """
        argument, tokens = self._argument, tokens_in(args, kwargs)
        if argument is not None and argument.asked:
            mask = argument.of(args, kwargs)
            self.n_without += mask is None
            return _newest(mask, tokens, kwargs)
        if argument is not None and tokens is not None:
            found = _newest(self._of_padding(argument, args, kwargs), tokens, kwargs)
            if isinstance(found, Mask) and found.shape == (n_samples, tokens.shape[1]):
                return found
        if not self._looked:  # at the first pass only: looking at values may mean waiting for a device
            self._looked = True
            self.unused = next(filter(None, map(_unused, kwargs, kwargs.values())), None)
            self.unpacked = next((name for name, value in kwargs.items() if _packs(name, value)), "")
        return None

    def of_part(self, part: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mask | None:
        """The mask of padding in the arguments of a part that is called by itself, as generation calls an encoder."""
        if self._argument is not None and self._argument.name != USUAL_ARGUMENT:
            return None
        argument, tokens = usual_argument(part), tokens_in(args, kwargs)
        if argument is None or tokens is None:
            return None
        found = self._of_padding(argument, args, kwargs)
        return found if found is not None and found.shape == tuple(tokens.shape[:2]) else None

    def _of_padding(
        self, argument: MaskArgument, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Mask | None:
        """The mask that nobody asked for, where it plainly is one of padding.

        Not where a decoder may have as many tokens as the encoder whose mask it is: sizes do not tell them apart.
        """
        try:
            mask = argument.of(args, kwargs)
        except EmptyMask:
            self.n_empty += 1
            return None
        except BadMask:
            return None
        if not isinstance(mask, Mask) or len(mask.shape) != 2 or mask.is_triangle:
            return None
        if argument.of_encoder:
            given = (kwargs.get(name) for name in DECODED)
            lengths = {value.shape[1] for value in given if isinstance(value, Tensor) and value.dim() > 1}
            return mask if lengths and mask.shape[1] not in lengths else None
        return mask

    def add(self, mask: Kept, calls: Mapping[str, InputReading]) -> None:
        """Add a pass with a mask, and the calls of its norms."""
        self.n_valid += mask.n_valid
        self.n_left_out += mask.n_left_out
        if mask.n_left_out and calls and all(call.off_mask is not None for call in calls.values()):
            self.nowhere = self.nowhere or mask
        for layer, call in calls.items():
            if call.off_mask is not None and (mask.n_left_out or isinstance(mask, Packing)):
                self.off.setdefault(layer, call.off_mask)
            elif (
                call.valid
                and call.valid.n_left_out
                and call.plan.pool.positions
                and not call.plan.uses_running
            ):
                self.with_padding.add(layer)

    def notes(self) -> Iterator[str]:
        """Sentences for the report."""
        if self.off:
            places = "; ".join(f"{name}: {shape}" for name, shape in list(self.off.items())[:3])
            more = f"; and {len(self.off) - 3:,} more" if len(self.off) > 3 else ""
            if self.nowhere is not None:
                yield (
                    f"No norm has the positions of {self.nowhere}: in such passes all was recorded, padding included. Pass "
                    "the mask of the positions that the norms see."
                )
            yield (
                "Inputs without the positions of the mask, or the tokens of the sequences, were recorded whole, as after "
                "pooling or merging of positions "
                f"({places}{more}). If these hold padding as well, leave it out before the norm."
            )
        if self.with_padding:
            names = ", ".join(sorted(self.with_padding)[:3]) + (", ..." if len(self.with_padding) > 3 else "")
            yield (
                f"Padding counts in the statistics that normalize in {names}, as the layers compute them: the length of the "
                "padding changes their outputs. Inputs and outputs are recorded without padding."
            )
        if self.n_without:
            yield (
                f"The model was called without the mask that was asked for in {self.n_without:,} pass"
                f"{'es' * (self.n_without != 1)}: all positions count there."
            )
        if self.n_empty:
            yield (
                f"The model's attention_mask kept no token in {self.n_empty:,} pass{'es' * (self.n_empty != 1)}: padding "
                "was recorded there as if it were tokens. Leave such batches out."
            )
        if self.unpacked:
            yield (
                f"The model was called with {self.unpacked}, so its tokens belong to several sequences; they were recorded "
                f'without them. Count each sequence as a sample: attach(model, mask="{self.unpacked}").'
            )
        if self.unused is not None:
            name, share = self.unused
            yield (
                f"The model was called with {name.removeprefix(INVERTED)}, which leaves out {share:.0%} of the positions of "
                f'the first batch; they were recorded like all others. Leave padding out: attach(model, mask="{name}").'
            )


def _newest(mask: Kept | None, tokens: Tensor | None, kwargs: Mapping[str, Any]) -> Kept | None:
    """The mask of the tokens of this call, where it goes on with a cache and its mask holds those before as well."""
    if not isinstance(mask, Mask) or tokens is None or len(mask.shape) != 2 or not earlier(kwargs).continues:
        return mask
    return mask.newest(tokens.shape[1])


def _packs(name: str, value: Any) -> bool:
    """Whether an argument says where several sequences of a batch begin."""
    if not NAMED.search(name):
        return False
    try:
        return Packing(value).n_samples > 1
    except BadMask:
        return False


def _unused(name: str, value: Any) -> tuple[str, float] | None:
    """The name by which a mask in the arguments can be asked for, and its share of padding; None for anything else."""
    marks_padding = name.endswith(MARKS_PADDING)
    if not (marks_padding or name in USUAL) or getattr(value, "ndim", 0) not in (2, 3):
        return None
    try:
        mask = Mask(value, marks_padding=marks_padding)
    except BadMask:
        return None
    share = mask.n_left_out / (mask.n_valid + mask.n_left_out)
    return (f"{INVERTED}{name}" if marks_padding else name, share) if share else None
