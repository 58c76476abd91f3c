"""Parts of files in object stores, by fsspec and the library that knows the store, loaded where one is asked for."""

from __future__ import annotations

from typing import Any

from bnprobe.errors import CannotFetch
from bnprobe.files.remote.ranges import Beginning

STORES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""What is installed for each kind of address. Kinds of fsspec that read local files or unpack archives are not here."""

_MARKS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "updated",
    "last_modified",
    "mtime",
    "created",
)
"""What stores tell of a file that changes with its content; the first one that is there."""


class Store:
    """One address."""

    def __init__(self, address: str, shown: str) -> None:
        self._shown, self._scheme = shown, address.partition("://")[0].lower()
        try:
            import fsspec

            self._files, self._path = fsspec.core.url_to_fs(address)
        except ImportError:
            library = STORES[self._scheme]
            raise CannotFetch(
                f"{shown}: {self._scheme}:// addresses need {library}, which is not installed. Run pip install {library}."
            ) from None
        except Exception as error:
            raise self._refusal(error) from None
        self._mark: tuple[int, str] | None = None

    def beginning(self, n: int) -> Beginning:
        """As of any fetcher."""
        self._mark = self._state()
        size = self._mark[0]
        return Beginning(size, self._cat(0, min(n, size)))

    def part(self, start: int, n: int) -> bytes:
        """As of any fetcher."""
        return self._cat(start, n)

    def confirm(self) -> None:
        """As of any fetcher: parts say nothing of the file that they are of."""
        if self._state() != self._mark:
            raise CannotFetch(
                f"{self._shown} changed while it was read. Wait until it is written, and run this again."
            )

    @property
    def version(self) -> str:
        """As of any fetcher."""
        return self._mark[1] if self._mark else ""

    def _cat(self, start: int, n: int) -> bytes:
        try:
            content: bytes = self._files.cat_file(self._path, start=start, end=start + n) if n else b""
        except Exception as error:
            raise self._refusal(error) from None
        if len(content) != n:
            raise CannotFetch(
                f"{self._shown}: the store sent {len(content):,} of {n:,} bytes. Try again later, or download the file and "
                "check that."
            )
        return content

    def _state(self) -> tuple[int, str]:
        """Size and mark of the file as it is now."""
        try:
            self._files.invalidate_cache()
            told: dict[str, Any] = self._files.info(self._path)
        except Exception as error:
            raise self._refusal(error) from None
        if told.get("type") == "directory" or type(told.get("size")) is not int:
            raise CannotFetch(f"{self._shown} is no file. Give the address of the checkpoint itself.")
        return told["size"], str(next((told[name] for name in _MARKS if told.get(name)), ""))

    def _refusal(self, error: Exception) -> CannotFetch:
        """Whatever a store's library raises, as one line."""
        if isinstance(error, FileNotFoundError):
            return CannotFetch(f"there is no file {self._shown}. Check the address.")
        said = " ".join(str(error).split())[:160]
        reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
        advice = (
            "Renew the credentials"
            if isinstance(error, PermissionError)
            else "Check the address and the credentials"
        )
        return CannotFetch(f"{self._shown}: the store does not send the file ({reason}). {advice}.")
