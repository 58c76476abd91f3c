"""What a change must pass: linters, types, and the tests on the oldest, a middle and the newest torch.

    .venv/bin/pip install -e ".[dev]"
    .venv/bin/nox                                            # linters, types, all tests on the newest pair
    .venv/bin/nox -s "tests(oldest)"                         # all tests on the oldest pair that pyproject.toml claims
    .venv/bin/nox -s "tests(middle)" -- tests/probe -x       # some tests; whatever follows -- is for pytest

Each pair of torch and torchvision has an environment of its own (some six gigabytes) in .nox/.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests(newest)"]
nox.options.reuse_venv = "yes"


def oldest(*packages: str) -> tuple[str, ...]:
    """The lowest releases that pyproject.toml claims, so that the claim and what is tested cannot drift apart."""
    claimed = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    bounds = dict(claim.split(">=") for claim in claimed)
    return tuple(f"{package}=={bounds[package]}.*" for package in packages)


# numpy 2.4 makes no number of an array of one, which the interpreter of the older Tritons asks for: without a GPU the
# tests run the kernels there.
WITH_ITS_TRITON = "numpy<2.4"

PAIRS = {
    "oldest": (*oldest("torch", "torchvision"), WITH_ITS_TRITON),
    "middle": ("torch==2.10.*", "torchvision==0.25.*", WITH_ITS_TRITON),
    "newest": ("torch", "torchvision"),
}


@nox.session
@nox.parametrize("pair", list(PAIRS.values()), ids=list(PAIRS))
def tests(session: nox.Session, pair: tuple[str, ...]) -> None:
    """The tests on one pair of torch and torchvision."""
    session.install("-e", ".[test]", *pair)
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Ruff, from the environment that nox runs in."""
    session.run(sys.executable, "-m", "ruff", "check", ".")
    session.run(sys.executable, "-m", "ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Mypy, from the environment that nox runs in: it reads the annotations of the torch that is installed there."""
    session.run(sys.executable, "-m", "mypy")
