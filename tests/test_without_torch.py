"""Walls, by taking the other side away: a page without torch, a shop window without rooms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.models import BY_NAME

import bnprobe

LEFT = ("torch", "torchvision")
TAKEN_AWAY = {
    "refused": f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LEFT}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
""",
    "None": f"""
import sys
sys.modules.update(dict.fromkeys({LEFT}))
""",
}
"""Two ways to have no torch: as if it were not installed, and as Python's own documentation forbids an import."""

HEAVY = ("torch", "torchvision", "pandas", "matplotlib", "seaborn", "scipy", "numpy", "jinja2", "safetensors")


def python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints; warnings are errors there too."""
    environment = {**os.environ, "PYTHONPATH": str(Path(bnprobe.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    case = BY_NAME["mixed"]
    model = case.model()
    with bnprobe.attach(model) as probe:
        for x in case.batches():
            model(x)
    return probe.recording.save(tmp_path_factory.mktemp("walls") / "run.bnp")


@pytest.mark.parametrize("way", TAKEN_AWAY)
def test_a_page_is_made_where_there_is_no_torch(saved, way):
    """Fails if anything from the saved recording to the page reaches for torch, even inside a function."""
    code = f"""
import bnprobe
recording = bnprobe.load("run.bnp")
report = bnprobe.report(recording.merge(recording))
page = report.to_html("page.html").read_text("utf-8")
assert len(report.channels) == 24 and len(report.layers) == 4
report.findings, report.to_text(80), report._repr_html_(), repr(report)
recording.save("again.bnp")
assert not [name for name in {LEFT} if sys.modules.get(name)]
print(page.count("<figure>") > 5, "could not be drawn" in page)
"""
    assert python(TAKEN_AWAY[way] + code, saved.parent) == "True False\n"


def test_the_command_line_rebuilds_a_page_where_there_is_no_torch(saved):
    """Fails if `bnprobe report run.bnp` imports the model side before it knows that it needs it."""
    code = 'from bnprobe.cli.main import main; assert main(["report", "run.bnp", "-o", "cli.html"]) == 0'
    assert "page: cli.html" in python(TAKEN_AWAY["refused"] + code, saved.parent)


def test_the_refusal_refuses(tmp_path):
    """Fails if the two tests above could pass with torch at hand."""
    for way in TAKEN_AWAY.values():
        with pytest.raises(AssertionError, match="ModuleNotFoundError"):
            python(way + "import torch", tmp_path)


def test_importing_bnprobe_imports_nothing_heavy(tmp_path):
    """Fails if `import bnprobe`, and with it every --help, waits for torch, pandas or matplotlib."""
    code = f"import sys, bnprobe; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code, tmp_path) == "[]\n"


def test_help_imports_nothing_heavy(tmp_path):
    """Fails if the parser needs a model or a table to describe itself."""
    code = f"""
import sys
from bnprobe.cli.main import main
try:
    main(["report", "--help"])
except SystemExit:
    print([name for name in {HEAVY} if name in sys.modules])
"""
    assert python(code, tmp_path).endswith("[]\n")


def test_tables_need_no_pictures(saved):
    """Fails if a user who wants numbers must have matplotlib, seaborn or jinja2 imported first."""
    code = """
import sys
import bnprobe
report = bnprobe.report("run.bnp")
report.channels, report.layers, report.findings, report.to_text(80)
print([name for name in ("matplotlib", "seaborn", "jinja2") if name in sys.modules])
"""
    assert python(code, saved.parent) == "[]\n"


def test_a_page_needs_no_statistics_of_scipy(saved):
    """Fails if a page waits for seaborn, or for scipy.stats, which takes half a second to import."""
    code = """
import sys
import bnprobe
bnprobe.report("run.bnp").to_html("page.html")
print([name for name in ("seaborn", "scipy.stats") if name in sys.modules])
"""
    assert python(code, saved.parent) == "[]\n"


def test_attaching_needs_no_report(tmp_path):
    """Fails if recording on a training machine imports what only the page needs."""
    code = """
import sys
import bnprobe, torch
with bnprobe.attach(torch.nn.BatchNorm2d(3)) as probe:
    pass
probe.recording
print([name for name in ("pandas", "matplotlib", "seaborn", "jinja2") if name in sys.modules])
"""
    assert python(code, tmp_path) == "[]\n"
