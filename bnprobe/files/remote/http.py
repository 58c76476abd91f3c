"""Parts of a file behind http and https, by the standard library: what a server may do wrong is one line."""

from __future__ import annotations

import base64
import http.client
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from bnprobe.errors import CannotFetch
from bnprobe.files.remote.ranges import Beginning

# fsspec's own reader of http is not used: it keeps no etag, and takes the whole file where a server ignores the range

SILENCE = 20.0
"""Seconds without a byte after which a request has failed."""

LONGEST = 300.0
"""Seconds of one request, however slowly it goes on."""

PAUSES = (0.5, 2.0)
"""Seconds before a request that failed is repeated."""

WHOLE = 2**24
"""Bytes of a file that is taken whole where the server sends no parts."""

_CHUNK = 2**16
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_AGAIN = "Try again later, or download the file and check that"
_DOWNLOAD = "Download the file, and check that"


Taken = TypeVar("Taken")


class _Passing(Exception):
    """A failure that may be over when the request is repeated."""


class Http:
    """One address; `headers` go to its own host alone, never to one that it redirects to."""

    def __init__(self, address: str, headers: Mapping[str, str], shown: str) -> None:
        self._address, own = _without_password(address)
        self._headers, self._shown = {**headers, **own}, shown
        self._mark: tuple[int, str | None, str | None] | None = None

    def beginning(self, n: int) -> Beginning:
        """As of any fetcher."""

        def first(answer: Any) -> Beginning:
            if answer.status == 200:
                content, size = self._whole(answer), None
                return Beginning(len(content) if size is None else size, content)
            start, end, size = self._span(answer)
            if start != 0 or end != min(n, size):
                raise self._refusal("sends other parts than it was asked for", _DOWNLOAD)
            self._mark = _mark(answer, size)
            return Beginning(size, self._content(answer, end))

        return self._tried(0, n, first)

    def part(self, start: int, n: int) -> bytes:
        """As of any fetcher."""

        def part(answer: Any) -> bytes:
            if answer.status == 200 or _mark(answer, self._span(answer)[2]) != self._mark:
                raise self._changed()
            if self._span(answer)[:2] != (start, start + n):
                raise self._refusal("sends other parts than it was asked for", _DOWNLOAD)
            return self._content(answer, n)

        return self._tried(start, n, part)

    def confirm(self) -> None:
        """Every answer was looked at when it came."""

    @property
    def version(self) -> str:
        """As of any fetcher."""
        return next(filter(None, (self._mark or ())[1:]), "")

    def _tried(self, start: int, n: int, take: Callable[[Any], Taken]) -> Taken:
        """One request, repeated where it fails for a reason that may pass."""
        for pause in (*PAUSES, None):
            try:
                with self._asked(start, n) as answer:
                    return take(answer)
            except (_Passing, OSError, http.client.HTTPException) as error:
                if pause is None:
                    raise self._refusal(_reason(error), _AGAIN) from None
            time.sleep(pause)
        raise AssertionError

    def _asked(self, start: int, n: int) -> Any:
        """The answer to one request, its status 200 or 206. Raises CannotFetch, and _Passing for what may pass."""
        request = urllib.request.Request(self._address, headers={"Range": f"bytes={start}-{start + n - 1}"})
        request.add_header("Accept-Encoding", "identity")
        for name, value in self._headers.items():
            request.add_unredirected_header(name, value)
        try:
            return _OPENER.open(request, timeout=SILENCE)
        except HTTPError as error:
            error.close()
            raise self._by_status(error.code) from None
        except URLError as error:
            reason = error.reason
            if isinstance(reason, CannotFetch):
                raise reason from None
            raise _Passing(_reason(reason)) from None
        except ValueError:
            raise self._refusal("has an address that cannot be asked for", "Check the address") from None

    def _by_status(self, status: int) -> Exception:
        said = f"{status} {http.client.responses.get(status, '')}".strip()
        if status in (401, 403):
            return self._refusal(f"refuses access ({said})", "Renew the token or the signed address")
        if status in (404, 410):
            return CannotFetch(f"there is no file {self._shown} ({said}). Check the address.")
        if status == 416:
            return self._refusal(
                f"has no such part of the file ({said}): it is empty, or was replaced while it was read",
                "Run this again when it is whole",
            )
        if status in (408, 429) or status >= 500:
            return _Passing(f"failed ({said})")
        return self._refusal(f"does not send the file ({said})", "Check the address")

    def _whole(self, answer: Any) -> bytes:
        """The content of a small file from a server that sends no parts."""
        length = answer.headers.get("Content-Length", "")
        declared = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        if declared is None or declared > WHOLE:
            size = "of a size it does not tell" if declared is None else f"{declared / 1e6:,.0f} MB here"
            raise self._refusal(f"sends whole files only ({size}), no parts of them", _DOWNLOAD)
        self._mark = _mark(answer, declared)
        return self._content(answer, declared)

    def _span(self, answer: Any) -> tuple[int, int, int]:
        """Begin, end and size of the whole, of a part."""
        told = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if told is None or answer.status != 206:
            raise self._refusal("does not say which part of the file it sends", _DOWNLOAD)
        start, last, size = map(int, told.groups())
        return start, last + 1, size

    def _content(self, answer: Any, n: int) -> bytes:
        parts, left, begun = [], n, time.monotonic()
        while left and (part := answer.read(min(_CHUNK, left))):
            parts.append(part)
            left -= len(part)
            if time.monotonic() - begun > LONGEST:
                raise _Passing(f"sent {n - left:,} of {n:,} bytes in {LONGEST:.0f} s")
        if left:
            raise _Passing(f"sent {n - left:,} of {n:,} bytes")
        return b"".join(parts)

    def _changed(self) -> CannotFetch:
        return CannotFetch(
            f"{self._shown} changed while it was read. Wait until it is written, and run this again."
        )

    def _refusal(self, what: str, advice: str) -> CannotFetch:
        return CannotFetch(f"{self._shown}: the server {what}. {advice}.")


def _mark(answer: Any, size: int) -> tuple[int, str | None, str | None]:
    """Equal for two answers about one file."""
    etag: str | None = answer.headers.get("ETag")
    return size, etag, None if etag else answer.headers.get("Last-Modified")


def _reason(error: object) -> str:
    """Why a request failed, as the end of a sentence about the server."""
    if isinstance(error, _Passing):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"did not answer for {SILENCE:g} s"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"cannot be reached ({' '.join(str(said).split())[:160]})"


def _without_password(address: str) -> tuple[str, dict[str, str]]:
    """An address without the user and password in front of its host, and these as a header."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return address, {}
    told = base64.b64encode(unquote(user).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {told}"}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects within http and https, and never from https to what anyone on the way can read."""

    max_redirections = 5

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """As of any handler; None is an answer that is not followed."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(urljoin(req.full_url, newurl)).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Http and https alone: an opener by default also reads file, ftp and data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


_OPENER = _opener()
