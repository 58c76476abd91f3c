"""Files at addresses, from memory and from a server on this machine that fails in every way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bnprobe.files import fetch
from bnprobe.files.fetch import demand_fetchable, fetched

fsspec = pytest.importorskip("fsspec", reason="it comes with torch")


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_a_file_is_fetched_whole(memory):
    """Fails if bytes are lost on the way, or the copy is left behind."""
    content = bytes(range(256)) * 5000
    memory.pipe("/a/b.tar", content)
    with fetched("memory://a/b.tar") as path:
        assert path.read_bytes() == content
    assert not path.parent.exists()


def test_no_more_is_fetched_than_the_limit(memory):
    """Fails if a file without end fills the disk."""
    memory.pipe("/b.tar", bytes(3000))
    with fetched("memory://b.tar", 3000) as path:
        assert path.stat().st_size == 3000
    with (
        pytest.raises(OSError, match=r"larger than the .* GB that are fetched"),
        fetched("memory://b.tar", 2999),
    ):
        pass


def test_what_is_gone_is_asked_for_once(memory, monkeypatch):
    """Fails if a wrong address is tried again and again."""
    monkeypatch.setattr(fetch, "PAUSE", 1e9)
    with pytest.raises(FileNotFoundError, match="not found there"), fetched("memory://b.tar"):
        pass


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ssh://host/a.tar",
        "zip://a.tar::https://host/b.zip",
        "simplecache::s3://a",
        "reference://x",
    ],
)
def test_other_protocols_are_refused(address):
    """Fails if an address reaches a protocol that runs programs, or leads to another address."""
    with pytest.raises(OSError, match="no address of http, https, s3"):
        demand_fetchable(address)


def test_a_library_that_is_missing_is_named(monkeypatch):
    """Fails if the need of an extra library is a traceback."""

    def absent(name: str) -> None:
        raise ImportError("No module named 'aiohttp'", name="aiohttp")

    monkeypatch.setattr(fetch, "import_module", absent)
    with pytest.raises(
        OSError, match=r"http needs aiohttp, which is not installed: run pip install fsspec\[http\]"
    ):
        demand_fetchable("http://host/a.tar")


# A server

BODY = bytes(range(251)) * 40


class Server(ThreadingHTTPServer):
    """Answers by the name that is asked for, and counts."""

    asked: int = 0


class Answers(BaseHTTPRequestHandler):
    """/whole, /404 and other numbers, /once (500 at first), /short (fewer bytes than it says), /endless."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._send(200, BODY, "")

    def do_GET(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        name = self.path.partition("?")[0][1:]
        if name.isdigit():
            self._send(int(name), b"", "")
        elif name == "once" and self.server.asked == 1:  # type: ignore[attr-defined]
            self._send(500, b"", "")
        elif name == "short":
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY) + 9))
            self.end_headers()
            self.wfile.write(BODY)
        else:
            self._send(200, BODY, BODY)

    def _send(self, status: int, length: bytes, body: bytes | str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(length)))
        self.end_headers()
        if isinstance(body, bytes):
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    pytest.importorskip("aiohttp", reason="http needs aiohttp")
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    with Server(("127.0.0.1", 0), Answers) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def address(server: Server, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


@pytest.mark.parametrize(("name", "asked"), [("whole", 1), ("once", 2)])
def test_a_server_that_fails_once_is_asked_again(server, name, asked):
    """Fails if one bad answer ends a run, or a good one is asked for twice."""
    with fetched(address(server, name)) as path:
        assert path.read_bytes() == BODY
    assert server.asked == asked


@pytest.mark.parametrize(
    ("name", "said", "asked"),
    [
        ("404", "not found there", 1),
        ("410", "not found there", 1),
        ("401", "access denied, or its token has expired", 1),
        ("403", "access denied, or its token has expired", 1),
        ("500", "the server answered with status 500, 3 times", 3),
        ("416", "the server answered with status 416, 3 times", 3),
        ("short", "broke off with ClientPayloadError, 3 times", 3),
    ],
)
def test_what_a_server_refuses_is_one_line(server, name, said, asked):
    """Fails if a refusal is a traceback, shows the token, is a file cut short, or is asked for in vain."""
    with pytest.raises(OSError) as error, fetched(address(server, f"{name}?token=secret")):
        pass
    assert said in str(error.value)
    assert "secret" not in str(error.value)
    assert server.asked == asked


def test_a_server_that_is_gone():
    """Fails if a machine that does not answer is a traceback."""
    pytest.importorskip("aiohttp", reason="http needs aiohttp")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fetch, "PAUSE", 0.001)
        with (
            pytest.raises(OSError, match="broke off with ClientConnector"),
            fetched("http://127.0.0.1:9/a.tar"),
        ):
            pass
