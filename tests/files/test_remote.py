"""Remote files: what is fetched of them, and what a server may do wrong, over the loopback alone."""

from __future__ import annotations

import random
import socket
import urllib.request
from email.message import Message
from pathlib import Path
from urllib.parse import urljoin

import pytest
from support.server import serving

from bnprobe.errors import CannotFetch
from bnprobe.files import Url, open_input, place_of, read_input
from bnprobe.files.remote import http, ranges, store

CONTENT = random.Random(5).randbytes(1_500_007)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with one file of 1.5 MB; pauses and time-outs are short."""
    monkeypatch.setattr(http, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(http, "SILENCE", 0.2)
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with serving(tmp_path) as one:
        yield one


def url(server, name: str = "a.bin") -> Url:
    return Url(f"{server.address}/{name}")


def test_any_part_is_what_the_file_holds(server):
    """Fails if parts are kept at the wrong place, or joined in another order."""
    file = open_input(url(server))
    picks = random.Random(3)
    for _ in range(60):
        start, n = picks.randrange(len(CONTENT)), picks.choice([1, 7, 300, 20_000, 200_000])
        file.seek(start)
        assert file.read(n) == CONTENT[start : start + n]
    assert file.seek(0, 2) == len(CONTENT)
    assert file.read(1) == b""


def test_one_request_opens_a_file_however_often_it_is_opened(server):
    """Fails if every look at a file is a request."""
    address = url(server)
    for _ in range(3):
        assert open_input(address).read(100) == CONTENT[:100]
    assert [(one.start, one.n) for one in server.asked] == [(0, ranges.FIRST)]


def test_neighbours_come_together_and_nothing_else_comes(server):
    """Fails if each vector is a request, or what lies between them is fetched as well."""
    held = url(server).ranges()
    spans = [(200_000, 100), (200_500, 100), (700_000, 5000), (1_300_000, 1), (300, 100)]
    held.fetch(spans)
    assert sorted((one.start, one.n) for one in server.asked[1:]) == [
        (200_000, 600),
        (700_000, 5000),
        (1_300_000, 1),
    ]
    n = len(server.asked)
    assert all(held.read(*span) == CONTENT[span[0] : sum(span)] for span in spans)
    assert len(server.asked) == n
    assert held.n_fetched == server.sent == ranges.FIRST + 600 + 5000 + 1


def test_large_parts_come_in_pieces_and_there_is_a_limit(server, monkeypatch):
    """Fails if a piece is put at another's place, or a file can fill the RAM."""
    monkeypatch.setattr(ranges, "MOST_AT_ONCE", 30_000)
    held = url(server).ranges()
    held.fetch([(100_000, 100_001), (400_000, 50_000)])
    assert held.read(100_000, 100_001) == CONTENT[100_000:200_001]
    assert held.read(400_000, 50_000) == CONTENT[400_000:450_000]
    assert max(one.n for one in server.asked[1:]) == 30_000
    monkeypatch.setattr(ranges, "MOST_KEPT", 400_000)
    with pytest.raises(CannotFetch, match=r"would have to be fetched. Download the file"):
        held.fetch([(500_000, 500_000)])


FAULTS = {
    "401": "refuses access (401 Unauthorized). Renew the token or the signed address.",
    "403": "refuses access (403 Forbidden). Renew the token or the signed address.",
    "404": "there is no file {} (404 Not Found). Check the address.",
    "410": "there is no file {} (410 Gone). Check the address.",
    "400": "does not send the file (400 Bad Request). Check the address.",
    "416": "has no such part of the file (416 ",
    "500": "failed (500 Internal Server Error). Try again later, or download the file and check that.",
    "503": "failed (503 Service Unavailable). Try again later",
    "429": "failed (429 Too Many Requests). Try again later",
    "short": "bytes. Try again later",
    "silent": "did not answer for 0.2 s. Try again later",
    "no content range": "does not say which part of the file it sends. Download the file",
    "another part": "sends other parts than it was asked for. Download the file",
    "redirect ftp://127.0.0.1/x": "does not send the file (302 Found). Check the address.",
    "redirect file:///etc/passwd": "does not send the file (302 Found). Check the address.",
}


@pytest.mark.parametrize("later", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_server_does_wrong_is_one_line(server, fault, later):
    """Fails if a fault ends in a traceback, in wrong bytes, or in a line that does not say what to do."""
    address = url(server)
    if later:
        address.ranges()
    server.always = fault
    with pytest.raises(CannotFetch) as error:
        address.ranges().read(500_000, 20_000)
    said = str(error.value)
    assert FAULTS[fault].format(address) in said
    assert str(address) in said
    assert said.isprintable()


@pytest.mark.parametrize("fault", ["500", "503", "429", "short", "silent"])
def test_what_may_pass_is_tried_again(server, fault):
    """Fails if one failure of a server ends a day of work, or bytes of the failed answer are kept."""
    server.faults = {0: fault, 2: fault, 3: fault}
    assert url(server).ranges().read(500_000, 20_000) == CONTENT[500_000:520_000]
    assert len(server.asked) == 5


def test_another_file_by_now_is_refused(server, tmp_path):
    """Fails if half of the numbers are those of another file."""
    held = url(server).ranges()
    server.always = "another etag"
    with pytest.raises(CannotFetch, match=r"changed while it was read. Wait until it is written"):
        held.read(500_000, 20_000)
    server.always = ""
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(CannotFetch, match="changed while it was read"):
        held.read(500_000, 20_000)


def test_a_server_without_parts(server, tmp_path, monkeypatch):
    """Fails if a large file is taken whole, or a small one is not taken."""
    server.always = "whole"
    assert url(server).ranges().read(1_400_000, 1000) == CONTENT[1_400_000:1_401_000]
    assert len(server.asked) == 1
    monkeypatch.setattr(http, "WHOLE", 2**20)
    with pytest.raises(
        CannotFetch, match=r"sends whole files only \(2 MB here\), no parts of them. Download"
    ):
        url(server).ranges()
    server.always = "whole without length"
    with pytest.raises(CannotFetch, match="of a size it does not tell"):
        url(server).ranges()


def test_redirects_are_followed_without_the_token(server, tmp_path):
    """Fails if a password or token goes to another address than the one it was meant for."""
    server.faults = {0: f"redirect {server.address}/a.bin?signed=1"}
    address = Url(server.address.replace("//", "//me:secret@") + "/a.bin?key=hidden")
    assert address.ranges().read(5, 10) == CONTENT[5:15]
    assert [one.token for one in server.asked] == ["Basic bWU6c2VjcmV0", None]
    assert [one.path for one in server.asked] == ["/a.bin?key=hidden", "/a.bin?signed=1"]
    assert str(address) == f"{server.address}/a.bin"
    server.always = f"redirect {server.address}/a.bin"
    with pytest.raises(CannotFetch, match="does not send the file"):
        url(server).ranges()


@pytest.mark.parametrize(
    ("before", "after", "followed"),
    [
        ("https://a/x", "http://a/x", False),
        ("https://a/x", "/y", True),
        ("http://a/x", "https://a/x", True),
        ("http://a/x", "file:///etc/passwd", False),
        ("http://a/x", "ftp://a/x", False),
    ],
)
def test_redirects_never_leave_encryption(before, after, followed):
    """Fails if what was asked for in secret is asked for in the open, or from elsewhere than the web."""
    request = urllib.request.Request(before)
    answer = http._Redirects().redirect_request(
        request, None, 302, "Found", Message(), urljoin(before, after)
    )
    assert (answer is not None) == followed


def test_an_empty_file_and_a_limit(server, tmp_path):
    """Fails if a file without a byte is a traceback, or an endless one is read."""
    (tmp_path / "empty").touch()
    with pytest.raises(CannotFetch, match="416 "):
        url(server, "empty").ranges()
    with pytest.raises(OSError, match="larger than the 1 MB"):
        read_input(url(server), 2**20)
    assert read_input(url(server), 2**21) == CONTENT


def test_who_does_not_answer():
    """Fails if a name that nobody has, or a port that nobody listens at, is a traceback."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "PAUSES", ())
        with pytest.raises(CannotFetch, match=r"cannot be reached \(Connection refused\). Try again later"):
            Url(f"http://127.0.0.1:{port}/a").ranges()
        patch.setattr(socket, "getaddrinfo", _unknown)
        with pytest.raises(CannotFetch, match=r"cannot be reached \(Name or service not known\)"):
            Url("http://nowhere.invalid/a").ranges()


def _unknown(*_: object, **__: object) -> None:
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/a", "there is no way to read ftp:// addresses. Known: http, https, hf, s3"),
        ("file:///etc/passwd", "there is no way to read file:// addresses"),
        ("https:///a", "is no address of a file"),
        ("https://ho st/a", "is no address of a file"),
        ("https://host/a\nb", "is no address of a file"),
        ("https://[::/a", "is no address of a file"),
        ("http://host:port/a", "is no address of a file"),
        ("hf://owner/repo", "names no file of a repository"),
        ("hf://owner", "names no file of a repository"),
        ("s3://bucket/a", "s3:// addresses need s3fs, which is not installed. Run pip install s3fs."),
    ],
)
def test_addresses_that_cannot_be_asked(address, said, monkeypatch):
    """Fails if an odd address is a traceback, or asks somebody."""
    monkeypatch.setattr(http, "PAUSES", ())
    monkeypatch.setattr(socket, "getaddrinfo", _unknown)
    if address.startswith("s3"):
        pytest.importorskip("fsspec")
        monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(CannotFetch) as error:
        Url(address).ranges()
    assert said in str(error.value)


def test_files_of_the_hub(server, tmp_path, monkeypatch):
    """Fails if another file, revision or host is asked than was named, or the token goes without being set."""
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, path in {
        "hf://me/net/a.bin": "me/net/resolve/main/a.bin",
        "hf://me/net@v1.0/sub/a.bin": "me/net/resolve/v1.0/sub/a.bin",
        "hf://models/me/net@refs%2Fpr%2F1/a.bin": "me/net/resolve/refs%2Fpr%2F1/a.bin",
    }.items():
        target = tmp_path / path.replace("%2F", "/")
        target.parent.mkdir(parents=True)
        target.write_bytes(CONTENT)
        assert Url(name).ranges().read(5, 10) == CONTENT[5:15]
        assert (server.asked[-1].path, server.asked[-1].token) == (f"/{path}", None)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    Url("hf://me/net/a.bin").ranges()
    assert server.asked[-1].token == "Bearer hf_x"


def test_stores_by_fsspec(monkeypatch):
    """Fails if a store's file is read elsewhere than asked, or its replacement is taken for it."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setitem(store.STORES, "memory", "fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/a.bin", CONTENT)
    held = Url("memory://bucket/a.bin").ranges()
    assert held.size == len(CONTENT)
    assert held.read(500_000, 20_000) == CONTENT[500_000:520_000]
    assert held.n_fetched == ranges.FIRST + 20_000
    memory.pipe_file("/bucket/a.bin", CONTENT[1:])
    with pytest.raises(CannotFetch, match="changed while it was read"):
        held.read(900_000, 20_000)
    with pytest.raises(CannotFetch, match=r"there is no file memory://bucket/b.bin. Check the address"):
        Url("memory://bucket/b.bin").ranges()
    with pytest.raises(CannotFetch, match=r"is no file. Give the address of the checkpoint itself"):
        Url("memory://bucket").ranges()

    def refused(*_: object, **__: object) -> bytes:
        raise PermissionError("The AWS Access Key\nId you provided does not exist")

    monkeypatch.setattr(type(memory), "cat_file", refused)
    with pytest.raises(CannotFetch, match=r"\(PermissionError: The AWS Access Key Id .*\). Renew the cred"):
        Url("memory://bucket/a.bin").ranges()


def test_addresses_like_paths():
    """Fails if a shard is looked for at another address than beside its index, or a secret is shown."""
    address = Url("https://me:pw@host/dir/model.safetensors.index.json?sig=secret")
    assert (address.name, address.suffix) == ("model.safetensors.index.json", ".json")
    assert (address.parent / "a b.bin").address == "https://me:pw@host/dir/a%20b.bin?sig=secret"
    assert str(address) == "https://host/dir/model.safetensors.index.json"
    assert "secret" not in repr(address)
    assert place_of("a/b.pt") == place_of(Path("a/b.pt")) == Path("a/b.pt")
    assert isinstance(place_of("HTTPS://host/a"), Url)
    assert isinstance(place_of("C:/a"), Path)
