"""The one exit for what is printed: names stay names, a reader who has left ends nothing, and a full disk is one line.

Layers, files and images are named by strangers, and a terminal obeys what it is sent: it can be cleared, recolored, renamed
and made to show lines that nobody wrote. So whatever is printed here has its control and formatting characters spelled out.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from bnprobe.errors import BnprobeError

PLAIN = "\n\r\t"
"""Control characters of text and of progress bars, which the programs of others print, too."""


def say(line: str) -> None:
    """Print one line, whatever is in it."""
    print(escaped(line))


def say_lines(text: str) -> None:
    """Print a text of several lines; a line break at its end is no further line."""
    print(escaped(text.removesuffix("\n"), "\n"))


def note(line: str) -> None:
    """Print one line on standard error, with our name before it; nowhere where that is closed: print would
    take the other stream."""
    if sys.stderr is None:
        return
    print(escaped(f"bnprobe: {line}"), file=sys.stderr)


def progress(total: int | None, words: str = "probing", unit: str = "images") -> Any:
    """A bar that counts what is done, on a terminal or in a notebook; elsewhere nothing is shown."""
    from tqdm.auto import tqdm

    quiet = not (watched() or "ipykernel" in sys.modules)
    return tqdm(total=total, unit=f" {unit}", desc=words, disable=quiet)


def watched() -> bool:
    """Whether somebody may look at standard error while it is written; of several processes, only at the first's."""
    first = multiprocessing.parent_process() is None and os.environ.get("RANK", "0") == "0"
    return first and sys.stderr is not None and sys.stderr.isatty()


def escaped(text: str, keep: str = "") -> str:
    """The text with everything that cannot be seen spelled out, as \\x1b; but for the characters in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _spelled(c) for c in text)


def _spelled(character: str) -> str:
    return " " if character == "\u00a0" else character.encode("unicode_escape").decode()


class _Exit:
    """A standard stream that spells out what is no text, and drops what nobody reads any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As of any text stream."""
        with self._failures():
            self._stream.write(escaped(text, PLAIN))
        return len(text)

    def flush(self) -> None:
        """As of any text stream."""
        with self._failures():
            self._stream.flush()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.drop()
        except OSError as error:
            self.drop()
            raise BnprobeError(
                f"the output cannot be printed ({error.strerror or error}). Print or write it to another place."
            ) from None

    def drop(self) -> None:
        """Have the rest go nowhere: what is still buffered is written when the interpreter ends, and must not fail then."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def one_exit() -> Iterator[None]:
    """Inside, standard output and error are written through the exit, and warnings are one line each."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot spell γ still gets the rest
    out, err = (stream and _Exit(stream) for stream in (sys.stdout, sys.stderr))
    with (
        redirect_stdout(cast(TextIO, out)),
        redirect_stderr(cast(TextIO, err)),
        warnings.catch_warnings(),
    ):
        warnings.showwarning = _show_warning
        try:
            yield
        finally:
            if err is not None:
                with suppress(BnprobeError):  # there is no place left to say it
                    err.flush()
            if out is not None:
                out.flush()


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    note(f"{category.__name__}: {message}")
