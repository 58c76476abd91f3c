"""torchvision's own weight files: downloaded into torch's cache, and loaded from there as tensors only."""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlparse

import torch
from torch import nn

from bnprobe.errors import BadCheckpoint
from bnprobe.printing import watched
from bnprobe.weights.messages import one_line, refusal

DOWNLOAD_TIMEOUT = 20.0  # seconds without data before a download is given up


def file_name(entry: Any) -> str:
    """The name of a weights entry's file, here and where it is downloaded from."""
    return Path(urlparse(entry.url).path).name


def load_entry(builder: Callable[..., nn.Module], entry: Any) -> tuple[nn.Module, Path]:
    """A model with the weights of `entry`, by torchvision's own code, and the file in torch's cache."""
    file = Path(torch.hub.get_dir(), "checkpoints", file_name(entry))
    if not file.exists():
        _download(entry, file)
    try:
        with _weights_only():
            return builder(weights=entry, progress=False), file
    except Exception as error:  # as where pickles are read, and a state dict that does not fit
        if isinstance(error, RuntimeError) and "state_dict" in str(error):
            raise BadCheckpoint(
                f"{file} does not fit ({one_line(error)}). Delete it to have it downloaded again."
            ) from None
        raise refusal(file, error) from None


def _download(entry: Any, file: Path) -> None:
    """Download the file of `entry` into torch's cache, or say what is missing and how to do without."""
    hash_prefix = re.search(r"-([0-9a-f]{8,})\.", file.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(DOWNLOAD_TIMEOUT):
            torch.hub.download_url_to_file(
                entry.url, str(file), hash_prefix[1] if hash_prefix else None, progress=watched()
            )
    except (OSError, RuntimeError, HTTPException) as error:
        raise BadCheckpoint(
            f"{entry.name} needs {file.name}, which is not in {file.parent} (where torchvision looks) and "
            f"could not be downloaded from {entry.url} ({one_line(error)}). Put the file there by hand, or give "
            "it with --checkpoint FILE, or leave out --weights for random weights."
        ) from None


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make torchvision's own loading, which would unpickle anything, read tensors only."""
    with mock.patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}), warnings.catch_warnings():
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)  # torch refuses to have both
        warnings.simplefilter("ignore")  # that some of torchvision's files are in an old format
        yield


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
