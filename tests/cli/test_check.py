"""`bnprobe check` and `bnprobe rules`: formats, exit codes, baselines, settings."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlparse

import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.cli.main import main
from bnprobe.errors import CannotWrite
from bnprobe.files import check_outputs, standard_input
from bnprobe.rules import RULES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a sound checkpoint and one whose statistics were reset."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
    )
    for norm in (model[1], model[4]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    model(torch.randn(8, 3, 9, 9))
    torch.save(model.state_dict(), "good.pt")
    model[4].reset_running_stats()
    torch.save(model.state_dict(), "bad.pt")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["check", *arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_text_is_what_is_printed(folder, capsys):
    """Fails if the text leaves out the mode, the finding, or how to learn more."""
    code, out, err = said(capsys, "bad.pt")
    assert (code, err) == (0, "")
    assert "weights only" in out
    assert "CRITICAL γ and β were trained, but the running statistics were never updated" in out
    assert "rule statistics-never-updated" in out
    assert "bnprobe rules RULE" in out


@pytest.mark.parametrize(
    ("files", "fail_on", "code"),
    [
        (["good.pt"], "info", 0),
        (["bad.pt"], "critical", 1),
        (["bad.pt"], None, 0),
        (["good.pt", "bad.pt"], "warning", 1),
        (["good.pt", "gone.pt"], "critical", 2),
    ],
)
def test_exit_codes(files, fail_on, code, folder, capsys):
    """Fails if a serious finding passes, or bad input is taken for one."""
    options = ["--fail-on", fail_on] if fail_on else []
    found, _, err = said(capsys, *files, *options)
    assert found == code
    assert (err.count("\n") == 1) == (code == 2)


def test_json_is_one_object_for_all_files(folder, capsys):
    """Fails if NaN gets into the JSON, or a finding loses a column of the contract."""
    _, out, _ = said(capsys, "good.pt", "bad.pt", "--format", "json")
    whole = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    good, bad = whole["files"]
    assert (good["file"], good["findings"]) == ("good.pt", [])
    assert good["layers"][0]["feeder"] == "0 (by name)"
    finding = bad["findings"][0]
    assert {
        "severity",
        "rule",
        "layer",
        "channels",
        "says",
        "because",
        "do",
        "source",
        "fingerprint",
        "new",
    } <= finding.keys()
    assert finding["layer"] == "4"


def test_html_has_a_page_per_file(folder, capsys):
    """Fails if the second file's page takes the first one's place, or a rule's id leads nowhere."""
    assert said(capsys, "good.pt", "bad.pt", "--format", "html")[0] == 0
    pages = {path.name: path.read_text("utf-8") for path in Path("reports").iterdir()}
    assert set(pages) == {"good.check.html", "bad.check.html"}
    assert 'href="#rule-statistics-never-updated"' in pages["bad.check.html"]
    assert 'id="rule-statistics-never-updated"' in pages["bad.check.html"]
    code, _, err = said(capsys, "good.pt", "bad.pt", "--format", "html", "-o", "x.html")
    assert code == 2
    assert "check one file at a time" in err


# SARIF


def sarif(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    _, out, _ = said(capsys, *arguments, "--format", "sarif")
    log = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    check_sarif(log)
    return log


def check_sarif(log: dict) -> None:
    """What the schema of SARIF 2.1.0 demands of what we write, and what readers of it rely on."""
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    assert set(log) == {"$schema", "version", "runs"}
    for run in log["runs"]:
        assert set(run) <= {"tool", "artifacts", "results", "columnKind"}
        assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
        driver = run["tool"]["driver"]
        assert driver["name"] == "bnprobe"
        ids = [rule["id"] for rule in driver["rules"]]
        assert len(ids) == len(set(ids))
        for rule in driver["rules"]:
            assert set(rule) <= {
                "id",
                "name",
                "shortDescription",
                "fullDescription",
                "help",
                "helpUri",
                "properties",
            }
            assert rule["shortDescription"]["text"]
            assert rule["fullDescription"]["text"]
            assert rule["help"]["text"]
            address = urlparse(rule["helpUri"])
            assert address.scheme  # an absolute address, as the schema has it
            assert Path(unquote(address.path)).is_file()
        for result in run["results"]:
            check_result(result, ids, run["artifacts"])


def check_result(result: dict, ids: list[str], artifacts: list[dict]) -> None:
    assert ids[result["ruleIndex"]] == result["ruleId"]
    assert result["level"] in ("none", "note", "warning", "error")
    assert result["message"]["text"]
    assert result.get("baselineState", "new") in ("new", "unchanged", "updated", "absent")
    assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
    for location in result["locations"]:
        physical = location["physicalLocation"]
        artifact = physical["artifactLocation"]
        assert artifacts[artifact["index"]]["location"]["uri"] == artifact["uri"]
        assert physical["region"]["startLine"] >= 1
        for logical in location.get("logicalLocations", []):
            assert logical["fullyQualifiedName"].endswith(logical["name"])


def test_sarif_says_file_layer_rule_and_level(folder, capsys):
    """Fails if a result points at the wrong file, layer or rule."""
    log = sarif(capsys, "good.pt", "bad.pt")
    (run,) = log["runs"]
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == {rule.id for rule in RULES}
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("statistics-never-updated", "error")
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"] == {"uri": "bad.pt", "index": 1}
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "4"


def test_sarif_spells_odd_file_names_as_addresses(folder, capsys):
    """Fails if a blank or an umlaut stands in an address."""
    Path("bad.pt").rename("schö n.pt")
    uri = sarif(capsys, "schö n.pt")["runs"][0]["artifacts"][0]["location"]["uri"]
    assert uri == "sch%C3%B6%20n.pt"
    absolute = str(folder / "schö n.pt")
    assert sarif(capsys, absolute)["runs"][0]["artifacts"][0]["location"]["uri"].startswith("file:///")


# Baseline and settings


def test_a_baseline_lets_known_findings_pass_and_new_ones_fail(folder, capsys):
    """Fails if CI complains of what was there, or misses what is new."""
    assert said(capsys, "bad.pt", "--write-baseline", "known.json", "--fail-on", "warning")[0] == 1
    assert said(capsys, "bad.pt", "--baseline", "known.json", "--fail-on", "warning")[0] == 0
    code, out, _ = said(capsys, "bad.pt", "bad.pt", "--baseline", "known.json", "--fail-on", "warning")
    assert code == 1
    assert "1 finding, 0 of them not in the baseline." in out
    assert "1 finding, 1 of them not in the baseline." in out
    states = [
        r["baselineState"]
        for r in sarif(capsys, "bad.pt", "bad.pt", "--baseline", "known.json")["runs"][0]["results"]
    ]
    assert states == ["unchanged", "new"]


def test_settings_come_from_the_nearest_pyproject_or_from_config(folder, capsys):
    """Fails if a finding that was left out still fails the run, or a typo passes."""
    Path("pyproject.toml").write_text('[tool.bnprobe]\nignore = ["statistics-never-updated:4"]\n')
    code, out, _ = said(capsys, "bad.pt", "--fail-on", "info")
    assert code == 0
    assert "1 finding ignored by" in out
    Path("empty.toml").write_text("")
    assert said(capsys, "bad.pt", "--fail-on", "info", "--config", "empty.toml")[0] == 1
    Path("pyproject.toml").write_text('[tool.bnprobe]\nignore = ["statistics-never-update"]\n')
    code, _, err = said(capsys, "bad.pt")
    assert code == 2
    assert "Did you mean statistics-never-updated?" in err


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("page.html", "<!doctype html>"),
        ("found.json", "{"),
        ("found.SARIF", "{"),
        ("notes.txt", "What the norms"),
    ],
)
def test_the_suffix_of_the_output_names_its_format(name, begins, folder, capsys):
    """Fails if text is written into a file whose name says that it is a page."""
    assert main(["check", "good.pt", "-o", name]) == 0
    assert (folder / name).read_text("utf-8").startswith(begins)
    assert main(["check", "good.pt", "-o", name, "--format", "json"]) == 0
    assert (folder / name).read_text("utf-8").startswith("{")


def test_output_goes_to_the_file_that_was_named(folder, capsys):
    code, out, _ = said(capsys, "bad.pt", "--format", "sarif", "-o", "out/a.sarif")
    assert (code, out) == (0, "")
    check_sarif(json.loads(Path("out/a.sarif").read_text("utf-8")))


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes, terminal: bool = False) -> None:
    stream = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stream)


def test_a_checkpoint_may_be_piped_in_and_its_findings_out(folder, monkeypatch, capsys):
    """Fails if a stream is another file than the one that was piped, or a file called - is written or left behind."""
    piped(monkeypatch, (folder / "bad.pt").read_bytes())
    code, out, err = said(capsys, "-", "--format", "json", "-o", "-")
    assert (code, err) == (0, "")
    named = json.loads(said(capsys, "bad.pt", "--format", "json")[1])["files"][0]
    (streamed,) = json.loads(out)["files"]
    assert (streamed["file"], streamed["model"]) == ("-", "standard input")
    assert streamed["layers"] == named["layers"]
    assert [finding["rule"] for finding in streamed["findings"]] == [
        finding["rule"] for finding in named["findings"]
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["bad.pt", "good.pt"]


@pytest.mark.parametrize(
    ("content", "terminal", "arguments", "words"),
    [
        (b"", False, ["-"], "standard input is not a whole checkpoint"),
        (b"", True, ["-"], "nothing is piped in. Pipe a checkpoint into bnprobe check -"),
        (b"x", False, ["-", "-"], "standard input was named twice"),
        (b"x", False, ["-", "--format", "html", "-o", "-"], "standard output takes text, json and sarif"),
        (b"x", False, ["-", "--write-baseline", "-"], "standard output takes text, json and sarif"),
    ],
)
def test_streams_that_cannot_be(content, terminal, arguments, words, folder, monkeypatch, capsys):
    """Fails if a command waits for what nobody types, or a page is a file called -."""
    piped(monkeypatch, content, terminal)
    code, out, err = said(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_stream_without_an_end_is_cut_and_nothing_of_it_is_left(tmp_path, monkeypatch):
    """Fails if a stream can fill the disk, or what was taken of it stays there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    piped(monkeypatch, b"x" * 2000)
    with pytest.raises(OSError, match="more than the 0 GB"), standard_input(1999):
        pass
    assert list(tmp_path.iterdir()) == []
    piped(monkeypatch, b"x" * 2000)
    with standard_input(2000) as path:
        assert path.stat().st_size == 2000
    with pytest.raises(CannotWrite, match="standard output takes"):
        check_outputs([Path("-")])


LOADED = """
import sys
from bnprobe.cli.main import main
assert main(["check", "good.pt"]) == 0
heavy = ("pyarrow", "ssl", "torch", "scipy", "matplotlib")
print(*(name for name in heavy if name in sys.modules), file=sys.stderr)
import pandas
pandas.DataFrame({"a": ["x", None]}).to_parquet("a.parquet")
assert pandas.read_parquet("a.parquet")["a"].tolist()[0] == "x"
"""


def test_a_check_loads_nothing_that_it_does_not_need(folder):
    """Fails if the imports that are half of its time take more, or pandas is left unable to use pyarrow."""
    environment = {**os.environ, "PYTHONPATH": str(Path(bnprobe.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "\n")
