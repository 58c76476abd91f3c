"""The gate out: what may be replaced, what must not be, and how the new file looks."""

from __future__ import annotations

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bnprobe.errors import CannotWrite
from bnprobe.files import check_outputs, write_output

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and modes of Unix")


def test_a_pipe_is_refused_and_stays(tmp_path):
    """Fails if a pipe is replaced by a file, or waited for."""
    os.mkfifo(tmp_path / "out")
    with pytest.raises(CannotWrite, match=r"out: not a regular file but a pipe\. Choose another path"):
        write_output(tmp_path / "out", b"x")
    assert stat.S_ISFIFO((tmp_path / "out").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("minor", [3, 5])
def test_devices_stay_devices(minor, tmp_path):
    """Fails if a device is replaced by a file: the null device takes everything, others (here /dev/zero) are refused."""
    try:
        os.mknod(tmp_path / "device", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    except PermissionError:
        pytest.skip("only root makes devices")
    if minor == 3:
        assert write_output(tmp_path / "device", b"x") == tmp_path / "device"
    else:
        with pytest.raises(CannotWrite, match="not a regular file but a device"):
            write_output(tmp_path / "device", b"x")
    assert stat.S_ISCHR((tmp_path / "device").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["device"]


def test_the_null_device_of_this_machine_takes_everything():
    """Fails if `-o /dev/null`, which scripts use, is an error."""
    assert write_output(Path(os.devnull), b"x") == Path(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    """Fails if `latest.html -> run7.html` becomes a file of its own."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "7.html").write_bytes(b"old")
    (tmp_path / "latest.html").symlink_to("runs/7.html")
    write_output(tmp_path / "latest.html", b"new")
    assert (tmp_path / "latest.html").is_symlink()
    assert (tmp_path / "runs" / "7.html").read_bytes() == b"new"
    assert {path.name for path in tmp_path.rglob("*")} == {"runs", "7.html", "latest.html"}


def test_a_link_to_nothing_is_refused(tmp_path):
    """Fails if a file appears wherever a link that somebody else made leads."""
    (tmp_path / "link").symlink_to(tmp_path / "away")
    with pytest.raises(CannotWrite, match=r"link: is a link to .*away, which is not there"):
        write_output(tmp_path / "link", b"x")
    assert not (tmp_path / "away").exists()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_stays(mode, tmp_path):
    """Fails if a file that only its owner may read can be read by everyone afterwards."""
    path = tmp_path / "a.html"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_output(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_owner_stays(tmp_path):
    """Fails if a file that root writes again can no longer be written by whose it was."""
    path = tmp_path / "a.html"
    path.write_bytes(b"old")
    try:
        os.chown(path, 12345, 12346)
    except PermissionError:
        pytest.skip("only root gives files away")
    write_output(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)


def test_what_is_printed_to_is_not_replaced(tmp_path):
    """Fails if `-o x.txt > x.txt` has one of the two take the other's place."""
    path = tmp_path / "x.txt"
    kept = os.dup(1)
    with path.open("wb") as printed:
        os.dup2(printed.fileno(), 1)
        try:
            with pytest.raises(CannotWrite, match="is where the output is printed"):
                write_output(path, b"x")
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\ud800"])
def test_names_that_no_file_can_have(name, tmp_path):
    """Fails if a name that the system refuses ends in another error than ours."""
    for act in (lambda path: write_output(path, b"x"), lambda path: check_outputs([path])):
        with pytest.raises(CannotWrite, match="Choose another path"):
            act(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", [True, False])
def test_an_output_is_never_an_input(there, tmp_path):
    """Fails if a checkpoint is replaced by the page about it, whatever the two are called."""
    path = tmp_path / "a.pt"
    if there:
        path.write_bytes(b"weights")
        (tmp_path / "link").symlink_to("a.pt")
        os.link(path, tmp_path / "second")
        for name in ("link", "second"):
            with pytest.raises(CannotWrite, match="is what is read"):
                check_outputs([tmp_path / name], [path])
    with pytest.raises(CannotWrite, match="is what is read"):
        check_outputs([tmp_path / "." / "a.pt"], [path])
    check_outputs([tmp_path / "b.html"], [path])


def test_no_file_is_written_twice(tmp_path):
    """Fails if the last of two outputs of one name wins in silence."""
    with pytest.raises(CannotWrite, match="would be written twice"):
        check_outputs([tmp_path / "a.json", tmp_path / "." / "a.json"])
    check_outputs([Path(os.devnull), Path(os.devnull)])


def test_pipes_called_like_our_leftovers_do_not_hold_us(tmp_path):
    """Fails if looking for leftovers opens a pipe and waits."""
    for name in (".o.json.x.part", ".o.json.bnprobe-01234567.part"):
        os.mkfifo(tmp_path / name)
    write_output(tmp_path / "o.json", b"x")
    assert (tmp_path / "o.json").read_bytes() == b"x"


def test_names_that_no_file_can_have_are_compared_as_they_are() -> None:
    """Fails if looking whether output and input are one file dies on letters that no file name can hold."""
    bad = Path("\ud800")
    check_outputs([], [bad])
    with pytest.raises(CannotWrite):
        check_outputs([Path("\ud801")], [bad])


def test_writers_of_one_file_leave_it_whole(tmp_path):
    """Fails if what several write under one name at once is mixed, seen in parts, or left unfinished."""
    path, contents = tmp_path / "out", [bytes([i]) * 2**16 for i in range(3)]
    seen: set[bytes] = set()

    def write(content: bytes) -> None:
        for _ in range(30):
            seen.add(write_output(path, content).read_bytes())

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert seen <= set(contents)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
