"""A user's own batches: what `package.module:function` returns, for models whose inputs are no images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from bnprobe.errors import BnprobeError
from bnprobe.models.image_folder import Unreadable
from bnprobe.models.subject import seeded
from bnprobe.models.user_model import cwd_importable, function_of
from bnprobe.weights.messages import one_line


@dataclass(frozen=True)
class UserBatches:
    """Batches as `record` takes them, x or (x, y), the first `limit` of them, with the words of an image folder's."""

    name: str
    whole: Iterable[Any] = field(repr=False)
    limit: int | None = None
    shared: tuple[int, int] = (0, 1)
    """Which of how many processes reads here: each takes its turn."""

    has_labels = True
    """Whether there are targets is known once the batches are read."""

    n_images = None
    """How many samples there are is known once the batches are read."""

    unreadable: tuple[Unreadable, ...] = ()

    @property
    def words(self) -> str:
        """What is read, in words."""
        first = "" if self.limit is None else f"the first {self.limit:,} "
        return f"{first}batches of {self.name}"

    words_read = words

    @property
    def advice(self) -> str:
        """What to look at where a model fails on these batches."""
        return (
            f"Check what {self.name} returns: an iterable of x or (x, y), where model(x) works; a dict is handed over as "
            "keywords, so for model(d) give ({'name of the argument': d}, y)."
        )

    def share(self, index: int, of: int) -> UserBatches:
        """Every `of`-th batch, from `index` on."""
        return replace(self, shared=(index, of))

    def __iter__(self) -> Iterator[Any]:
        first, step = self.shared
        try:
            yield from islice(iter(self.whole), first, self.limit, step)
        except Exception as error:  # the user's iterable may raise anything
            raise BnprobeError(
                f"the batches of {self.name} ended in {one_line(error)}. Loop over them without a model, and mend that."
            ) from error


def user_batches(name: str, limit: int | None = None) -> UserBatches:
    """The batches that the function `name` makes. Raises BnprobeError, in one line, where it makes none."""
    if ":" not in name:
        raise BnprobeError(f"{name!r} is no function. Give --batches as package.module:function.")
    with seeded(), cwd_importable():
        try:
            made = function_of(name, "an iterable of batches")()
        except BnprobeError:
            raise
        except Exception as error:  # the user's function may raise anything
            raise BnprobeError(
                f"{name} raised {one_line(error)}. It is called without arguments: make it work alone."
            ) from error
    if not isinstance(made, Iterable):
        raise BnprobeError(
            f"{name} returned an object of type {type(made).__name__}. Let it return an iterable of batches, x or (x, y)."
        )
    return UserBatches(name, made, limit)
