"""Files of the Hugging Face Hub by their https addresses: hf://owner/repo[@revision]/file."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote

from bnprobe.errors import CannotFetch

_FILE = re.compile(
    r"hf://(?:models/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)", re.IGNORECASE
)


def hub(address: str, shown: str) -> tuple[str, dict[str, str]]:
    """The https address, and what is sent with it: the token in HF_TOKEN, where one is set; HF_ENDPOINT is the Hub's host.

    Raises CannotFetch for an address that names no file of a repository.
    """
    named = _FILE.fullmatch(address)
    if named is None:
        raise CannotFetch(
            f"{shown} names no file of a repository. Give one as hf://OWNER/REPO/model.safetensors."
        )
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    revision, file = quote(unquote(named["revision"] or "main"), safe=""), quote(unquote(named["file"]))
    token = os.environ.get("HF_TOKEN")
    return (
        f"{host}/{named['repo']}/resolve/{revision}/{file}",
        {"Authorization": f"Bearer {token}"} if token else {},
    )
