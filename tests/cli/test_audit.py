"""`bnprobe audit` and `check --against`: many checkpoints as one table, and one among the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from support.server import serving
from torch import nn

from bnprobe.cli import audit
from bnprobe.cli.main import main
from bnprobe.files import arrow
from bnprobe.files.remote import http
from bnprobe.report.audit import COLUMNS
from bnprobe.report.formats import tables
from bnprobe.scaling import on_ray

SLOW = """
import sys, time
from bnprobe.cli import audit, main
real = audit.audit_file
audit.audit_file = lambda path: time.sleep(0.05) or real(path)
sys.exit(main.main(sys.argv[1:]))
"""
"""The command, slow enough to be killed in the middle."""


def checkpoint(path: str, scale: float, n: int = 6) -> nn.Module:
    """A network whose first norm has |γ| of 1 to 2 times `scale`."""
    model = nn.Sequential(
        nn.Conv2d(3, n, 3), nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, 5, 3), nn.BatchNorm2d(5)
    )
    for norm in (model[1], model[4]):
        norm.weight.data = scale * torch.linspace(-1, 2, norm.num_features)
        norm.bias.data.uniform_(-1, 1)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.num_batches_tracked += 1000
    torch.save(model.state_dict(), path)
    return model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of four sound checkpoints, a damaged one, and one that is not there."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        checkpoint(f"{i}.pt", 0.5 * (i + 1))
    Path("cut.pt").write_bytes(Path("0.pt").read_bytes()[:-300])
    Path("list").write_text("# four\n0.pt\n1.pt\ncut.pt\n2.pt\nnowhere.pt\n3.pt\n0.pt\n")
    return tmp_path


def test_the_table_holds_what_the_files_hold(folder, capsys):
    """Fails if a norm or file is left out, or its numbers are not those of its tensors."""
    assert main(["audit", "list", "-o", "t.csv"]) == 0
    assert capsys.readouterr().out == (
        "table: t.csv (6 files, 8 norms; 2 could not be checked, 0 with critical findings)\n"
    )
    table = pd.read_csv("t.csv", dtype={"layer": str})
    assert list(table) == [column.name for column in COLUMNS]
    files, norms = (table[table["row"] == row] for row in ("file", "norm"))
    assert list(files["path"]) == ["0.pt", "1.pt", "cut.pt", "2.pt", "nowhere.pt", "3.pt"]
    assert list(files["size"]) == [Path(p).stat().st_size if Path(p).exists() else 0 for p in files["path"]]
    assert "cut.pt" in files.set_index("path")["error"]["cut.pt"]
    assert "there is no checkpoint nowhere.pt" in files.set_index("path")["error"]["nowhere.pt"]
    assert list(files["n_norms"].dropna()) == [2, 2, 2, 2]
    state = torch.load("2.pt")
    row = norms[(norms["path"] == "2.pt") & (norms["layer"] == "1")].iloc[0]
    gamma, var = state["1.weight"].double().abs().numpy(), state["1.running_var"].double().numpy()
    for name, value in {
        "gamma_abs_low": gamma.min(),
        "gamma_abs_median": np.median(gamma),
        "gamma_abs_high": gamma.max(),
        "gamma_near_zero": (gamma < 0.01).mean(),
        "running_var_median": np.median(var),
        "running_var_high": var.max(),
        "running_mean_median": np.median(state["1.running_mean"].double().numpy()),
        "beta_median": np.median(state["1.bias"].double().numpy()),
        "n_channels": 6,
    }.items():
        assert row[name] == pytest.approx(value, rel=1e-12), name


def test_findings_are_counted(folder):
    """Fails if the table does not say which files need a look."""
    model = checkpoint("bad.pt", 1.0)
    model[1].running_var[2] = float("nan")
    torch.save(model.state_dict(), "bad.pt")
    Path("list").write_text("bad.pt\n")
    assert main(["audit", "list", "-o", "t.csv"]) == 0
    (row,) = pd.read_csv("t.csv").query("row == 'file'").to_dict("records")
    assert row["critical"] >= 1
    assert row["rules"]


def test_what_was_audited_is_not_read_again(folder, monkeypatch):
    """Fails if a run after an interruption begins anew, or a file that has changed is taken for the old one."""
    read: list[str] = []
    real = audit.audit_file
    monkeypatch.setattr(audit, "audit_file", lambda path: read.append(path) or real(path))
    assert main(["audit", "list", "-o", "t.csv"]) == 0
    first = Path("t.csv").read_bytes()
    assert read == ["0.pt", "1.pt", "cut.pt", "2.pt", "nowhere.pt", "3.pt"]
    read.clear()
    assert main(["audit", "list", "-o", "t.csv"]) == 0
    assert not read
    assert Path("t.csv").read_bytes() == first
    checkpoint("1.pt", 7.0)
    os.utime("1.pt", ns=(1, 1))
    assert main(["audit", "list", "-o", "t.csv"]) == 0
    assert read == ["1.pt"]
    assert pd.read_csv("t.csv").query("path == '1.pt'")["gamma_abs_high"].max() == pytest.approx(14)


def test_an_interruption_keeps_what_was_done(folder, monkeypatch):
    """Fails if Ctrl-C loses the files that were read before."""
    real = audit.audit_file

    def stopped(path: str) -> list[audit.Row]:
        if path == "2.pt":
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(audit, "audit_file", stopped)
    assert main(["audit", "list", "-o", "t.csv"]) == 130
    assert set(pd.read_csv("t.csv")["path"]) == {"0.pt", "1.pt", "cut.pt"}


def test_a_killed_command_loses_nothing_and_repeats_nothing(folder):
    """Fails if a kill costs more than the file at hand, leaves half a table, or a file is in it twice."""
    for i in range(24):
        checkpoint(f"k{i}.pt", 1 + i)
    Path("list").write_text("".join(f"k{i}.pt\n" for i in range(24)))
    results = Path(".t.csv.bnprobe-results")
    command = subprocess.Popen([sys.executable, "-c", SLOW, "audit", "list", "-o", "t.csv"])
    while not results.exists() or results.read_bytes().count(b"\n") < 5:
        assert command.poll() is None
        time.sleep(0.01)
    command.kill()
    command.wait()
    assert not Path("t.csv").exists()
    with results.open("ab") as file:
        file.write(b'["k23.pt", [1, 2')  # as a kill in the middle of a line leaves it
    done = results.read_bytes().count(b"\n")
    read: list[str] = []
    real = audit.audit_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "audit_file", lambda path: read.append(path) or real(path))
        assert main(["audit", "list", "-o", "t.csv"]) == 0
    assert read == [f"k{i}.pt" for i in range(done, 24)]
    assert not results.exists()
    assert main(["audit", "list", "-o", "fresh.csv"]) == 0
    assert Path("t.csv").read_bytes() == Path("fresh.csv").read_bytes()


def test_pieces_make_the_same_table(folder, monkeypatch):
    """Fails if rows are lost or repeated where a large table is written and read in pieces."""
    assert main(["audit", "list", "-o", "one.csv"]) == 0
    monkeypatch.setattr(tables, "PIECE", 3)
    assert main(["audit", "list", "-o", "two.csv"]) == 0
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()
    monkeypatch.setattr(audit, "audit_file", lambda path: pytest.fail("read again"))
    assert main(["audit", "list", "-o", "two.csv"]) == 0
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()


def test_remote_checkpoints(folder, monkeypatch):
    """Fails if an address is not audited, is audited again although nothing changed, or stays failed for ever."""
    monkeypatch.setattr(http, "PAUSES", ())
    with serving(folder) as server:
        Path("list").write_text(f"0.pt\n{server.address}/1.pt?sig=secret\n{server.address}/2.pt\n")
        server.faults = {1: "500", 2: "500", 3: "500", 4: "500"}
        assert main(["audit", "list", "-o", "t.csv"]) == 0
        table = pd.read_csv("t.csv", dtype={"layer": str}, keep_default_na=False)
        files = table[table["row"] == "file"]
        assert list(files["path"]) == ["0.pt", f"{server.address}/1.pt", f"{server.address}/2.pt"]
        assert "secret" not in Path("t.csv").read_text()
        failed = list(files.loc[files["error"] != "", "path"])
        assert failed
        server.asked.clear()
        server.faults = {}
        assert main(["audit", "list", "-o", "t.csv"]) == 0
        table = pd.read_csv("t.csv", dtype={"layer": str}, keep_default_na=False)
        files = table[table["row"] == "file"]
        assert (files["error"] == "").all()
        assert all(files["etag"].iloc[1:])
        n = len(server.asked)
        assert main(["audit", "list", "-o", "t.csv"]) == 0
        assert len(server.asked) == n + 2, "the beginnings alone"
        checkpoint("2.pt", 9.0)
        assert main(["audit", "list", "-o", "t.csv"]) == 0
        assert pd.read_csv("t.csv").query("path.str.endswith('2.pt')")[
            "gamma_abs_high"
        ].max() == pytest.approx(18)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("401", "refuses access (401 Unauthorized). Renew the token or the signed address."),
        ("403", "refuses access (403 Forbidden). Renew the token or the signed address."),
        ("404", "(404 Not Found). Check the address."),
        ("416", "has no such part of the file (416 "),
        ("500", "failed (500 Internal Server Error). Try again later"),
        ("short", "bytes. Try again later"),
        ("another etag", "changed while it was read. Wait until it is written, and run this again."),
        ("whole", "changed while it was read."),
    ],
)
def test_a_server_that_fails_in_the_middle_costs_a_row_until_it_answers(folder, monkeypatch, fault, said):
    """Fails if a fault ends the audit, is no line, shows a secret, costs what was read before, or stays for ever."""
    monkeypatch.setattr(http, "PAUSES", (0.0,))
    model = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300), nn.Linear(300, 300), nn.BatchNorm1d(300))
    save_file(model.state_dict(), "far.safetensors")
    address = "{}/far.safetensors?sig=secret"
    with serving(folder) as server:
        Path("list").write_text(f"0.pt\n{address.format(server.address)}\n1.pt\n")
        server.always, server.faults = fault, dict.fromkeys(range(3), "")  # its beginning is there
        assert main(["audit", "list", "-o", "t.csv"]) == 0
        rows = pd.read_csv("t.csv", dtype={"layer": str}, keep_default_na=False)
        files = rows[rows["row"] == "file"]
        assert list(files["path"]) == ["0.pt", f"{server.address}/far.safetensors", "1.pt"]
        assert list(files["error"] == "") == [True, False, True]
        (error,) = files.loc[files["error"] != "", "error"]
        assert said in error
        assert f"{server.address}/far.safetensors" in error
        assert error.isprintable()
        assert "secret" not in Path("t.csv").read_text()
        server.faults, server.always = {}, ""
        real = audit.audit_file
        read: list[str] = []
        monkeypatch.setattr(audit, "audit_file", lambda path: read.append(path) or real(path))
        assert main(["audit", "list", "-o", "t.csv"]) == 0
        assert read == [address.format(server.address)]
        again = pd.read_csv("t.csv", dtype={"layer": str}, keep_default_na=False)
        assert (again["error"] == "").all()
        assert list(again["path"]).count(f"{server.address}/far.safetensors") == 3
        for local in ("0.pt", "1.pt"):
            kept, was = (table[table["path"] == local].reset_index(drop=True) for table in (again, rows))
            assert (kept.astype(str) == was.astype(str)).all(axis=None)


def test_a_server_that_failed_is_asked_again(folder, monkeypatch):
    """Fails if a server that was down for a minute leaves an error for ever, although the file is as it was."""
    real = audit.audit_file

    def failed(path: str) -> list[audit.Row]:
        return [{**real(path)[0], "error": "the server failed"}]

    with serving(folder) as server:
        Path("list").write_text(f"{server.address}/1.pt\n")
        monkeypatch.setattr(audit, "audit_file", failed)
        assert main(["audit", "list", "-o", "t.csv"]) == 0
        assert list(pd.read_csv("t.csv")["error"]) == ["the server failed"]
        monkeypatch.setattr(audit, "audit_file", real)
        assert main(["audit", "list", "-o", "t.csv"]) == 0
    assert pd.read_csv("t.csv")["error"].isna().all()


def test_workers_change_nothing(folder):
    """Fails if rows come in the order in which processes end."""
    assert main(["audit", "list", "-o", "one.csv"]) == 0
    assert main(["audit", "list", "-o", "two.csv", "--workers", "2"]) == 0
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()


def test_a_process_elsewhere_reads_the_files_of_the_list(folder, monkeypatch):
    """Fails if a worker that began in another folder, as those of a cluster do, looks for the files there."""
    here = [audit.audit_file(path) for path in ("0.pt", "cut.pt")]
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert audit.audit_file("0.pt")[0]["error"]
    assert [audit._audit_from(str(folder), path) for path in ("0.pt", "cut.pt")] == here
    assert audit._audit_from(str(folder / "of another machine"), str(folder / "0.pt"))[0]["error"] == ""


def test_without_ray_an_audit_says_what_to_install(folder, monkeypatch, capsys):
    """Fails if --engine ray is ignored, or its need is a traceback."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(on_ray, "import_module", missing)
    assert main(["audit", "list", "-o", "t.csv", "--engine", "ray"]) == 2
    assert "--engine ray needs Ray, which is not installed. Run pip install ray." in capsys.readouterr().err


def test_parquet_comes_back_and_says_what_it_holds(folder):
    """Fails if a table as Parquet cannot be gone on with, or its fields have no meaning."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    assert main(["audit", "list", "-o", "t.parquet"]) == 0
    first = Path("t.parquet").read_bytes()
    assert main(["audit", "list", "-o", "t.parquet"]) == 0
    assert Path("t.parquet").read_bytes() == first
    schema = parquet.read_schema("t.parquet")
    assert schema.metadata[b"schema"] == b"bnprobe/tables/audit"
    assert all(schema.field(column.name).metadata[b"description"] for column in COLUMNS)


def test_where_a_checkpoint_stands(folder, capsys):
    """Fails if a share is of the wrong side, or counts the file itself."""
    assert main(["audit", "list", "-o", "t.csv"]) == 0
    capsys.readouterr()
    checkpoint("mine.pt", 1.2)
    for file, said in {
        "mine.pt": "smaller than in 50% of 4 checkpoints in t.csv",
        "0.pt": "smaller than in 100% of 3 checkpoints in t.csv",
        "2.pt": "larger than in 67% of 3 checkpoints in t.csv",
    }.items():
        assert main(["check", file, "--against", "t.csv"]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("Typical |γ| of batch norms: "), file
        assert said in last, file
    torch.save(nn.LayerNorm(4).state_dict(), "layer.pt")
    assert main(["check", "layer.pt", "--against", "t.csv"]) == 0
    assert "No other checkpoint in t.csv has" in capsys.readouterr().out


def bad() -> dict[str, tuple[list[str], str]]:
    Path("empty").write_text("# nothing\n")
    Path("other.csv").write_text("a,b\n1,2\n")
    Path("no.csv").mkdir()
    return {
        "empty": (["audit", "empty", "-o", "t.csv"], "lists no checkpoints"),
        "missing": (["audit", "nowhere", "-o", "t.csv"], "No such file or directory. Give a text file"),
        "suffix": (["audit", "list", "-o", "t.xlsx"], "tables end in .csv or .parquet"),
        "output is input": (["audit", "list", "-o", "0.pt"], "is what is read, and would be replaced"),
        "another table": (
            ["audit", "list", "-o", "other.csv"],
            "is no table of an audit: it has no column row",
        ),
        "against another": (["check", "0.pt", "--against", "other.csv"], "is no table of an audit"),
        "against nothing": (["check", "0.pt", "--against", "none.csv"], "none.csv: No such file"),
        "with a format": (
            ["check", "0.pt", "--against", "x.csv", "--format", "json"],
            "--against adds lines to the text",
        ),
    }


def test_bad_input_is_one_line(folder, capsys):
    """Fails if bad input is a traceback, or another file is written over."""
    for name, (arguments, said) in bad().items():
        assert main(arguments) == 2, name
        out, err = capsys.readouterr()
        assert said in err, name
        assert err.count("\n") == 1, name
        assert not out, name
    assert Path("other.csv").read_text() == "a,b\n1,2\n"


def test_without_pyarrow_parquet_says_what_to_install(folder, monkeypatch, capsys):
    """Fails if an hour of work ends in an import error."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(arrow, "import_module", missing)
    monkeypatch.setattr(audit, "audit_file", lambda path: pytest.fail("begun"))
    assert main(["audit", "list", "-o", "t.parquet"]) == 2
    assert "Run pip install pyarrow, or use a .csv file" in capsys.readouterr().err


def test_a_folder_of_checkpoints(folder, capsys):
    """Fails if a folder is taken for one checkpoint, or other files of it are read."""
    assert main(["audit", ".", "-o", "t.csv"]) == 0
    assert set(pd.read_csv("t.csv")["path"]) == {"0.pt", "1.pt", "2.pt", "3.pt", "cut.pt"}
