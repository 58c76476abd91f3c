"""Names by role: short, different for different norms, and the path where nothing better is known."""

from __future__ import annotations

import pandas as pd

from bnprobe.measures.norm_roles import is_transformer, names_by_role


def named(**roles: str) -> list[str]:
    rows = [(path.replace("__", "."), role) for path, role in roles.items()]
    return names_by_role(pd.DataFrame(rows, columns=["layer", "norm_role"]))


def test_a_norm_is_called_by_its_block_and_role():
    """Fails if the last number of a path is taken for the block, or the end has one."""
    assert named(
        model__layers__12__layer__0__norm="attention",
        model__layers__12__layer__1__norm="MLP",
        model__norm="final",
    ) == ["12.attn", "12.mlp", "final"]


def test_sides_are_named_where_there_are_two():
    """Fails if norms of encoder and decoder have one name."""
    assert named(
        encoder__b__0__x="attention", decoder__b__0__x="attention", decoder__b__0__y="cross-attention"
    ) == [
        "enc.0.attn",
        "dec.0.attn",
        "dec.0.cross",
    ]


def test_towers_have_names_of_their_own():
    """Fails if norms of two streams have one name, or a word that both share is taken for a tower's."""
    assert named(
        m__vision_tower__encoder__layers__0__n1="attention",
        m__language_model__layers__0__n1="attention",
        m__language_model__layers__0__n2="MLP",
        m__vision_tower__post="final",
        m__language_model__norm="final",
        m__joint="embedding",
    ) == [
        "vision.0.attn",
        "language.0.attn",
        "language.0.mlp",
        "vision.final",
        "language.final",
        "embed",
    ]
    assert named(blocks__0__n="attention", mtp__blocks__0__n="attention") == ["0.attn", "mtp.0.attn"]


def test_the_number_of_a_model_is_no_block():
    """Fails if the 2 of dinov2 is taken for a block, or the number of a block that stands behind a word is not."""
    assert named(dinov2__layers__3__n="attention", dinov2__end__n="final") == ["3.attn", "final"]
    assert named(encoder__encoder_layer_3__ln_1="attention", stage2__n="MLP") == ["3.attn", "2.mlp"]


def test_equal_names_get_more_numbers_or_the_path():
    """Fails if two norms have one name."""
    assert named(f__1__0__n="attention", f__1__1__n="attention", f__2__n="attention") == [
        "1.0.attn",
        "1.1.attn",
        "2.attn",
    ]
    assert named(f__0__a="attention output", f__0__b="attention output", f__1__a="attention output") == [
        "f.0.a",
        "f.0.b",
        "1.attn out",
    ]


def test_other_networks_keep_their_paths():
    """Fails if a network without attention is renamed."""
    layers = pd.DataFrame({"layer": ["a.0", "b"], "norm_role": ["MLP", ""]})
    assert not is_transformer(layers)
    assert names_by_role(layers) == ["a.0", "b"]
