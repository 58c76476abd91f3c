"""`bnprobe ablate` and the chapter of `bnprobe report --ablate`: page, table, answer, exit codes, wrong uses in one line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

import bnprobe
from bnprobe.cli.main import main

SOURCE = """
import torch
from torch import nn

def build(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    nn.init.normal_(layers[1].weight, 1, 0.5)
    nn.init.normal_(layers[1].bias)
    return nn.Sequential(*layers)

def batches():
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(10, 3, 8, 8, generator=g) + 2, torch.arange(10) % 2) for _ in range(6)]

class Stopped:
    n = 0

    def __iter__(self):
        type(self).n += 1
        for i, batch in enumerate(batches()):
            if i == 3 and self.n > 1:
                raise KeyboardInterrupt
            yield batch

def stopped():
    Stopped.n = 0
    return Stopped()
"""
BATCHES = ["studied:build", "--batches", "studied:batches"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's module and images of two classes, as the current one."""
    (tmp_path / "studied.py").write_text(SOURCE)
    g = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            pixels = torch.randint(255, (12, 12, 3), generator=g).numpy().astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_page_and_table_are_written_and_the_answer_is_printed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    initial = {"1.weight": torch.ones(8), "1.bias": torch.zeros(8)}
    torch.save(initial, home / "initial.pt")
    assert main(["ablate", *BATCHES, "--initial", "initial.pt", "-o", "page.html", "--csv", "table.csv"]) == 0
    out = capsys.readouterr().out
    table = pd.read_csv("table.csv", keep_default_na=False, na_values=[""])
    assert "page: page.html" in out
    assert set(table["n"]) == {60}
    # as at initialization, γ is 1 and β 0
    rows = table[table["level"] == "layer"].set_index(["vector", "replacement"])
    assert rows.loc[("weight", "initial"), "kl"] == rows.loc[("weight", "1"), "kl"] > 0
    assert rows.loc[("bias", "initial"), "kl"] == rows.loc[("bias", "0"), "kl"] > 0
    page = (home / "page.html").read_text("utf-8")
    assert '<p class="verdict">' in page
    assert "studied:build" in page
    first = out.splitlines()[0]
    assert first.startswith(
        ("Worth most is the ", "No vector of one layer is worth", "No vector of a single layer is worth")
    )
    assert first.split(":")[0].replace("&", "&amp;") in page


def test_images_of_a_folder_are_measured_and_the_page_has_a_default_place(home: Path) -> None:
    assert (
        main(
            [
                "ablate",
                "studied:build",
                "--data",
                "images",
                "--size",
                "12",
                "--mean",
                "0,0,0",
                "--std",
                "1,1,1",
            ]
        )
        == 0
    )
    assert (home / "reports" / "build-worth.html").is_file()


def test_a_report_has_the_chapter_if_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *BATCHES, "--ablate", "-o", "with.html"]) == 0
    assert main(["report", *BATCHES, "-o", "without.html"]) == 0
    assert 'id="worth"' in (home / "with.html").read_text("utf-8")
    assert 'id="worth"' not in (home / "without.html").read_text("utf-8")


def test_a_saved_study_is_the_chapter_of_later_pages(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if it is measured again, of a model or of a saved recording."""
    assert main(["ablate", *BATCHES, "--vectors", "bias", "--save", "worth.json", "-o", "page.html"]) == 0
    answer = capsys.readouterr().out.splitlines()[0]
    monkeypatch.setattr("bnprobe.experiments.ablate.ablate", lambda *_, **__: 1 / 0)
    assert main(["report", *BATCHES, "--study", "worth.json", "-o", "with.html", "--save", "run.bnp"]) == 0
    assert main(["report", "run.bnp", "--study", "worth.json", "-o", "again.html"]) == 0
    for name in ("with.html", "again.html"):
        page = (home / name).read_text("utf-8")
        assert 'id="worth"' in page
        assert answer.split(":")[0].replace("&", "&amp;") in page


def test_ctrl_c_writes_what_was_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "ablate",
        "studied:build",
        "--batches",
        "studied:stopped",
        "--vectors",
        "bias",
        "-o",
        "page.html",
    ]
    assert main(command) == 130
    assert "Interrupted on sample 30 of 60" in capsys.readouterr().out
    assert (home / "page.html").is_file()


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (["ablate", *BATCHES, "--budget", "soon"], "is not a number of seconds"),
        (["ablate", *BATCHES, "--vectors", "gamma"], "choose from"),
        (["ablate", *BATCHES, "--layers", "2"], "Pass a path or a pattern of these"),
        (["report", *BATCHES, "--budget", "3"], "Add --ablate"),
        (["ablate", *BATCHES, "--initial", "nothing.pt"], "nothing.pt"),
        (["report", *BATCHES, "--study", "nothing.json"], "nothing.json: No such file"),
        (["report", *BATCHES, "--study", "studied.py"], "studied.py: this is not JSON"),
        (["report", *BATCHES, "--study", "worth.json", "--ablate"], "so --ablate can change nothing"),
        (["report", *BATCHES, "--study", "worth.json", "-o", "worth.json"], "worth.json"),
    ],
)
def test_a_wrong_use_is_one_line_and_code_2(
    home: Path, wrong: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(wrong) == 2
    err = capsys.readouterr().err
    assert advice in err
    assert len(err.splitlines()) == 1


def test_a_report_takes_a_study_and_nothing_else(home: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).eval()
    data = [torch.randn(20, 6)]
    recording, study = bnprobe.record(model, data), bnprobe.ablate(model, data, vectors="bias")
    report = bnprobe.report(recording, study=study)
    assert report.study is study
    assert study.answer in report.to_text(200)
    with pytest.raises(bnprobe.BnprobeError, match=r"study must be what bnprobe\.ablate returns"):
        bnprobe.report(recording, study=study.table)  # type: ignore[arg-type]


def test_a_study_draws_itself() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)
    ).eval()
    for norm in (model[1], model[3]):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    study = bnprobe.ablate(model, [torch.randn(50, 6)])
    worth = study.plot()
    lines = {line.get_label(): line.get_ydata() for line in worth.lines}
    table = study.worth.set_index(["layer", "vector"])["worth"]
    assert lines["bias β"].tolist() == [table["1", "bias"], table["3", "bias"]]
    assert lines["weight γ"].tolist() == [table["1", "weight"], table["3", "weight"]]
    permuted = study.table.set_index(["layer", "vector", "replacement"])["after"]
    lines = {line.get_label(): line.get_ydata() for line in study.plot("weight").lines}
    expected = [permuted[layer, "weight", "permuted"] for layer in ("1", "3")]
    assert lines["channels permuted"].tolist() == expected


def test_images_are_shuffled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the first batch is of the first class: a study that is stopped would be about that one."""
    from bnprobe.experiments import ablate

    labels: list[int] = []
    monkeypatch.setattr(
        ablate,
        "ablate",
        lambda model, batches, **_: labels.extend(y for _, batch in batches for y in batch.tolist()) or 1 / 0,
    )
    main(["ablate", "studied:build", "--data", "images", "--size", "12", "--mean", "0,0,0", "--std", "1,1,1"])
    assert sorted(labels) == [0] * 4 + [1] * 4 != labels
