"""A recording as a table of Arrow's: the numbers of the record, by channel, with meanings and units."""

from __future__ import annotations

import json

import numpy as np
import pytest
from measures.sites import recording, running_stats_of, site, some_rows

from bnprobe.errors import BnprobeError
from bnprobe.files import arrow

ROWS = some_rows()


def whole():
    """A norm that stores, one that does not, and one that saw nothing in its second channel."""
    gaps = some_rows(seed=3)
    gaps[:, 1] = np.nan
    stored = running_stats_of(ROWS)
    poisoned = {"running_mean": [1, np.nan, 2], "running_var": [1, 1, np.inf]}
    return recording(
        site(ROWS, "a", gamma=[1, -2, 3], beta=0.5, **stored),
        site(ROWS * 2, "a", call=1, gamma=[1, -2, 3], beta=0.5, **stored),
        site(some_rows(n_channels=2), "b", "layer_norm"),
        site(gaps, "c", gamma=1, beta=0, **poisoned),
    )


def test_rows_are_channels_and_numbers_those_of_the_values():
    """Fails if channels of two sites are mixed, or a sum stands under another name."""
    pytest.importorskip("pyarrow", reason="an extra")
    table = whole().to_arrow().to_pandas()
    assert table["layer"].tolist() == ["a"] * 6 + ["b"] * 2 + ["c"] * 3
    assert table["call"].tolist() == [0] * 3 + [1] * 3 + [0] * 5
    assert table["channel"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2]
    assert table["kind"].tolist()[5:7] == ["batch_norm", "layer_norm"]
    mine, values = table[:3], ROWS.swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_allclose(mine["pre_n"], values.shape[1])
    np.testing.assert_allclose(mine["pre_mean"], values.mean(1))
    apart = values - values.mean(1, keepdims=True)
    for power in (2, 3, 4):
        np.testing.assert_allclose(mine[f"pre_m{power}"], (apart**power).sum(1))
    np.testing.assert_array_equal(mine["pre_low"], values.min(1))
    np.testing.assert_array_equal(mine["pre_high"], values.max(1))
    np.testing.assert_array_equal(mine["gamma"], [1, -2, 3])
    outputs = (ROWS - ROWS.mean((0, 2))[:, None]) / np.sqrt(ROWS.var((0, 2)) + 1e-5)[:, None]
    outputs = outputs * np.array([1, -2, 3])[:, None] + 0.5
    np.testing.assert_allclose(mine["post_mean"], outputs.mean((0, 2)))
    np.testing.assert_array_equal(mine["n_positive"], (outputs > 0).sum((0, 2)))
    means = ROWS.mean(2)
    np.testing.assert_array_equal(mine["pre_samples"], len(ROWS))
    np.testing.assert_allclose(mine["pre_samples_m2"], ((means - means.mean(0)) ** 2).sum(0))


def test_what_is_missing_is_null_and_nan_of_the_model_is_nan():
    """Fails if a norm without weights has some, or a broken running mean is taken for one that is not there."""
    pytest.importorskip("pyarrow", reason="an extra")
    table = whole().to_arrow()
    nulls = {name: table[name].null_count for name in table.column_names}
    assert nulls["gamma"] == nulls["beta"] == nulls["running_mean"] == nulls["running_var"] == 2
    assert np.isnan(table["running_mean"].to_pylist()[9])
    assert nulls["pre_mean"] == nulls["pre_low"] == 1
    assert table["pre_mean"].to_pylist()[9] is None
    assert table["pre_n"].to_pylist()[9] == 0
    assert table["pre_nonfinite"].to_pylist()[9] == ROWS.shape[0] * ROWS.shape[2]


def test_fields_say_what_they_mean_also_in_a_file(tmp_path):
    """Fails if a column has no meaning or no unit, or a Parquet file of the table loses them."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="an extra")
    made = whole()
    parquet.write_table(made.to_arrow(), tmp_path / "table.parquet")
    schema = parquet.read_schema(tmp_path / "table.parquet")
    assert schema.metadata[b"schema"] == b"bnprobe/tables/recording"
    assert json.loads(schema.metadata[b"about"])["n_images"] == made.about.n_images
    for field in schema:
        said = {key.decode(): text.decode() for key, text in field.metadata.items()}
        assert said["description"].endswith("."), field.name
        assert ("unit" in said) == (field.name not in ("layer", "call", "kind", "channel")), field.name
    assert schema.field("pre_m2").metadata[b"unit"] == "input²".encode()


def test_without_layers_it_has_the_same_columns():
    """Fails if a machine that saw nothing breaks the tables of the others."""
    pytest.importorskip("pyarrow", reason="an extra")
    nothing = recording().to_arrow()
    assert nothing.schema == whole().to_arrow().schema
    assert nothing.num_rows == 0


def test_without_pyarrow_it_says_what_to_install(monkeypatch):
    """Fails if the need of an extra is a traceback."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(arrow, "import_module", missing)
    with pytest.raises(
        BnprobeError, match=r"Arrow tables need pyarrow.*Run pip install pyarrow, or use recording.save"
    ):
        whole().to_arrow()
