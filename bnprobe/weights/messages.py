"""Messages for files and names that are refused: the fact and the next step, in one line."""

from __future__ import annotations

import difflib
import pickle
import re
from collections.abc import Iterable

from bnprobe.errors import BadCheckpoint
from bnprobe.files import Place
from bnprobe.files.limits import TooMuch

SAVE_AGAIN = "where the model can be built, run torch.save(model.state_dict(), FILE) and use that file"

FEWER = "Save it in shards, and check them one by one."
"""What to do about a file that holds more than is read of one."""

LATE_PROTOCOL = "Unsupported operand 149"
"""What torch says of pickles of protocol 4 and later, which begin with a frame; its own are of protocol 2."""


def refusal(path: Place, error: Exception) -> BadCheckpoint:
    """Why torch did not read `path`: it asks for code, it is a program, or it is damaged."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and code and code[1].rpartition(".")[2][:1].isupper():
        return BadCheckpoint(
            f"{path} holds more than tensors: an object of the class {code[1]}, as torch.save(model, FILE) pickles "
            f"a whole module. Loading it would run code, so it was not loaded. If you trust it, {SAVE_AGAIN}."
        )
    if "magic number" in str(error) or LATE_PROTOCOL in str(error):
        return what_it_is(path, "a pickle that torch.save did not write as it does by default", SAVE_AGAIN)
    if isinstance(error, pickle.UnpicklingError) and code:
        return BadCheckpoint(
            f"{path} holds more than tensors: it asks to run {code[1]}, so it was not loaded. "
            f"If you trust it, {SAVE_AGAIN}."
        )
    if "TorchScript" in str(error):
        return program(path)
    return damaged(path, error)


def what_it_is(path: Place, what: str, advice: str) -> BadCheckpoint:
    """For a `path` that is known to be something else."""
    return BadCheckpoint(f"{path} is {what}. {advice[0].upper()}{advice[1:]}.")


def program(path: Place) -> BadCheckpoint:
    """For a `path` that holds code by design."""
    return BadCheckpoint(f"{path} is a TorchScript program, not a state dict; {SAVE_AGAIN}.")


def damaged(path: Place, error: Exception) -> BadCheckpoint:
    """For a `path` that is no checkpoint, only a part of one, or more than is read."""
    if isinstance(error, TooMuch):
        return BadCheckpoint(f"{path} was not read: {error}. {FEWER}")
    return BadCheckpoint(
        f"{path} is not a whole checkpoint ({one_line(error)}): cut short, or in another format. "
        "Copy or download it again."
    )


def one_line(error: BaseException, most: int = 160) -> str:
    """The name of an error and what it says, without line breaks and without torch's page of advice."""
    fact = str(error).split("WeightsUnpickler error:")[-1].split("Check the documentation")[0]
    said = " ".join(fact.split())
    said = said if len(said) <= most else f"{said[:most]}…"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question, with a space before it, that offers up to three names like `name`; empty if none is."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f" Did you mean {', '.join(close)}?" if close else ""
