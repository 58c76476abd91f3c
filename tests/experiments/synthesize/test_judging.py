"""Who may judge, and what ranks and intervals are: against numpy and against numbers known from tables."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.errors import BnprobeError
from bnprobe.experiments.synthesize.judging import Verdicts, verdicts
from tests.experiments.synthesize.small import NORMALIZE, SHAPE, Net, trained
from tests.experiments.test_snapshot import state


def test_the_rank_counts_the_classes_with_larger_scores() -> None:
    scores = torch.tensor([[0.1, 3.0, 2.0], [5.0, 1.0, 2.0], [0.0, torch.nan, 1.0]])
    found = verdicts(scores, torch.tensor([2, 0, 2]))
    assert found.ranks.tolist() == [2, 1, 3]
    assert found.guesses.tolist() == [1, 0, 2]
    assert found.right == pytest.approx(1 / 3)
    assert found.median_rank == 2


def test_the_interval_is_wilsons() -> None:
    """10 of 20: .299 to .701 (Agresti & Coull 1998 give .299, .701); 20 of 20: .839 to 1."""
    half = Verdicts(torch.tensor([1] * 10 + [2] * 10), torch.zeros(20))
    assert half.interval == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert Verdicts(torch.ones(20), torch.zeros(20)).interval == pytest.approx((0.8389, 1.0), abs=1e-4)


def test_the_median_rank_lies_in_its_interval_as_often_as_promised() -> None:
    """Fails if an order statistic is off by one or two: of 2,000 samples of 16, the interval must cover in 95% or more."""
    rng = np.random.default_rng(0)
    drawn = torch.tensor(rng.integers(1, 1001, size=(2000, 16)))
    covered = [low <= 500.5 <= high for low, high in (Verdicts(r, r).rank_interval for r in drawn)]
    assert 0.95 <= np.mean(covered) <= 0.99


def test_few_images_have_the_widest_interval() -> None:
    assert Verdicts(torch.tensor([7, 2, 9]), torch.zeros(3)).rank_interval == (2, 9)


def test_ranks_are_compared_by_their_ratios() -> None:
    """Fails if differences of ranks are tested, or the wrong side is: eleven of twelve images have half the rank."""
    mine, theirs = [*[10] * 11, 900], [*range(20, 31), 881]
    one, other = (Verdicts(torch.tensor(ranks), torch.zeros(12)) for ranks in (mine, theirs))
    assert other.worse_than(one) == pytest.approx(
        2 / 2**12
    )  # of all signs, only the smallest ratio may be on the other side
    assert one.worse_than(other) > 0.99
    assert one.worse_than(one) == 1.0


def make(judge: object) -> bnprobe.Made:
    return bnprobe.synthesize(trained(), n=6, steps=2, judge=judge, shape=SHAPE, normalize=NORMALIZE)  # type: ignore[arg-type]


def test_the_table_holds_what_the_judge_says_of_the_images() -> None:
    judge = trained(4, seed=2).train()
    before = state(judge)
    made = make(judge)
    assert state(judge) == before
    scores = judge.eval()(made.images).detach().numpy()
    ranks = 1 + (scores > np.take_along_axis(scores, made.targets.numpy()[:, None], 1)).sum(1)
    row = made.table.iloc[0]
    assert row["judge"] == pytest.approx(np.mean(ranks == 1))
    assert row["judge_rank"] == np.median(ranks)
    assert made.table["judge_worse"].isna().tolist() == [True, False, False, False, False]
    assert made.judge == "Net"


def test_a_judge_may_take_other_inputs_of_the_same_images() -> None:
    """Fails if the judge is given the network's inputs instead of its own."""
    seen: list[torch.Tensor] = []

    class Judge(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return super().forward(x)

    own = ((0.0,), (0.5,))
    made = bnprobe.synthesize(
        trained(),
        n=6,
        steps=2,
        judge=Judge(4),
        shape=SHAPE,
        normalize=NORMALIZE,
        judge_normalize=own,
        controls=False,
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in NORMALIZE)
    given = next(x for x in seen if len(x) == 6)
    assert torch.allclose(given, (made.images * std + mean) / 0.5, atol=1e-5)


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        (lambda model: model, "the judge is the network itself.*another architecture"),
        (deepcopy, "the judge is the network itself"),
        (Wrapped, "the judge is the network itself"),
        (nn.DataParallel, "the judge is the network itself"),
        (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(192, 7)), "scores 7 classes and the network 3"),
        (lambda _: nn.Conv2d(3, 3, 3), "scores no classes and the network 3"),
        (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), "does not take images of shape"),
        (lambda _: "resnet50", "judge must be a network, got str"),
    ],
)
def test_who_cannot_judge_is_refused(judge: object, says: str) -> None:
    model = trained()
    with pytest.raises(BnprobeError, match=says):
        bnprobe.synthesize(model, n=6, steps=2, judge=judge(model), shape=SHAPE)  # type: ignore[operator]
