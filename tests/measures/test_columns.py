"""How the page shows a column: which ones travel first, and colors that mean the same in every network."""

from __future__ import annotations

from bnprobe.measures import glossary

FIRST = {
    1: "gamma beta running_mean running_var pre_mean pre_var fires role shift scale_ratio",
    2: "shift_se shift_q",
    3: "pre_skew pre_kurtosis post_mean post_var kl grad_gamma grad_beta dy_var dx_var",
    4: "gamma_snr",
    5: "fires_predicted scale_se share_class share_within bits_lost",
    6: "n_nonfinite energy_removed importance",
    7: "beta_snr",
    8: "pre_min pre_max post_min post_max share_image filter_norm",
    9: "gauss_w1 implied_mean",
}
"""What a page with little room keeps, before what: first what was learned and what was met, last what others imply."""

OF_ANY_SIZE = "running_mean pre_mean grad_gamma grad_beta dy_var dx_var importance"
"""Measured in units of the network's own, so that no limits suit all."""

LIMITS = {
    "gamma beta post_mean": (-2, 2),
    "shift": (-1, 1),
    "scale_ratio": (0.5, 2),
    "running_var pre_var": (1e-4, 1e2),
    "post_var": (1e-3, 10),
    "pre_skew": (-3, 3),
    "pre_kurtosis": (-2, 10),
    "gauss_w1": (0, 0.5),
    "kl": (1e-4, 10),
    "bits_lost": (0, 8),
    "filter_norm gamma_snr beta_snr": (0.01, 10),
}


def test_which_columns_a_page_keeps_where_there_is_little_room() -> None:
    """Fails if what is measured takes the place of what was learned, or of its own error."""
    ranked: dict[int, list[str]] = {}
    for column in glossary():
        if column.rank is not None:
            ranked.setdefault(column.rank, []).append(column.name)
    assert {rank: " ".join(names) for rank, names in sorted(ranked.items())} == FIRST


def test_colors_mean_the_same_in_every_network() -> None:
    """Fails if the scale of a measure has other ends, so that a healthy and a broken network look alike."""
    painted = {column.name: column.paint for column in glossary() if column.paint is not None}
    expected = {name: ends for names, ends in LIMITS.items() for name in names.split()}
    assert {name: paint.limits for name, paint in painted.items() if paint.limits} == expected
    free = [
        name for name, paint in painted.items() if paint.limits is None and paint.scale in ("even", "log")
    ]
    assert free == OF_ANY_SIZE.split()


def test_diverging_colors_are_even_about_what_is_neither() -> None:
    """Fails if nothing has a color of its own, or more and less are not equally strong."""
    for column in glossary():
        paint = column.paint
        if paint is None:
            continue
        assert (paint.centre is not None) == (paint.colours == "diverging"), column.name
        if paint.centre is not None:
            assert paint.centre == (1 if paint.scale == "log" else 0), column.name
            if paint.limits and paint.scale == "log":
                assert paint.limits[0] * paint.limits[1] == paint.centre, column.name
            elif paint.limits:
                assert sum(paint.limits) == paint.centre, column.name
        if paint.scale == "log" and paint.limits:
            assert paint.limits[0] > 0, column.name


def test_only_distances_from_the_running_statistics_are_silenced_with_them() -> None:
    """Fails if a distance from statistics that were never updated is drawn, or what needs none is left out."""
    against = [column.name for column in glossary() if column.paint and column.paint.against_running]
    assert against == ["shift", "scale_ratio", "kl"]
