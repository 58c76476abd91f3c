"""The code of the README and the guide: every block runs as it stands, commands are understood, names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from support.paths import ROOT
from torch import Tensor, nn

import bnprobe
from bnprobe.cli.main import _parser

README = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/guide.md"))
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
PYTHON = [code for language, code in BLOCKS if language == "python"]
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S))
COMMANDS = sorted(
    {line for _, code in BLOCKS for line in code.splitlines() if line.startswith("bnprobe ")}
    | {code for code in INLINE if code.startswith("bnprobe ")}
)
OBJECTS = {
    "bnprobe": bnprobe,
    "probe": bnprobe.Probe,
    "recording": bnprobe.Recording,
    "report": bnprobe.Report,
    "comparison": bnprobe.Comparison,
}
NAMES = sorted({found for code in INLINE for found in re.findall(rf"\b({'|'.join(OBJECTS)})\.(\w+)\(", code)})


class Block(nn.Module):
    """Two norms, under the names of torchvision's residual networks."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, bias=False), nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


class Net(nn.Module):
    """What the README calls `model`: its figures show layer3.0.bn2."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer3 = nn.Sequential(Block(3, 5)), nn.Sequential(Block(5, 7))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(self.layer1(x)).mean((2, 3))


def given() -> dict[str, object]:
    """What the README takes for granted: a model, data and a training loop of the reader."""
    x, y = torch.randn(12, 3, 13, 11), torch.arange(12) % 3
    loader = list(zip(x.split(4), y.split(4), strict=True))
    noisy = [(images + torch.randn_like(images), labels) for images, labels in loader]
    return {
        "model": Net().eval(),
        "loader": loader,
        "batches": loader,
        "clean": loader,
        "noisy": noisy,
        "other": Net().eval(),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
        "train_one_epoch": lambda model: [model.train()(images) for images, _ in loader],
    }


class Encoder(nn.Module):
    """Called as a model of transformers is, for blocks about padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(9, 6), nn.LayerNorm(6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.norm(self.embed(input_ids)) * attention_mask[..., None]


def of_tokens() -> dict[str, object]:
    """What blocks about padding take for granted: a model of tokens and padded batches."""
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    batch = {"input_ids": torch.arange(8).reshape(2, 4), "attention_mask": mask}
    return {"model": Encoder().eval(), "loader": [batch, batch]}


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Fails if a reader who pastes the blocks one after the other, with a model and data, meets an error."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    names = given()
    assert len(PYTHON) >= 3
    for code in PYTHON:
        code = code.replace("n=64", "n=4, steps=2")  # images take minutes to make
        exec(compile(code, "README.md", "exec"), names | of_tokens() if "attention_mask" in code else names)
        plt.close("all")
    assert (tmp_path / "reports" / "mine.html").stat().st_size > 10_000


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_are_understood(command: str):
    """Fails if the README shows an option or a command that does not exist."""
    words = shlex.split(command.replace("[", "").replace("]", ""), comments=True)[1:]
    if len(words) == 1 and words[0].isalpha():
        words.append("--help")  # a command that the text only names
    if {"--help", "--version"} & set(words):
        with pytest.raises(SystemExit, match=r"^0$"):
            _parser().parse_args(words)
    else:
        _parser().parse_args(words)


@pytest.mark.parametrize(("owner", "name"), NAMES)
def test_calls_in_the_text_exist(owner: str, name: str):
    """Fails if a sentence of the README names a function or method that was renamed."""
    assert hasattr(OBJECTS[owner], name)
