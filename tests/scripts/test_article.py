"""The article's verdicts can come out the other way: for every claim the opposite is planted and must be noticed."""

from __future__ import annotations

import copy
import html
import re
import runpy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kurtosis, skew, wasserstein_distance
from support.paths import ROOT
from torch import Tensor, nn

import bnprobe
from scripts.article import affine, balance, depth, hands, knowledge, pooling, shape, target, verdicts
from scripts.article import page as article
from scripts.article.fold import folded_layer
from scripts.article.networks import SMALL, build, look_back, train
from scripts.article.verdicts import FAILS, HOLDS, LIMIT, Drawn, Recognized, Travel

# The rules: each says each of the three words.


@pytest.mark.parametrize(
    ("word", "fixed", "by_batch", "others"),
    [
        (HOLDS, 1e-12, 1e-12, {"layer norm": 1e-3}),
        (LIMIT, 1e-12, 1e-2, {}),
        (LIMIT, 1e-12, 1e-12, {"layer norm": 0.5}),
        (FAILS, 1e-2, 1e-2, {}),
    ],
)
def test_shape_rule(word, fixed, by_batch, others):
    assert verdicts.shape(fixed, by_batch, others).word == word


@pytest.mark.parametrize(
    ("word", "numbers"),
    [
        (HOLDS, (1e-16, 1e-6, 1e-5, 1e-16)),
        (LIMIT, (1e-16, 1e-6, 1e-5, 0.5)),
        (FAILS, (1e-3, 1e-6, 1e-5, 0.5)),
        (FAILS, (1e-16, 1e-2, 1e-5, 0.5)),
        (FAILS, (1e-16, 1e-6, 1e-2, 0.5)),
    ],
)
def test_fold_rule(word, numbers):
    assert verdicts.fold(*numbers).word == word


LOST, FINE = Travel(100.0, 1.4, 2.3), Travel(1.3, 0.2, 0.1)


@pytest.mark.parametrize(
    ("word", "without", "with_norm", "careful", "places", "no_slopes"),
    [
        (HOLDS, LOST, FINE, LOST, {"after": 0.1}, 0.0),
        (LIMIT, LOST, FINE, FINE, {"after": 0.1}, 0.0),
        (LIMIT, LOST, FINE, LOST, {"after": 2.3}, 0.0),
        (LIMIT, LOST, FINE, LOST, {"after": 0.1}, 0.9),
        (FAILS, FINE, LOST, LOST, {"after": 0.1}, 0.0),
        (FAILS, LOST, Travel(1.3, 0.2, 2.3), LOST, {}, 0.0),
        (FAILS, LOST, Travel(100.0, 0.2, 0.1), LOST, {}, 0.0),
        (FAILS, LOST, Travel(1.3, 1.5, 0.1), LOST, {}, 0.0),
    ],
)
def test_drift_rule(word, without, with_norm, careful, places, no_slopes):
    assert verdicts.drift(without, with_norm, careful, places, no_slopes).word == word


EVEN, HURT = {1.0: 0.1, 16.0: 0.1}, {1.0: 0.1, 16.0: 2.3}


@pytest.mark.parametrize(
    ("word", "reset", "plain", "normed", "free"),
    [
        (HOLDS, 0.3, HURT, HURT, (0.5, 4.0)),
        (LIMIT, 0.3, HURT, HURT, (1e-4, 4.0)),
        (LIMIT, 0.3, HURT, EVEN, (0.5, 4.0)),
        (LIMIT, 0.3, EVEN, HURT, (0.5, 4.0)),
        (FAILS, 0.3, EVEN, EVEN, (0.5, 4.0)),
        (FAILS, 0.3, {1.0: 2.3, 16.0: float("inf")}, EVEN, (0.5, 4.0)),
        (FAILS, 0.1, HURT, HURT, (0.5, 4.0)),
    ],
)
def test_balance_rule(word, reset, plain, normed, free):
    assert verdicts.balance(0.1, reset, plain, normed, free).word == word


@pytest.mark.parametrize(
    ("word", "numbers"),
    [
        (HOLDS, (0.01, 0.3, 0.01, 0.01, 0.5)),
        (LIMIT, (0.01, 0.3, 0.01, 0.3, 0.5)),
        (LIMIT, (0.01, 0.3, 0.01, 0.01, 1e-5)),
        (LIMIT, (0.01, 0.01, 0.05, 0.01, 0.5)),
        (FAILS, (0.01, 0.01, 0.3, 0.01, 0.5)),
        (FAILS, (0.5, 0.3, 0.01, 0.01, 0.5)),
        (FAILS, (0.01, 0.3, 0.3, 0.01, 0.5)),
    ],
)
def test_target_rule(word, numbers):
    assert verdicts.target(*numbers).word == word


@pytest.mark.parametrize(
    ("word", "relation", "mates", "accuracy"),
    [
        (HOLDS, 1e-15, {"batch norm": 1e-7}, {"batch norm": 0.9, "layer norm": 0.9}),
        (LIMIT, 1e-15, {"batch norm": 0.3}, {"batch norm": 0.9, "layer norm": 0.9}),
        (LIMIT, 1e-15, {"batch norm": 1e-7}, {"batch norm": 0.9, "layer norm": 0.5}),
        (FAILS, 0.1, {"batch norm": 0.3}, {"batch norm": 0.9, "layer norm": 0.5}),
    ],
)
def test_pooling_rule(word, relation, mates, accuracy):
    assert verdicts.pooling(relation, mates, accuracy).word == word


FEW, SOME, MANY = Recognized(0.1, 0.05, 0.2), Recognized(0.4, 0.3, 0.5), Recognized(0.9, 0.8, 0.95)
BOTH_NEEDED, WEIGHTS_ALONE, ANY_STATISTICS = (
    Drawn(MANY, SOME, FEW, FEW),
    Drawn(MANY, MANY, FEW, FEW),
    Drawn(MANY, FEW, FEW, MANY),
)


@pytest.mark.parametrize(
    ("word", "drawn", "says"),
    [
        (HOLDS, [BOTH_NEEDED], "it takes the weights, and what each channel stored"),
        (HOLDS, [BOTH_NEEDED, BOTH_NEEDED], "Of photographs drawn"),
        (LIMIT, [WEIGHTS_ALONE], "the weights alone may do as well"),
        (LIMIT, [ANY_STATISTICS, BOTH_NEEDED], "makes no difference"),
        (FAILS, [ANY_STATISTICS], "makes no difference"),
        (FAILS, [Drawn(FEW, FEW, FEW, FEW)], "makes no difference"),
    ],
)
def test_knowledge_rule(word, drawn, says):
    verdict = verdicts.knowledge(dict(zip(("digits", "photographs"), drawn, strict=False)))
    assert verdict.word == word
    assert says in str(verdict)


# Measuring by hand against scipy.


def test_shapes_by_hand_are_those_of_scipy(rng):
    """Fails if skewness, kurtosis or the distance to a Gaussian were computed wrongly."""
    x = rng.gamma(1.5, size=(4001, 3)) * [1, 10, 0.1] + [0, 5, -2]
    assert hands.skewness(x) == pytest.approx(skew(x), rel=1e-9)
    assert hands.kurtosis(x) == pytest.approx(kurtosis(x), rel=1e-9)
    # against a large sample of the Gaussian: 200,000 draws are within 0.01 deviations of it
    drawn = rng.normal(5.0, 3.0, size=200_000)
    for column in range(3):
        by_scipy = wasserstein_distance(x[:, column], drawn) / 3.0
        assert hands.distance(x, np.full(3, 5.0), np.full(3, 3.0))[column] == pytest.approx(
            by_scipy, abs=0.01
        )


# Claim 1: a layer that is no line.


class Squashed(nn.BatchNorm2d):
    """A batch norm that bends what it has normalized."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


def normed(norm: nn.Module, n: int = 7) -> tuple[nn.Module, list[Tensor]]:
    """A convolution and the norm, γ of both signs and running statistics that do not fit the data exactly."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), norm)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.7, 0.2, -2.0]))
        norm.bias.copy_(torch.tensor([0.1, 1.0, -0.5, 0.0]))
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return model.eval(), [torch.distributions.Exponential(1.0).sample((n, 2, 9, 8))]


def changed(norm: nn.Module) -> float:
    return float(np.nanmax(shape.shapes(*normed(norm))[0].largest))


def test_a_layer_that_is_no_line_changes_the_shape():
    """Fails if claim 1 would pass whatever the layer does."""
    assert verdicts.shape(changed(nn.BatchNorm2d(4)), 0.0, {}).word == HOLDS
    assert verdicts.shape(changed(Squashed(4)), 0.0, {}).word == FAILS


def test_a_negative_slope_mirrors(rng):
    """Fails if the sign of γ were left out of the comparison of shapes."""
    x = rng.gamma(1.5, size=(500, 1))
    assert hands.change_of_shape(x, 3 - 2 * x, np.array([-1.0]))[0] < 1e-9
    assert hands.change_of_shape(x, 3 - 2 * x, np.array([1.0]))[0] > 0.5


# Claim 2: a wrong fold, a wrong formula.


def forgotten_mean(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """A fold that leaves the running mean where it was."""
    new = folded_layer(layer, norm)
    with torch.no_grad():
        new.bias.add_(norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt())
    return new


def test_a_wrong_fold_is_noticed():
    """Fails if claim 2 would pass whatever the fold does; the layer alone and the whole network each tell."""
    model, (x,) = normed(nn.BatchNorm2d(4))
    right, wrong = affine.folds(model, x), affine.folds(model, x, forgotten_mean)
    assert verdicts.fold(0.0, float(right.each.max()), right.all, 0.0).word == HOLDS
    assert verdicts.fold(0.0, float(wrong.each.max()), right.all, 0.0).word == FAILS
    assert verdicts.fold(0.0, float(right.each.max()), wrong.all, 0.0).word == FAILS


def test_a_wrong_line_is_noticed(monkeypatch):
    """Fails if slope and intercept of the claim were not what is compared (here: divisor n − 1)."""
    points = shape.clusters()
    assert verdicts.fold(affine.formula_gap(points), 0.0, 0.0, 0.0).word == HOLDS
    monkeypatch.setattr(
        affine, "line_of", lambda x: (1 / x.std(axis=0, ddof=1), -x.mean(axis=0) / x.std(axis=0, ddof=1))
    )
    assert verdicts.fold(affine.formula_gap(points), 0.0, 0.0, 0.0).word == FAILS


def test_only_fixed_statistics_keep_midpoints():
    """Fails if the experiment did not tell train mode from eval mode."""
    assert affine.midpoint(training=False) < 1e-12
    assert affine.midpoint(training=True) > 0.1


# Claim 3: the product of the gradient, and the networks swapped (in the slow test below).


def test_the_product_needs_slopes():
    """Fails if the product by hand were not the gradient, or if leaving out the slopes went unnoticed."""
    product, no_slopes = depth.product_gaps()
    assert product < 1e-12
    assert no_slopes > 0.1


def test_drift_is_that_of_the_weights():
    """Fails if drift were not measured: without norm it is (1 / √6) per layer by the default draw, 1 by the careful."""
    deviations = {
        careful: look_back(build("none", 6, careful), 1).layers["pre_sd_median"].to_numpy()
        for careful in (False, True)
    }
    assert deviations[False][1] / deviations[False][5] > 6.0
    assert deviations[True].max() / deviations[True].min() < 3.0


# Claim 4: starts that compute the same.


@pytest.mark.parametrize(("norm", "careful"), [("none", True), ("batch", False)])
def test_unbalanced_starts_compute_the_same(norm, careful):
    """Fails if a factor did not cancel: then an unbalanced start would be another network, and prove nothing."""
    start = build(norm, 4, careful)
    assert balance.loss_of(balance.unbalanced(start, 4.0), 1) == pytest.approx(
        balance.loss_of(start, 1), rel=1e-3
    )
    scaled = copy.deepcopy(start)
    with torch.no_grad():
        scaled[-1].weight.mul_(4.0)
    assert balance.loss_of(scaled, 1) != pytest.approx(balance.loss_of(start, 1), rel=1e-3)


def test_gamma_and_beta_together_only_scale_the_gradient():
    """Fails if the move were not what the page says: the loss the same, the gradient at that layer shorter by the factor."""
    model = build("batch", 3)
    with torch.no_grad():
        for norm in balance.norms(model):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
    moved, alone = (balance.moved(model, 1, move) for move in ((4.0, 4.0, 0.0), (4.0, 1.0, 0.0)))
    losses = [balance.loss_of(m, 1) for m in (model, moved, alone)]
    assert abs(losses[1] - losses[0]) < 0.1 * abs(losses[2] - losses[0])
    before, after = (look_back(m, 1).layers["grad_out"].iloc[1] for m in (model, moved))
    assert before / after == pytest.approx(4.0, rel=1e-2)


# Claim 5: outputs for which the other reading is right.


@pytest.mark.parametrize(
    ("power", "word", "says"),
    [(1.0, HOLDS, "are the variances"), (2.0, FAILS, "are standard deviations"), (4.0, FAILS, "are neither")],
)
def test_each_reading_can_win(rng, power, word, says):
    """Fails if the page would call γ a deviation whatever the data say."""
    gamma = rng.choice([-1, 1], size=200) * rng.uniform(0.1, 3.0, size=200)
    channels = pd.DataFrame({"gamma": gamma, "post_var": np.abs(gamma) ** power})
    as_deviation, as_variance = target.readings(channels)
    verdict = verdicts.target(0.01, as_deviation, as_variance, 0.01, 0.5)
    assert verdict.word == word
    assert says in str(verdict)


def test_outputs_off_their_target_are_noticed():
    """Fails if running statistics that do not fit the data went unnoticed."""
    model, (x,) = normed(nn.BatchNorm2d(4), 40)
    wrong = bnprobe.report(bnprobe.record(model, [(x, None)]))
    right = bnprobe.report(bnprobe.record(copy.deepcopy(model).train(), [(x, None)]))
    words, said = [], []
    for report in (wrong, right):
        found = target.misses(report, 0.0)
        verdict = verdicts.target(found.mean, *target.readings(report.channels), found.shape, 0.5)
        words.append(verdict.word)
        said.append(str(verdict))
    assert words == [FAILS, FAILS]
    assert "far from β" in said[0]
    assert "far from β" not in said[1]


# Claim 6: a norm that pools wrongly, and one that does another thing.


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("group norm", nn.GroupNorm(2, pooling.C, affine=False, dtype=torch.float64)),
        (
            "layer norm",
            nn.RMSNorm((pooling.C, 5, 5), eps=1e-5, elementwise_affine=False, dtype=torch.float64),
        ),
        ("batch norm", nn.InstanceNorm2d(pooling.C, dtype=torch.float64)),
    ],
)
def test_a_norm_that_pools_otherwise_is_noticed(name, wrong):
    """Fails if the relations would hold whatever the norm does."""
    norms, x = pooling.real_norms(), pooling.tensor()
    assert verdicts.pooling(max(pooling.relations(norms, x).values()), {}, {"a": 0.9}).word == HOLDS
    norms[name] = wrong
    assert verdicts.pooling(max(pooling.relations(norms, x).values()), {}, {"a": 0.9}).word == FAILS


def test_only_batch_norm_feels_its_mates():
    """Fails if the outputs were compared for the same batch, or in eval mode."""
    assert pooling.felt_mates(build("batch", 3)) > 1e-2
    assert pooling.felt_mates(build("layer", 3)) < 1e-5


# Claim 7: statistics that know nothing.


def test_rows_of_the_table_are_what_they_were_made_from():
    """Fails if a control is taken for another one."""
    rows = pd.DataFrame(
        {"judge": [0.4, 0.1, 0.2, 0.3], "judge_low": 0.0, "judge_high": 1.0},
        ["statistics and classes", "classes only", "statistics only", "permuted statistics"],
    )
    found = knowledge.drawn(rows)
    shares = [one.share for one in (found.both, found.classes, found.statistics, found.permuted)]
    assert shares == [0.4, 0.1, 0.2, 0.3]


def test_the_judge_sees_no_single_pixels_and_no_colors():
    """Fails if fine patterns, by which a network can be fooled, reach the judge."""
    seen: list[Tensor] = []
    judge = knowledge.Judge(nn.Identity())
    judge.reader.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fine = torch.ones(32, 32)
    fine[::2, ::2] = fine[1::2, 1::2] = -1
    judge(x)
    judge(x + fine)
    judge(x.flip(1))
    assert all(one.shape == (2, 1, 8, 8) and torch.allclose(one, seen[0], atol=1e-5) for one in seen)


# The whole article.


def test_training_repeats_to_the_bit():
    """Fails if anything drew without a seed."""
    losses = [train(build("batch", 3), 6, "again", size=16) for _ in range(2)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_rerun_gives_the_verdicts_of_the_page():
    """Fails if a verdict on the page that is shipped did not follow from its experiment, on reduced sizes."""
    page = html.unescape((ROOT / "reports" / "article.html").read_text(encoding="utf-8"))
    told = article.run(SMALL)
    assert len(told) == 7
    *claims, (known, _) = told
    for verdict, section in claims:
        shown = re.search(rf"<dt>{re.escape(section.title)}</dt><dd>(.*?): ", page)
        assert shown is not None, section.title
        assert verdict.word == shown[1], str(verdict)
    # of the last claim the page has photographs as well, whose files are not here
    assert re.search(rf"Of digits drawn [^:]*: {verdicts.FOLLOWS[known.word]}", page)


def test_the_tour_runs(monkeypatch, tmp_path, capsys):
    """Fails if a call that the tour teaches no longer exists, or merging lost its exactness."""
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(ROOT / "scripts" / "tour.py"))
    assert names["gap"] < 1e-9
    assert (names["folder"] / "demo.html").stat().st_size > 10_000
    assert "imbalance of the gradient" in capsys.readouterr().out
