"""The command line in a process that can be watched and bounded: what it wrote, started, took and said.

One server imports everything and forks for each command, so that a trial costs milliseconds. In the fork
memory and CPU time are limited by the kernel, and an audit hook notes every file opened for writing, every
process and every connection.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.paths import ROOT

MEMORY = 2 * 2**30
"""Bytes of address space that a command may take beyond what the imports took."""

CPU_SECONDS = 60
WATCHED = ("os.", "subprocess.", "shutil.", "socket.", "pty.", "webbrowser.", "ctypes.dlopen", "open")
HARMLESS = (
    "os.listdir",
    "os.scandir",
    "os.walk",
    "os.fwalk",
    "os.getxattr",
    "os.listxattr",
    "os.putenv",
    "os.unsetenv",
)


@dataclass(frozen=True)
class Verdict:
    """How a command ended. `seconds` are the processor's, so that a busy machine does not count as a slow command.

    `megabytes` is what it took beyond the imports; `events` what it did to the machine.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    megabytes: float
    events: tuple[str, ...]

    @property
    def line(self) -> str:
        """The one line that it complained with."""
        (line,) = self.err.splitlines()
        return line


class Sandbox:
    """Runs `bnprobe ARGUMENTS...`; `run` returns what came of it."""

    def __init__(self) -> None:
        quiet = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "attacks.sandbox"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **quiet},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        *arguments: str | Path,
        writes: Path | None = None,
        as_nobody: bool = False,
        inside: Path | None = None,
    ) -> Verdict:
        """One command; `writes` is the only folder that it may write in without being noted, and it runs `inside` one."""
        request = {
            "arguments": list(map(str, arguments)),
            "writes": str(writes or ""),
            "nobody": as_nobody,
            "inside": str(inside or ROOT),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        return Verdict(**{**answer, "events": tuple(answer["events"])})

    def close(self) -> None:
        for pipe in (self._server.stdin, self._server.stdout):
            assert pipe is not None
            pipe.close()
        self._server.wait(60)


def tiny() -> Any:
    """What images are shown to: the smallest network with a norm."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()


def serve() -> None:
    """Import, then fork once per line of standard input."""
    import torch

    torch.set_num_threads(1)
    import bnprobe
    import bnprobe.models
    import bnprobe.weights.with_torch.load
    from bnprobe.rules import settings  # noqa: F401

    state = {"bn.running_mean": torch.zeros(2), "bn.running_var": torch.ones(2)}
    bnprobe.check(state)._repr_html_()  # imports what draws and renders
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)


def _forked(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(request, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status, usage = os.wait4(pid, 0)
    answer = (
        json.loads(said) if said else {"code": None, "out": "", "err": f"died: status {status}", "events": []}
    )
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = usage.ru_utime + usage.ru_stime
    return {**answer, "seconds": seconds, "megabytes": max(0.0, (usage.ru_maxrss - base) / 1024)}


def _child(request: dict[str, Any], writing: int) -> None:
    """Never returns."""
    try:
        answer = _bounded(request)
    except BaseException:
        answer = {"code": None, "out": "", "err": traceback.format_exc(), "events": []}
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(json.dumps(answer).encode())
    os._exit(0)


def _bounded(request: dict[str, Any]) -> dict[str, Any]:
    from bnprobe.cli.main import main

    signal.alarm(2 * CPU_SECONDS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    if request["nobody"]:
        os.setgroups([])
        os.setuid(65534)
    os.chdir(request["inside"])
    sys.stdin = io.TextIOWrapper(io.BytesIO())  # the other one brings the next command
    out, err = io.StringIO(), io.StringIO()
    with (
        _audited(request["writes"]) as events,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code: int | None = main(request["arguments"])
        except SystemExit as stop:  # --help
            code = int(stop.code or 0)
        except BaseException:
            code = None
            err.write(traceback.format_exc())
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "events": events}


@contextlib.contextmanager
def _audited(allowed: str) -> Iterator[list[str]]:
    """What this process does to the machine from here on; the hook cannot be taken off again, only ignored."""
    events: list[str] = []
    listening = [True]

    def note(event: str, arguments: Sequence[Any]) -> None:
        if not listening or not event.startswith(WATCHED) or event in HARMLESS:
            return
        if event == "open" and not _writes(arguments):
            return
        if not allowed or not _place(event, arguments).startswith(allowed):
            events.append(f"{event} {str(arguments)[:200]}")

    sys.addaudithook(note)
    try:
        yield events
    finally:
        listening.clear()


def _place(event: str, arguments: Sequence[Any]) -> str:
    """What an event is about; of a link to a file that had no name, the folder in which it got one."""
    if event == "os.link":
        return os.readlink(f"/proc/self/fd/{arguments[3]}") if arguments[3] >= 0 else str(arguments[1])
    return str(arguments[0] if arguments else "")


def _writes(arguments: Sequence[Any]) -> bool:
    """Whether an `open` is for writing: by its mode, or by its flags where os.open was called."""
    place, mode, flags = arguments
    if isinstance(place, int):
        return False  # a descriptor, which was noted when it was opened
    return (
        bool(set(mode) & set("wax+"))
        if isinstance(mode, str)
        else bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
    )


if __name__ == "__main__":
    serve()
