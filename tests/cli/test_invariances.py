"""`bnprobe invariances`: what is printed, exit codes, and wrong uses in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnprobe.cli.main import main

SOURCE = """
import torch
from support.token_models import Gpt, MaskedGpt, tokens

def healthy():
    return MaskedGpt()

def leaky():
    return Gpt(norm_over_time=1)

def batches():
    return [tokens(), tokens(seed=1)]

def padding_only():
    return [{"input_ids": tokens(), "attention_mask": torch.zeros(4, 24)}]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_tokens.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)


def test_a_healthy_model_is_a_sentence_per_probe(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["invariances", "of_tokens:healthy", "--batches", "of_tokens:batches"]
    assert main([*given, "--fail-on", "info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Causality", "Padding", "Batch"]
    assert all(" holds: " in line for line in lines)


def test_a_leak_is_printed_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if the finding is lost, or the exit code does not say so."""
    given = ["invariances", "of_tokens:leaky", "--batches", "of_tokens:batches"]
    assert main(given) == 0
    assert main([*given, "--fail-on", "critical"]) == 1
    out = capsys.readouterr().out
    assert "critical: blocks.1.ln1 lets earlier tokens see later ones" in out
    assert "(future-leaks)" in out
    assert main([*given, "--fail-on", "critical", "--causal", "no"]) == 0
    assert "sees both sides" in capsys.readouterr().out


def test_images_are_tried_beside_others_and_train_mode_couples_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["invariances", "resnet18", "--limit", "4", "--size", "32"]) == 0
    assert "Batch holds" in capsys.readouterr().out
    assert main(["invariances", "resnet18", "--limit", "4", "--size", "32", "--train-mode"]) == 0
    assert "it starts in bn1" in capsys.readouterr().out


REPORT = ["report", "of_tokens:leaky", "--batches", "of_tokens:batches", "-o", "page.html"]


def test_a_report_tries_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if what was tried does not reach the findings, the exit code, the page's chapter or its table, or is tried
    unasked."""
    assert main([*REPORT, "--invariances", "--fail-on", "critical"]) == 1
    assert "lets earlier tokens see later ones" in " ".join(capsys.readouterr().out.split())
    page = Path("page.html").read_text(encoding="utf-8")
    assert "What must not move outputs" in page
    assert "Causality does not hold: outputs of earlier tokens change by up to" in page
    assert "change, as meant" not in page
    assert main([*REPORT, "--invariances", "--causal", "no", "--fail-on", "critical"]) == 0
    assert "change, as meant" in Path("page.html").read_text(encoding="utf-8")
    assert main([*REPORT, "--fail-on", "critical"]) == 0
    assert "What must not move outputs" not in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ([*REPORT, "--causal", "no"], "Add --invariances"),
        (
            ["report", "run.bnp", "--invariances", "--causal", "no"],
            "--invariances, --causal can change nothing",
        ),
    ],
    ids=["nothing to try", "a recording"],
)
def test_nothing_to_try_is_one_line(
    given: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 2
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (["of_tokens:healthy", "--batches", "of_tokens:padding_only"], "keeps no position"),
        (["of_tokens:healthy", "--batches", "of_tokens:batches", "--mask", "m"], "Pass the name of the one"),
        (["of_tokens:healthy"], "failed on its inputs"),
    ],
)
def test_wrong_uses_are_one_line(given: list[str], advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invariances", *given]) == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert advice in err
