"""Settings: what is left out, what is set otherwise, and what is refused with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
from measures.sites import recording, running_stats_of, site, some_rows

import bnprobe
from bnprobe.errors import BadSettings
from bnprobe.rules.settings import Settings, nearest, settings

ROWS = some_rows()
FLAT = recording(
    *(site(ROWS, layer, gamma=[1e-4, 1, 1], beta=0, **running_stats_of(ROWS)) for layer in ("a.bn", "b.bn"))
)


def written(folder: Path, text: str, name: str = "own.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_a_rule_is_left_out_everywhere_or_in_some_layers(tmp_path):
    """Fails if a pattern leaves out more than its layers, or a finding is dropped without a word."""
    for entry, left in (
        ("channels-constant", []),
        ("channels-constant:a.*", ["b.bn"]),
        ("few-images", ["a.bn", "b.bn"]),
    ):
        report = bnprobe.report(FLAT, config=written(tmp_path, f'ignore = ["{entry}"]'))
        constant = report.findings[report.findings["rule"] == "channels-constant"]
        assert constant["layer"].tolist() == left
        text = report.to_text(100)
        assert ("ignored by" in text) == (len(left) < 2 or entry == "few-images")
    assert "few-images" in bnprobe.report(FLAT).to_text(100)


def test_thresholds_are_set(tmp_path):
    """Fails if a threshold does not reach its rule."""
    path = written(tmp_path, "[thresholds]\nconstant_gamma = 1e-6\nfew_images = 2\n")
    assert bnprobe.report(FLAT, config=path).findings.empty


def test_a_pyproject_is_found_upwards_and_only_with_our_table(tmp_path):
    """Fails if the nearest file without our table hides the one above that has it."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert nearest(tmp_path) != tmp_path / "pyproject.toml"
    written(tmp_path, '[tool.bnprobe]\nignore = ["few-images"]\n', "pyproject.toml")
    written(inner, "[project]\nname = 'x'\n", "pyproject.toml")
    assert nearest(inner) == tmp_path / "pyproject.toml"
    assert settings(tmp_path / "pyproject.toml").ignore == ("few-images",)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('ignore = ["chanels-dead"]', 'no rule is called "chanels-dead". Did you mean channels-dead?'),
        ('ignore = ["channels_dead:layer1"]', "Did you mean channels-dead"),
        ("ignores = []", 'no setting is called "ignores". Did you mean ignore?'),
        ("[thresholds]\nshfit = 1", 'no threshold is called "shfit". Did you mean shift?'),
        ("zzz = 1", "Known names: ignore, thresholds"),
        ("[thresholds]\nshift = '1'", "is not a number of at least 0"),
        ("[thresholds]\nshift = true", "is not a number of at least 0"),
        ("[thresholds]\nshift = nan", "is not a number of at least 0"),
        ("ignore = 'channels-dead'", "ignore is a list of names"),
        ("thresholds = 3", "thresholds is a table of numbers"),
        ("x = ", "is not TOML"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_nearest_name(text, match, tmp_path):
    """Fails if a typo silently leaves a rule on, or a threshold as it was."""
    with pytest.raises(BadSettings, match=match) as error:
        settings(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadSettings, match=r"No such file.*Check the path"):
        settings(tmp_path / "gone.toml")


def test_without_a_file_nothing_changes():
    """Fails if Python code is judged by whatever pyproject.toml lies in the working directory."""
    assert settings(None) == Settings()
    assert bnprobe.report(FLAT).settings == Settings()


def test_settings_are_a_file():
    """Fails if a dictionary of settings ends in a TypeError that does not say what config takes."""
    with pytest.raises(BadSettings, match="config takes the path of a TOML file, got dict"):
        settings({"ignore": []})
