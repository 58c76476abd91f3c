"""The same samples in the same order on both sides: what they have in common cancels, and chance is called nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from measures.drawn import images, record_of
from measures.sites import recording
from scipy.stats import kstest
from torch import nn

import bnprobe
from bnprobe.comparison import Differences, differences, pairs
from bnprobe.comparison.pairing import are_paired
from bnprobe.comparison.significance import mean_test, scale_test
from bnprobe.comparison.spread import spread, unit
from bnprobe.recording import LayerRecord

C, N, BATCH = 24, 400, 20
MEMORY = {"running_mean": np.zeros(C), "running_var": np.ones(C)}


def record(rows: np.ndarray, batch: int = BATCH, gamma: float = 1.0) -> LayerRecord:
    made = record_of(rows, **MEMORY, batch=batch)
    made = replace(made, gamma=np.full(C, gamma))
    return replace(made, post=made.pre.affine(gamma / np.sqrt(1 + made.eps), 0.0))


def compared(a: np.ndarray, b: np.ndarray, **options: int) -> Differences:
    return differences(pairs(recording(record(a, **options)), recording(record(b, **options))))


@pytest.mark.parametrize("change", [lambda x: 0.975 * x, lambda x: x + 0.05])
def test_a_small_change_of_the_same_images_is_found(rng, change: Callable[[np.ndarray], np.ndarray]):
    """Fails if the images' own differences hide what was done to all of them: two samples of images find nothing."""
    x = images(rng, N)
    found, by_samples = compared(x, change(x)), compared(x, change(x), batch=N // 5)
    assert found.channels["pre_changed"].mean() > 0.9
    assert found.channels["post_changed"].mean() > 0.9
    assert found.layers["error_from"][0] == "pairs"
    assert found.layers["pre_noise"][0] < by_samples.layers["pre_noise"][0] / 10
    assert not by_samples.channels["pre_changed"].any()
    assert by_samples.layers["error_from"][0] == "samples"


def test_p_values_of_a_change_that_is_chance_are_uniform(rng):
    """Fails if an error of pairs is too small or too large: each image is changed by something of its own, of mean 0.

    KS critical value at 1 in 1,000 for 40 * 24 values: 1.95 / sqrt(960) = 0.063; of scales, which the common contrast
    ties together, in 40 clusters.
    """
    means, scales = [], []
    for _ in range(40):
        x = images(rng, N, common=0.0)
        a, b = (x + 0.1 * rng.normal(size=(N, C, 1)) for _ in "ab")
        sides = [spread(record(rows), "pre") for rows in (a, b)]
        assert are_paired(pairs(*(recording(record(rows)) for rows in (a, b))).common)
        means.append(mean_test(*sides, unit(*sides, "pre"), paired=True)[1])
        scales.append(scale_test(*sides, paired=True)[1])
    for p, limit in ((np.concatenate(means), 0.063), (np.concatenate(scales), 0.25)):
        assert kstest(p, "uniform").statistic < limit
        assert np.mean(p < 0.05) < 0.075
        assert np.mean(p < 0.05) > 0.025


def test_a_pair_that_is_none_keeps_its_error(rng):
    """Fails if errors by pairs are wrong where the sides have nothing in common: then they are as large, and p uniform."""
    p, ratio = [], []
    for _ in range(40):
        sides = [spread(record(images(rng, N, common=0.0)), "pre") for _ in "ab"]
        common = unit(*sides, "pre")
        se, found = mean_test(*sides, common, paired=True)
        p.append(found)
        ratio.append((se / mean_test(*sides, common)[0]).mean())
    assert kstest(np.concatenate(p), "uniform").statistic < 0.063
    assert np.mean(ratio) == pytest.approx(1, abs=0.1)


def test_the_sign_of_gamma_takes_part(rng):
    """Fails if outputs are paired without the sign of γ: turned around by it, they do not cancel."""
    x = images(rng, N)
    a, b = record(x, gamma=1.0), record(x, gamma=-1.0)
    found = differences(pairs(recording(a), recording(b)))
    straight = differences(pairs(recording(a), recording(a)))
    apart = np.hypot(*[spread(side, "post").mean_error for side in (a, b)]) / unit(
        spread(a, "post"), spread(b, "post"), "post"
    )
    assert (found.channels["post_shift_se"] > apart).all()
    assert (straight.channels["post_shift_se"] < 1e-6 * apart).all()


def test_rounding_is_no_change(rng):
    """Fails if a difference in the last digits, the same for every image, is called significant."""
    x = images(rng, N)
    found = compared(x, x + 3e-6)
    assert not found.channels["pre_changed"].any()
    assert found.channels["pre_shift_q"].notna().all()


def test_what_is_not_paired(rng):
    """Fails if other images, the same ones in another order, or other batches are taken for pairs."""
    x = images(rng, N)

    def paired(a: LayerRecord, b: LayerRecord) -> bool:
        return are_paired(pairs(recording(a), recording(b)).common)

    assert paired(record(x), record(x + 0.1))
    assert not paired(record(x), record(images(rng, N)))
    assert not paired(record(x), record(x[::-1]))
    assert not paired(record(x), record(x, batch=10))
    assert not paired(record(x, batch=40 + 5), record(x, batch=40 + 5))  # nine batches
    assert not paired(record(x), replace(record(x), pre_folds=None))
    assert not paired(record(x), record(np.ones_like(x)))


def test_the_page_says_that_samples_are_the_same():
    """Fails if the answer calls samples different that came in the same order, with another contrast."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    batches = [torch.randn(6, 3, 1, 1) + torch.randn(6, 3, 9, 9) for _ in range(25)]
    a, b = (bnprobe.record(model, [k * x for x in batches]) for k in (1.0, 0.97))
    said = " ".join(bnprobe.compare(a, b).answer)
    assert (
        "of the same images in the same order, so their preparation or the weights feeding it differ" in said
    )
    other = bnprobe.record(model, [x.flip(0) for x in batches[::-1]])
    assert "in the same order" not in " ".join(bnprobe.compare(a, other).answer)


def test_errors_are_those_of_pairs_only_where_pairs_are_known(rng):
    """Fails if equal folds are enough without the same samples, or the same samples are without folds."""
    x = images(rng, N)
    a, b = (spread(record(rows), "pre") for rows in (x, 0.9 * x + 0.05))
    bare = replace(b, folds=None)
    common = unit(a, b, "pre")
    apart = np.hypot(a.mean_error, b.mean_error) / common, np.hypot(a.log_error, b.log_error)
    for one, paired, own in ((b, False, True), (bare, True, True), (b, True, False)):
        found = mean_test(a, one, common, paired)[0], scale_test(a, one, paired)[0]
        for se, by_samples in zip(found, apart, strict=True):
            assert np.allclose(se, by_samples, rtol=1e-9) is own


def test_what_errors_count_is_said_as_it_is():
    """Fails if a page says of pairs that both sides are taken as independent, or shows errors without what they assume."""
    from bnprobe.comparison.page.page import _errors

    def said(*kinds: str) -> str:
        return _errors(pd.DataFrame({"error_from": kinds}))

    assert said("pairs", "pairs").startswith("count batch by batch how both sides differ")
    assert "both sides as independent" not in said("pairs")
    assert "take them and both sides as independent" in said("samples")
    assert said("samples", "folds").startswith("count samples, and where whole batches differ")
    assert "; elsewhere they count samples, not pixels" in said("samples", "folds")


def test_large_batches_are_no_pairs_by_their_size(rng):
    """Fails if sums of batches are held against each other, which are alike wherever batches have other sizes."""
    x = images(rng, N)
    sides = []
    for rows in (x, images(rng, N)):
        folds = record(rows, batch=BATCH).pre_folds
        assert folds is not None
        times = np.where(np.arange(len(folds.n)) % 2, 50, 1)[:, None]
        folds = replace(folds, n=folds.n * times, a=(folds.a + 3 * folds.n) * times, b=folds.b * times)
        sides.append(replace(record(rows), pre_folds=folds))
    paired = [are_paired(pairs(recording(sides[0]), recording(other)).common) for other in sides]
    assert paired == [True, False]
