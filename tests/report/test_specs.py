"""What a picture is given: names that tell sites apart, and nothing drawn before it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from bnprobe.report.figures import drawing, specs
from bnprobe.report.figures.from_tables import by_depth, of, site_names
from bnprobe.report.figures.specs import Curves, Line
from report.pictured import svg_of


def layers(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"layer": names, "call": [names[:i].count(name) for i, name in enumerate(names)]})


def test_calls_of_one_layer_have_names_of_their_own():
    """Fails if two calls of a layer stand under a picture by one name, or a long name loses its end."""
    names = site_names(layers("a", "a", "encoder.layers.encoder_layer_11.self_attention.norm"))
    assert names[:2] == ["a", "a call 2"]
    assert names[2].endswith(".norm")
    assert "11" in names[2]
    assert len(names[2]) <= 28


def test_what_all_paths_begin_with_is_left_out():
    """Fails if a shared beginning takes the room of what tells layers apart, or a name is left empty."""
    far = "network.of.many.names.body"
    assert site_names(layers(f"{far}.0.norm", f"{far}.10.norm")) == ["0.norm", "10.norm"]
    assert site_names(layers(f"{far}.norm", f"{far}.norm")) == ["norm", "norm call 2"]
    assert site_names(layers("model.0.norm", "model.1.norm")) == ["model.0.norm", "model.1.norm"], (
        "short enough"
    )
    assert site_names(layers("a", "a.b")) == ["a", "a.b"]


def test_a_column_is_numbers():
    """Fails if counts stay whole numbers, which have no NaN."""
    assert of(pd.DataFrame({"a": [1, 2]}), "a").dtype == np.float64


def test_nothing_is_drawn_before_it_is_asked_for():
    """Fails if telling a chapter loads seaborn: the text of a report needs no pictures."""
    code = (
        "import sys, numpy, pandas\n"
        "from bnprobe.report.figures.from_tables import by_depth\n"
        "from bnprobe.report.figures.specs import Curves, Line\n"
        "import bnprobe.report.chapters\n"
        "frame = pandas.DataFrame({'layer': ['a'], 'call': [0]})\n"
        "by_depth(frame, (Curves('t', (Line(numpy.ones(1)),)),))\n"
        "assert not {'seaborn', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_picture_of_one_site_can_be_drawn():
    """Fails if a network with one norm costs the page its picture."""
    assert "<svg" in svg_of(by_depth(layers("a"), (Curves("t", (Line(np.ones(1), "x"),)),)))


def test_specs_are_equal_by_what_they_hold():
    """Fails if equal pictures differ by a NaN, or a changed value, place or kind is not noticed."""
    one, nan = np.array([1.0, 2.0]), np.array([np.nan, 2.0])
    assert Line(one) == Line(one.copy())
    assert Line(nan) == Line(nan.copy())
    assert Line(one) != Line(nan)
    assert Line(one) != Line(np.array([[1.0, 2.0]]))
    assert Line(one, "a") != Line(one, "b")
    assert Curves("t", (Line(one), Line(nan))) == Curves("t", (Line(one), Line(nan)))
    assert Curves("t", (Line(one),)) != Curves("t", (Line(one), Line(one)))
    assert by_depth(layers("a", "b"), (Curves("t", (Line(one),)),)) != Curves("t", (Line(one),))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Line(one))


def test_specs_never_reach_for_the_drawing():
    """Fails if a spec imports what draws it, at the top or on first use."""
    for module in ("specs", "from_tables"):
        tree = ast.parse(Path(specs.__file__).with_name(f"{module}.py").read_text("utf-8"))
        names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        drawing = {"drawing", "charts", "maps", "plots", "changes", "paper", "svg", "axes"}
        assert not {str(name).rpartition(".")[2] for name in names} & drawing


def test_everything_that_can_be_drawn_has_a_kind():
    """Fails if a new kind of picture is never drawn."""
    assert set(get_args(specs.Picture)) == set(drawing._BY_KIND)
