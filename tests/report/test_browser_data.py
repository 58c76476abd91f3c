"""What the page carries for its moving part: packed columns, histograms, formulas, colours, and no markup."""

from __future__ import annotations

import base64
import json
import re
import zlib
from importlib import resources

import numpy as np
import pytest
from measures.sites import gradient, memory_of, recording, site, some_rows

import bnprobe
from bnprobe.measures import Column, glossary
from bnprobe.measures.columns import Paint
from bnprobe.recording import LayerRecord, Recording
from bnprobe.report.browser import data_of, program
from bnprobe.report.browser import measures as page_columns
from bnprobe.report.browser.contents import ROLES
from bnprobe.report.browser.densities import EDGES, STEPS, place_after, place_before, same_counts, steps
from bnprobe.report.browser.derived import derived_columns
from bnprobe.report.browser.measures import FEWEST, chosen_columns, menu, paints, travelling
from bnprobe.report.browser.packing import KEPT_BITS, pack_floats
from bnprobe.report.browser.scripts import PARTS
from bnprobe.report.colours import FAINT
from bnprobe.report.colours import ROLES as ROLE_COLOURS
from bnprobe.stats import Histogram

ROWS = some_rows(30)
MEMORY = memory_of(ROWS)


def unpacked(text: str) -> np.ndarray:
    """Numbers of a packed column, put together byte by byte."""
    planes = zlib.decompress(base64.b64decode(text))
    n = len(planes) // 3
    words = [(planes[i] << 24) | (planes[n + i] << 16) | (planes[2 * n + i] << 8) for i in range(n)]
    return np.array(words, dtype="<u4").view("<f4").astype(float)


def carried(recorded: Recording) -> tuple[dict, dict[str, str]]:
    report = bnprobe.report(recorded)
    data = data_of(recorded, report._tables, report.findings)
    return json.loads(data.manifest), dict(data.blobs)


# Packing


def test_numbers_come_back_but_for_the_last_digits(rng):
    """Fails if planes are swapped, the fraction is cut instead of rounded, or a sign is lost."""
    values = rng.normal(size=301) * 10.0 ** rng.integers(-30, 30, 301)
    back = unpacked(pack_floats(values))
    worst = np.abs(back / values - 1).max()
    assert worst <= 2.0 ** -(KEPT_BITS + 1) * 1.001
    assert worst > 2.0 ** -(KEPT_BITS + 2), "half of the room is never used: not rounded to nearest"


@pytest.mark.parametrize("value", [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -2.5, 3e38, 1e-40, 1e300, -1e300])
def test_numbers_at_the_edges(value):
    """Fails if NaN turns into a number, rounding carries into the sign, or what is too large wraps round."""
    back = unpacked(pack_floats(np.array([value, 1.0])))[0]
    expected = (
        np.float32(np.clip(value, -np.inf, np.inf)) if abs(value) < 3.3e38 or np.isnan(value) else value
    )
    if abs(value) > 3.5e38:
        expected = np.sign(value) * np.inf
    np.testing.assert_allclose(back, expected, rtol=3e-4, atol=1e-40)


def test_the_largest_float_does_not_become_a_nan():
    """Fails if rounding up runs from the largest number past infinity."""
    assert not np.isnan(unpacked(pack_floats(np.array([np.finfo(np.float32).max]))))[0]


# Histograms


def test_heights_are_the_densities_of_the_histogram():
    """Fails if bins are shifted or turned, the root is forgotten, or bins of different width are taken as equal."""
    record = site(ROWS, gamma=1, beta=0, **MEMORY)
    histogram = record.pre_histogram
    found = steps(histogram).astype(float) ** 2
    middles = (np.array(EDGES[1:]) + np.array(EDGES[:-1])) / 2
    widths = np.diff(EDGES)
    for c in range(record.n_channels):
        page = found[c] / (found[c] * widths).sum()
        true = (
            histogram.density(c, histogram.centre[0, c] + histogram.scale[0, c] * middles)
            * histogram.scale[0, c]
        )
        np.testing.assert_allclose(page, true, atol=0.06 * true.max())
    assert steps(histogram).max(axis=1).tolist() == [STEPS] * record.n_channels


def test_counts_on_another_scale_are_added():
    """Fails if a merged recording shows only its first part."""
    counts = np.zeros((2, 1, 96))
    counts[0, 0, 48] = 1  # 0 to 1/8 on the first scale
    counts[1, 0, 48] = 3  # 0 to 1/8 of the second, which is 5 to 6 on the first
    both = Histogram(np.array([[0.0], [5.0]]), np.array([[1.0], [8.0]]), counts)
    found = steps(both)[0].astype(float) ** 2 * np.diff(EDGES)
    inside = [k for k in range(96) if found[k] and EDGES[k] >= 4.9]
    assert found[inside].sum() / found.sum() == pytest.approx(0.75, abs=0.05)


def test_a_channel_without_values_has_no_heights():
    """Fails if nothing divided by nothing becomes a curve."""
    record = site(ROWS * np.nan, gamma=1, beta=0, **MEMORY)
    assert steps(record.pre_histogram).max() == 0


def test_what_the_norm_only_moved_is_written_once():
    """Fails if a negative γ is not turned round, or other counts are taken for the same."""
    counts = np.arange(2 * 96, dtype=float).reshape(1, 2, 96)
    pre = Histogram(np.zeros((1, 2)), np.ones((1, 2)), counts)
    turned = Histogram(np.zeros((1, 2)), np.ones((1, 2)), np.stack([counts[0, 0], counts[0, 1, ::-1]])[None])
    assert same_counts(pre, turned, np.array([1.0, -1.0]))
    assert not same_counts(pre, turned, np.array([1.0, 1.0]))
    assert same_counts(pre, pre, None)


def test_bins_set_by_the_memory_are_not_written():
    """Fails if a place is called the memory's, or the aim's, that is another one."""
    sigma = np.sqrt(MEMORY["running_var"] + 1e-5)
    record = site(ROWS, gamma=[2, -3, 0.5], beta=[0, 1, 2], **MEMORY)

    def at(centre, scale) -> Histogram:
        return Histogram(np.array([centre], float), np.array([scale], float), np.ones((1, 3, 96)))

    def moved(**histograms: Histogram) -> LayerRecord:
        from dataclasses import replace

        return replace(record, **histograms)

    assert place_before(moved(pre_histogram=at(MEMORY["running_mean"], sigma))) == "running"
    assert place_before(moved(pre_histogram=at(MEMORY["running_mean"] + sigma, sigma))) == "own"
    assert place_before(moved(pre_histogram=at(MEMORY["running_mean"], 1.01 * sigma))) == "own"
    assert place_after(moved(post_histogram=at([0, 1, 2], [2, 3, 0.5]))) == "target"
    assert place_after(moved(post_histogram=at([0, 1, 2], [2, -3, 0.5]))) == "own"


# Columns


def test_what_follows_is_not_carried_and_what_does_not_is():
    """Fails if a formula is trusted where the norm did something else, or never."""
    record = site(ROWS, gamma=[2, -3, 0.5], beta=[0, 1, 2], **MEMORY)
    manifest, blobs = carried(recording(record))
    assert set(manifest["derived"]) == {"pre_mean", "pre_var", "post_mean", "post_var", "kl"}
    assert not {f"column-{name}" for name in manifest["derived"]} & set(blobs)
    batch = site(ROWS, gamma=[2, -3, 0.5], beta=[0, 1, 2], running_mean=0.0, running_var=1.0)
    wrong = bnprobe.report(recording(batch)).channels.assign(post_mean=lambda c: c["post_mean"] + 0.1)
    assert "post_mean" not in derived_columns(wrong, np.full(3, 1e-5))
    assert derived_columns(wrong.drop(columns="gamma"), np.full(3, 1e-5)) == []


def test_every_column_holds_the_reports_numbers():
    """Fails if a column is packed under another one's name."""
    record = site(ROWS, gamma=[2, -3, 0.5], beta=[0, 1, 2], gradient=gradient(ROWS), **MEMORY)
    recorded = recording(record)
    channels = bnprobe.report(recorded).channels
    _, blobs = carried(recorded)
    columns = {
        name.removeprefix("column-"): text for name, text in blobs.items() if name.startswith("column-")
    }
    columns = {name: text for name, text in columns.items() if name in channels}
    assert {"gamma", "beta", "shift", "fires", "role", "grad_gamma"} <= set(columns)
    for name, text in columns.items():
        if name == "role":
            assert [ROLES[int(code)] for code in unpacked(text)] == list(channels["role"])
        else:
            rough = name.endswith(("_se", "_q", "_predicted"))  # nobody reads a third digit
            np.testing.assert_allclose(
                unpacked(text), channels[name].to_numpy(float), rtol=2**-8 if rough else 3e-4, err_msg=name
            )


def test_a_wide_network_carries_what_it_can_least_do_without():
    """Fails if room runs out before the columns every panel needs, or what is left out is not said."""
    known = [column.name for column in travelling()]
    shown, left = chosen_columns(known, ["kl"], 10**6, 10**5)
    assert len(shown) == FEWEST + 1
    assert set(shown) | set(left) == set(known)
    assert {"gamma", "beta", "running_mean", "running_var", "shift", "scale_ratio", "fires", "role"} <= set(
        shown
    )
    assert chosen_columns(known, [], 10, 10**5) == (known, [])


def test_a_column_travels_and_is_painted_where_it_is_declared(monkeypatch):
    """Fails if the page follows a list of its own, and not the declarations of the measures."""
    paint = Paint("learned", "energy of the outputs", "viridis")
    new = Column("energy", "Mean of y².", rank=1, paint=paint), Column("idle", "Shown in tables only.")
    monkeypatch.setattr(page_columns, "glossary", lambda: [*glossary(), *new])
    assert "energy" in chosen_columns(["energy", "idle", "pre_max"], [], 10**6, 1)[0]
    assert "idle" not in {column.name for column in travelling()}
    assert menu(["energy", "gamma"])["learned"] == ["gamma", "energy"]
    assert paints()["energy"] is paint


def test_what_is_painted_travels_and_what_travels_is_of_channels():
    """Fails if a column is painted without a rank, so that the map never has it, or one of layers is ranked."""
    for column in glossary():
        assert column.paint is None or column.rank is not None, column.name
        assert column.rank is None or column.table != "layers", column.name
    assert sum(column.rank == 1 for column in glossary()) <= FEWEST, "those of rank 1 always travel"


def test_what_is_held_against_training_opens_its_group():
    """Fails if the menu begins with what a norm stores, and the reader must look for what differs."""
    there = menu(paints())
    assert sorted(name for group in there.values() for name in group) == sorted(paints())
    assert there["match with training"][:3] == ["shift", "scale_ratio", "kl"]


def test_findings_lead_to_their_layers_and_channels():
    """Fails if a finding is shown at another layer, or another call of it."""
    sites = [
        site(ROWS, "a", **MEMORY),
        site(ROWS, "b", **MEMORY),
        site(ROWS, "b", call=1, gamma=[1e-4, 1, 1], **MEMORY),
    ]
    recorded = recording(*sites)
    manifest, _ = carried(recorded)
    places = [tuple(place) for f in manifest["findings"] if f["rule"] for place in f["places"]]
    assert (2, [0]) in [(at, channels) for at, channels in places]


@pytest.mark.parametrize(
    "name", ["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028", "a&b", "half \ud800"]
)
def test_no_name_ends_the_data_it_stands_in(name):
    """Fails if a name closes the script element, or the JSON cannot be read back."""
    recorded = recording(site(ROWS, name, **MEMORY), model=name)
    report = bnprobe.report(recorded)
    text = data_of(recorded, report._tables, report.findings).manifest
    assert not set(text) & set("<>&")
    assert text.isascii()
    assert json.loads(text)["layers"][0]["name"] == name.replace("\ud800", r"\ud800")


# The scripts


def script(name: str) -> str:
    return resources.files("bnprobe.report.browser").joinpath("js", name).read_text("utf-8")


def test_every_script_is_on_the_page():
    """Fails if a file is written and never put in, or d3 is not the one that was released."""
    import hashlib

    folder = resources.files("bnprobe.report.browser").joinpath("js")
    there = {path.name for path in folder.iterdir() if path.name.endswith(".js")}
    assert there == {f"{part}.js" for part in PARTS} | {"d3.min.js"}
    assert hashlib.sha256(script("d3.min.js").encode()).hexdigest() == D3, "d3 7.9.2 as released"
    assert "</script" not in program("bnprobe").lower()
    assert "<!--" not in program("bnprobe")


D3 = "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1"


def test_scripts_ask_for_nothing_and_keep_nothing():
    """Fails if a script reaches for the network, the reader's storage, or builds code or markup from text."""
    ours = "".join(script(f"{part}.js") for part in PARTS)
    for word in (
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "import(",
        "localStorage",
        "cookie",
        "innerHTML",
        "eval(",
        "document.write",
        "insertAdjacentHTML",
    ):
        assert word not in ours, word


def test_the_pages_colours_are_the_figures_colours():
    """Fails if a quantity is painted in other colours in the browser than on paper."""
    import matplotlib as mpl
    import seaborn  # noqa: F401

    text = script("colours.js")
    for name in ("vlag", "icefire", "mako", "viridis", "rocket"):
        stops = re.search(rf'{name}: "([0-9a-f]+)"', text)[1]
        found = np.array(
            [[int(stops[i + k : i + k + 2], 16) for k in (0, 2, 4)] for i in range(0, len(stops), 6)]
        )
        true = np.array([mpl.colormaps[name](x)[:3] for x in np.linspace(0, 1, len(found))]) * 255
        np.testing.assert_allclose(found, true, atol=0.51)
    stops = re.search(r'roles: "([0-9a-f]+)"', text)[1]
    assert [f"#{stops[i : i + 6]}" for i in range(0, len(stops), 6)] == [ROLE_COLOURS[role] for role in ROLES]
    assert float(re.search(r"const FAINT = ([\d.]+);", text)[1]) == FAINT
