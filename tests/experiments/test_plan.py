"""The plan: which norms it renews, its tables and notes, what a preview measures, and every wrong use in one line."""

from __future__ import annotations

import random
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers, NothingRecorded
from bnprobe.experiments.plan import _median


def model_of(seed: int = 0) -> nn.Sequential:
    """Two norms, ten inputs, three classes, in eval mode."""
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            a=nn.Linear(10, 8),
            bn1=nn.BatchNorm1d(8),
            relu=nn.ReLU(),
            b=nn.Linear(8, 6),
            bn2=nn.BatchNorm1d(6),
            c=nn.Linear(6, 3),
        )
    ).eval()


def batches(n: int = 4, size: int = 25, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [
        (2 * torch.randn(size, 10, generator=g) + 1, torch.randint(3, (size,), generator=g)) for _ in range(n)
    ]


def test_the_tables_say_old_new_and_distance() -> None:
    """The shift and its error by hand, in float64, for the first norm."""
    model = model_of()
    plan = bnprobe.recalibrate(model, batches())
    x = torch.cat([x for x, _ in batches()]).double()
    given = (x @ model.a.weight.double().T + model.a.bias.double()).detach().numpy()
    channels = plan.channels[plan.channels["layer"] == "bn1"]
    np.testing.assert_allclose(channels["shift"], given.mean(0) / np.sqrt(1 + 1e-5), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(channels["var_ratio"], given.var(0, ddof=1), rtol=1e-5)
    error = given.std(0, ddof=1) / np.sqrt(100)
    np.testing.assert_allclose(channels["shift_error"], error / np.sqrt(1 + 1e-5), rtol=1e-4)
    np.testing.assert_allclose(channels["shift_z"], channels["shift"] / channels["shift_error"])
    layers = plan.layers.set_index("layer")
    assert list(layers.index) == ["bn1", "bn2"]
    assert layers.loc["bn1", "n_samples"] == 100
    needed = np.ceil(100 * (1.96 * np.median(error) / 0.1) ** 2)
    assert abs(layers.loc["bn1", "n_needed"] - needed) <= 1


def test_from_a_recording_there_is_no_pass() -> None:
    """The moments of a recording in train mode give the same statistics as the batches."""
    model = model_of()
    recording = bnprobe.record(model_of().train(), batches(), histograms=False)
    plan, again = bnprobe.recalibrate(model, recording), bnprobe.recalibrate(model, batches())
    np.testing.assert_allclose(plan.channels["var_after"], again.channels["var_after"], rtol=1e-5)
    assert plan.n_samples == 100


def test_a_recording_in_eval_mode_is_told_to_be_second_best() -> None:
    plan = bnprobe.recalibrate(model_of(), bnprobe.record(model_of(), batches(), histograms=False))
    assert any("Pass the batches instead" in note for note in plan.notes)


def test_a_recording_of_another_model_is_refused() -> None:
    other = model_of()
    with torch.no_grad():
        other.bn2.weight.mul_(2)
    with pytest.raises(BnprobeError, match=r"bn2 has other weights\. Record this model"):
        bnprobe.recalibrate(model_of(), bnprobe.record(other, batches(), histograms=False))


def test_the_preview_is_what_two_evaluations_by_hand_give() -> None:
    model = model_of()
    plan = bnprobe.recalibrate(model, batches())
    effect = plan.preview(batches(seed=1))
    x, y = (torch.cat(parts) for parts in zip(*batches(seed=1), strict=True))
    before = model(x).argmax(1)
    plan.apply()
    after, scores = model(x).argmax(1), model(x)
    plan.undo()
    assert (effect.metric, effect.n, effect.n_fitted) == ("accuracy", 100, 0)
    assert effect.before == pytest.approx((before == y).double().mean().item())
    assert effect.after == pytest.approx((after == y).double().mean().item())
    assert effect.difference == pytest.approx(effect.after - effect.before)
    assert effect.agreement == pytest.approx((before == after).double().mean().item())
    kl = nn.functional.kl_div(scores.log_softmax(1), model(x).softmax(1), reduction="batchmean")
    assert effect.kl == pytest.approx(kl.item(), rel=1e-4)
    relative = (scores - model(x)).norm(dim=1) / model(x).norm(dim=1)
    assert effect.output_change == pytest.approx(relative.mean().item(), rel=1e-5)


def test_the_samples_that_were_fitted_are_noticed() -> None:
    model = model_of()
    plan = bnprobe.recalibrate(model, batches())
    effect = plan.preview([*batches(2), *batches(2, seed=1)])
    assert effect.n_fitted == 50
    assert "Preview on other samples" in effect.notes[0]


def test_outputs_of_nan_decide_nothing_and_that_is_said() -> None:
    """NaN is the largest of its scores wherever it stands first, so all decisions "stay". Counted by hand: two samples."""
    plan = bnprobe.recalibrate(model_of(), batches())
    held_out = batches(2, seed=1)
    assert plan.preview(held_out).notes == ()
    held_out[0][0][[3, 7], 2] = float("nan")
    (note,) = plan.preview(held_out).notes
    assert note.startswith("The outputs of 2 of 50 samples hold NaN before the change or after it")


def test_without_labels_the_agreement_is_measured() -> None:
    effect = bnprobe.recalibrate(model_of(), batches()).preview([x for x, _ in batches(seed=1)])
    assert effect.metric == "agreement with the model as it is"
    assert effect.before == 1
    assert 0 < effect.after == effect.agreement < 1


def test_an_output_without_classes_is_measured_by_its_size() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()
    x = [torch.randn(30, 4) * 3]
    effect = bnprobe.recalibrate(model, x).preview(x)
    assert effect.metric == "relative change of the output"
    assert np.isnan(effect.agreement)
    assert effect.after == effect.output_change > 0


def test_a_metric_of_ones_own_is_called_on_both_outputs() -> None:
    def margin(output: Tensor, y: Tensor) -> Tensor:
        return output.gather(1, y[:, None])[:, 0]

    model = model_of()
    effect = bnprobe.recalibrate(model, batches()).preview(batches(seed=1), metric=margin)
    x, y = (torch.cat(parts) for parts in zip(*batches(seed=1), strict=True))
    assert effect.metric == "margin"
    assert effect.before == pytest.approx(margin(model(x), y).mean().item(), rel=1e-5)


def test_both_versions_draw_the_same_random_numbers() -> None:
    """A model that adds noise in eval mode too: without a change, there is no difference."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model_of()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x + torch.randn_like(x) + np.random.normal() + random.gauss(0, 1))

    effect = bnprobe.recalibrate(Noisy().eval(), batches(), alpha=0).preview(batches(seed=1))
    assert (effect.difference, effect.agreement, effect.output_change) == (0, 1, 0)


def test_a_null_plan_makes_no_difference() -> None:
    """alpha = 0 writes the old statistics: nothing may change."""
    effect = bnprobe.recalibrate(model_of(), batches(), alpha=0).preview(batches(seed=1))
    assert (effect.difference, effect.low, effect.high, effect.agreement, effect.kl) == (0, 0, 0, 1, 0)
    assert effect.says.endswith("the interval includes 0")


@pytest.mark.parametrize(
    ("metric", "advice"),
    [
        (lambda o, y: nn.functional.cross_entropy(o, y), "reduction='none'"),
        (lambda o, y: o, "one number per sample"),
        (lambda o, y: "good", "one number per sample"),
        (lambda o, y: o[:, 0] / 0 * 0, "Return a finite number"),
        ("accuracy", "Pass a function"),
    ],
)
def test_a_metric_of_another_form_is_refused_in_a_line(metric: object, advice: str) -> None:
    plan = bnprobe.recalibrate(model_of(), batches())
    with pytest.raises(BnprobeError, match=advice) as caught:
        plan.preview(batches(seed=1), metric=metric)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_used_up_generator_is_named() -> None:
    generator = iter(batches())
    plan = bnprobe.recalibrate(model_of(), generator)
    with pytest.raises(NothingRecorded, match="A generator runs out after one use: pass a list"):
        plan.preview(generator)
    with pytest.raises(BnprobeError, match=r"3 passes are needed\. Pass a list"):
        bnprobe.recalibrate(model_of(), iter(batches()), layer_by_layer=True)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"what": "gamma"}, "Pass for example what="),
        ({"what": ()}, "Pass for example what="),
        ({"alpha": 1.5}, "from 0 to 1"),
        ({"alpha": float("nan")}, "from 0 to 1"),
        ({"prior": -1}, "number of samples, 0 or more"),
        ({"alpha": 0.5, "prior": 10}, "Pass one of them"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, object], advice: str) -> None:
    with pytest.raises(BnprobeError, match=advice):
        bnprobe.recalibrate(model_of(), batches(), **options)  # type: ignore[arg-type]


def test_a_layer_that_matches_nothing_gets_the_nearest_names() -> None:
    with pytest.raises(NoNormLayers, match=r"Nearest: bn1, bn2"):
        bnprobe.recalibrate(model_of(), batches(), layers="nb1")


def test_chosen_layers_alone_are_renewed() -> None:
    plan = bnprobe.recalibrate(model_of(), batches(), layers="*2")
    assert plan.layers["layer"].tolist() == ["bn2"]


def test_norms_without_stored_statistics_have_nothing_to_renew() -> None:
    model = nn.Sequential(nn.Linear(10, 8), nn.LayerNorm(8), nn.BatchNorm1d(8, track_running_stats=False))
    with pytest.raises(NoNormLayers, match="track_running_stats=True"):
        bnprobe.recalibrate(model, batches())


def test_frozen_norms_stay() -> None:
    """A class that never uses the batch, and a norm in eval mode inside a model in train mode."""
    from torchvision.ops import FrozenBatchNorm2d

    frozen = nn.Sequential(FrozenBatchNorm2d(3))
    with pytest.raises(NoNormLayers, match="is frozen"):
        bnprobe.recalibrate(frozen, [torch.randn(2, 3, 4, 4)])
    model = model_of().train()
    model.bn1.eval()
    assert bnprobe.recalibrate(model, batches()).layers["layer"].tolist() == ["bn2"]


def test_one_sample_is_told_to_be_too_few() -> None:
    plan = bnprobe.recalibrate(nn.Sequential(nn.BatchNorm2d(3)).eval(), [torch.randn(1, 3, 4, 4)])
    assert "Give more samples" in plan.notes[0]


def test_too_small_a_batch_for_batch_statistics_is_named() -> None:
    with pytest.raises(BnprobeError, match="layer_by_layer=True"):
        bnprobe.recalibrate(model_of(), [(torch.randn(1, 10), torch.tensor([0]))])


def test_few_samples_come_with_the_number_needed() -> None:
    """The number is right: with it, the error falls to about what was asked for."""
    few = bnprobe.recalibrate(model_of(), batches(1, 30))
    assert few.notes[0].startswith("Too few samples: from 30")
    needed = int(few.notes[0].rsplit("about ", 1)[1].rstrip(".").replace(",", ""))
    many = bnprobe.recalibrate(model_of(), batches(1, needed))
    assert 1.96 * many.layers["shift_error_median"].max() == pytest.approx(0.1, rel=0.35)


def test_a_stream_sorted_by_class_is_told() -> None:
    by_class = [(x, torch.full_like(y, i)) for i, (x, y) in enumerate(batches(3))]
    assert any("hold a single class" in note for note in bnprobe.recalibrate(model_of(), by_class).notes)
    one = [(x, torch.zeros_like(y)) for x, y in batches()]
    assert any("All samples are of one class" in note for note in bnprobe.recalibrate(model_of(), one).notes)
    assert not any("class" in note for note in bnprobe.recalibrate(model_of(), batches()).notes)


def test_a_channel_without_a_finite_value_keeps_its_statistics() -> None:
    x = torch.randn(20, 3)
    x[:, 1] = float("nan")
    plan = bnprobe.recalibrate(nn.Sequential(nn.BatchNorm1d(3)).eval(), [x])
    assert plan.channels["mean_after"][1] == 0
    assert plan.channels["var_after"][1] == 1
    assert plan.channels["mean_after"][0] == pytest.approx(x[:, 0].mean().item())


def test_applying_twice_undoing_twice_and_stale_plans_are_refused() -> None:
    model = model_of()
    plan, other = bnprobe.recalibrate(model, batches()), bnprobe.recalibrate(model, batches(seed=2))
    with pytest.raises(BnprobeError, match=r"Call apply\(\) first"):
        plan.undo()
    plan.apply()
    with pytest.raises(BnprobeError, match=r"Call undo\(\) first"):
        plan.apply()
    with pytest.raises(BnprobeError, match="running statistics of bn1 have changed since the plan was made"):
        other.apply()
    plan.undo()
    other.apply()


def test_half_precision_statistics_keep_their_type() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3)).half().eval()
    bnprobe.recalibrate(model, [torch.randn(40, 3).half()]).apply()
    assert model[0].running_var.dtype == torch.float16
    assert model[0].num_batches_tracked == 0


def test_a_model_that_is_called_in_another_way() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model_of()

        def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return self.net(batch[0])

    plan = bnprobe.recalibrate(Parts().eval(), batches(), call=lambda model, batch: model.step(batch))
    assert plan.preview(batches(seed=1)).n == 100


def test_tokens_and_maps_are_counted_by_sample() -> None:
    """A segmentation's accuracy is a share of positions per image, and unlabeled positions do not count."""
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1)).eval()
    x, y = torch.randn(6, 2, 4, 4), torch.randint(3, (6, 4, 4))
    y[:, 0] = -100
    effect = bnprobe.recalibrate(model, [x]).preview([(x, y)])
    right = (model(x).argmax(1) == y)[:, 1:].double().mean().item()
    assert effect.before == pytest.approx(right)
    assert effect.n == 6


def test_the_plan_shows_itself() -> None:
    plan = bnprobe.recalibrate(model_of(), batches())
    assert repr(plan) == "Plan(2 norms from 100 samples, not applied)"
    assert "bn1" in plan._repr_html_()
    assert repr(plan.preview(batches(seed=1))).startswith("Effect(accuracy ")


def test_the_typical_channel_is_the_middle_one() -> None:
    """Fails if one channel that is far off makes all look far off."""
    assert _median(pd.Series([0.0, np.nan, 0.5, 90.0])) == 0.5
    assert np.isnan(_median(pd.Series([np.nan])))
