"""A server on the loopback that sends parts of files, counts what it sends, and can do wrong on purpose."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Asked:
    """One request: its path with the query, its range, and the headers that matter."""

    path: str
    start: int
    n: int
    token: str | None


@dataclass
class Server:
    """`fault` takes a request's number, from 0, and names what goes wrong with it; "" is nothing."""

    folder: Path
    port: int = 0
    sent: int = 0
    asked: list[Asked] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    always: str = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fault(self) -> str:
        return self.faults.get(len(self.asked) - 1, self.always)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve the files of a folder for as long as the block lasts."""
    server, lock = Server(folder), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            start, last = map(int, wanted.groups()) if wanted else (0, 2**62)
            with lock:
                server.asked.append(
                    Asked(self.path, start, last - start + 1, self.headers.get("Authorization"))
                )
                fault = server.fault()
            _answer(self, server, lock, folder / unquote(parts.path).lstrip("/"), start, last, fault)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def _answer(
    to: BaseHTTPRequestHandler,
    server: Server,
    lock: threading.Lock,
    file: Path,
    start: int,
    last: int,
    fault: str,
) -> None:
    if fault == "silent":
        time.sleep(1)
        return
    if fault.isdecimal() or not file.is_file():
        to.send_error(int(fault or 404))
        return
    if fault.startswith("redirect "):
        to.send_response(302)
        to.send_header("Location", fault.removeprefix("redirect "))
        to.send_header("Content-Length", "0")
        to.end_headers()
        return
    size = file.stat().st_size
    whole = fault.startswith("whole")
    start, last = (0, size - 1) if whole else (start, min(last, size - 1))
    if start > last:
        to.send_error(416)
        return
    n = last - start + 1
    to.send_response(200 if whole else 206)
    if fault != "whole without length":
        to.send_header("Content-Length", str(n))
    if not whole and fault != "no content range":
        moved = 1 if fault == "another part" else 0
        to.send_header("Content-Range", f"bytes {start + moved}-{last + moved}/{size}")
    to.send_header("ETag", '"another"' if fault == "another etag" else f'"{file.stat().st_mtime_ns}"')
    to.end_headers()
    with file.open("rb") as opened:
        opened.seek(start)
        left = n // 2 if fault == "short" else n
        while left:
            content = opened.read(min(left, 2**20))
            with lock:  # before it is there for the other side to see
                server.sent += len(content)
            try:
                to.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                return
            left -= len(content)
