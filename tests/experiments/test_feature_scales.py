"""Scales of layer and RMS norms frozen, and their centering changed: against models rebuilt by hand, in float64."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.model_state import fingerprint
from support.token_models import Gpt, MaskedGpt, tokens
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError

NORMS = [f"blocks.{i}.{name}" for i in range(2) for name in ("ln1", "ln2")] + ["ln_f"]


def trained(kind: type[Gpt] = Gpt) -> Gpt:
    """Two blocks, with vectors as after training; token 7 is 40 times as loud as the others."""
    model = kind(n=2)
    g = torch.Generator().manual_seed(1)
    for norm in (model.get_submodule(path) for path in NORMS):
        norm.weight.data = 1 + 0.5 * torch.randn(16, generator=g)
        norm.bias.data = 0.3 * torch.randn(16, generator=g)
    model.tokens.weight.data[7] *= 40
    model.head.weight.data *= 4
    return model.double().eval()


def given_to(model: nn.Module, path: str, ids: Any) -> np.ndarray:
    """What a norm is given, shape (N, T, C)."""
    found: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda m, args, y: found.append(args[0]))
    model(**ids) if isinstance(ids, dict) else model(ids)
    handle.remove()
    return found[0].detach().numpy()


def scales(x: np.ndarray) -> np.ndarray:
    return np.sqrt(x.var(-1) + 1e-5)


def geometric(r: np.ndarray) -> float:
    return float(np.exp(np.log(r).mean()))


def one_constant(r: np.ndarray) -> np.ndarray:
    return np.full_like(r, geometric(r))


def two_constants(r: np.ndarray) -> np.ndarray:
    new = np.full_like(r, geometric(r[:, 1:]))
    new[:, 0] = geometric(r[:, 0])
    return new


def by_position(r: np.ndarray) -> np.ndarray:
    return np.tile(np.exp(np.log(r).mean(0)), (len(r), 1))


def loud_apart(r: np.ndarray) -> np.ndarray:
    # torch's median is the lower of two
    loud = r > 5 * np.sort(r, axis=None)[(r.size - 1) // 2]
    return np.where(loud, r, geometric(r[~loud]))


FROZEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant": one_constant,
    "two": two_constants,
    "position": by_position,
    "loud": loud_apart,
}


class Rebuilt(nn.Module):
    """A layer norm that divides by given scales, or does not subtract the mean."""

    def __init__(self, norm: nn.Module, new: np.ndarray | None) -> None:
        super().__init__()
        self.weight, self.bias, self.new = norm.weight, norm.bias, new

    def forward(self, x: Tensor) -> Tensor:
        if self.new is None:
            return self.weight * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() + self.bias
        return (
            self.weight * (x - x.mean(-1, keepdim=True)) / torch.from_numpy(self.new)[..., None] + self.bias
        )


def rebuilt(model: nn.Module, paths: list[str], replacement: str, ids: Tensor) -> nn.Module:
    other = deepcopy(model)
    for path in paths:
        new = None if replacement == "removed" else FROZEN[replacement](scales(given_to(model, path, ids)))
        parent, _, name = path.rpartition(".")
        setattr(other.get_submodule(parent), name, Rebuilt(model.get_submodule(path), new))
    return other


def losses(scored: Tensor, ids: Tensor) -> np.ndarray:
    """Per sequence and position, in nats."""
    logs = scored.detach().numpy()
    logs = (
        logs
        - np.log(np.exp(logs - logs.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logs.max(-1, keepdims=True)
    )
    return -np.take_along_axis(logs[:, :-1], ids.numpy()[:, 1:, None], 2)[..., 0]


def test_every_row_is_what_a_model_rebuilt_by_hand_gives() -> None:
    """Fails if a constant is another mean, β is scaled too, or first tokens are not told from others."""
    model, ids = trained(), tokens(5, 8)
    table = bnprobe.ablate(model, [ids[:2], ids[2:]], "loss", vectors=("scale", "centering")).table
    before = losses(model(ids), ids)
    checked = 0
    for _, row in table[table["level"] != "stage"].iterrows():
        paths = [row["layer"]] if row["layer"] else NORMS
        after = losses(rebuilt(model, paths, row["replacement"], ids)(ids), ids)
        if row["layer"] or row["replacement"] != "loud":  # not all norms have loud tokens
            assert row["after"] == pytest.approx(after.mean(), rel=1e-5), tuple(row[:4])
            assert row["difference"] == pytest.approx((after - before).mean(), rel=1e-3, abs=1e-5)
            rest = (after - before)[:, 1:].mean()
            assert row["difference_rest"] == pytest.approx(rest, rel=1e-3, abs=1e-5)
            checked += 1
        assert row["low"] <= row["difference"] <= row["high"]
    assert table["n"].eq(5).all()
    assert checked >= 4 * 6 + 2
    assert (table[table["level"] == "layer"]["difference"].abs() > 1e-4).sum() > 15
    assert "loud" in set(table["replacement"])


def test_a_mask_leaves_padding_out_and_counts_from_the_first_token() -> None:
    """Fails if padding counts in a constant, or positions are those of the padded row."""
    model, ids = trained(MaskedGpt), tokens(4, 10)
    places = torch.arange(10).expand(4, 10)
    plain = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": places}
    pads = torch.zeros(4, 3, dtype=torch.long)
    padded = {name: torch.cat([pads, value], 1) for name, value in plain.items()}
    studies = [bnprobe.ablate(model, [x], "loss", vectors="scale").table for x in (plain, padded)]
    for name in ("replacement", "layer"):
        assert studies[0][name].tolist() == studies[1][name].tolist()
    for name in ("before", "after", "difference_rest"):
        np.testing.assert_allclose(studies[0][name], studies[1][name], rtol=1e-5, atol=1e-7)


class Gemma(nn.Module):
    """Multiplies by 1 + w."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.randn(8) / 4), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return (1 + self.weight) * x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()


class GemmaRMSNorm(Gemma):
    """The name by which it is recognized."""


def test_an_rms_norm_becomes_a_layer_norm() -> None:
    """Fails if 1 + w is taken for w, or the mean is subtracted after the scale was taken."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), GemmaRMSNorm(), nn.Linear(8, 3)).eval()
    x = 2 * torch.randn(30, 6) + 1
    (row,) = (
        bnprobe.ablate(model, [x], vectors="centering", layers="1")
        .table.query("level == 'layer'")
        .to_dict("records")
    )
    assert row["replacement"] == "added"
    h = model[0](x)
    y = (1 + model[1].weight) * nn.functional.layer_norm(h, (8,), eps=1e-6)
    p, q = model(x).log_softmax(1), model[2](y).log_softmax(1)
    assert row["kl"] == pytest.approx((p.exp() * (p - q)).sum(1).mean().item(), rel=1e-4)
    assert row["kl"] > 1e-3


def test_channels_may_stand_first() -> None:
    """Fails if a scale per pixel is spread over the wrong dimensions."""

    class LayerNorm2d(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), LayerNorm2d(4), nn.Flatten(), nn.LazyLinear(3))
    x = torch.randn(6, 3, 7, 5)
    model(x)
    table = bnprobe.ablate(model.eval(), [x], vectors="scale", layers="1").table.query("level == 'layer'")
    assert set(table["replacement"]) == {"constant"}  # two dimensions of positions: none is first
    h = model[0](x)
    r = (h.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    y = model[1](h) * r / r.log().mean().exp()
    p, q = model(x).log_softmax(1), model[3](y.flatten(1)).log_softmax(1)
    assert table["kl"].item() == pytest.approx((p.exp() * (p - q)).sum(1).mean().item(), rel=1e-4)


def test_estimates_are_slopes_of_the_loss() -> None:
    """Fails if the gradient is that of another loss, or meets the change of another norm."""
    from bnprobe.experiments.feature_scales import Scales
    from bnprobe.experiments.first_order import Estimates
    from bnprobe.experiments.held_vectors import held_norms
    from bnprobe.experiments.outputs import token_loss
    from bnprobe.experiments.positions import Positions
    from bnprobe.experiments.replacements import scale_variants

    model, ids = trained(), tokens(5, 12)
    norms = held_norms(model, bnprobe.record(model, [ids]))
    watched = Scales({n.path: (n.module, n.layer) for n in norms.values()}, Positions())
    watched.positions.see(ids)
    with watched.watching():
        model(ids)
    made = [v for v in scale_variants(norms, ("scale", "centering"), watched) if v.level == "layer"]
    assert len(made) >= 20
    estimates = Estimates(norms, made, {}, 0, token_loss)
    estimates.see(model, ids, None)
    for variant in made[::5]:
        (path, output), found = next(iter(variant.outputs.items())), []
        for t in (-1e-5, 1e-5):
            handle = model.get_submodule(path).register_forward_hook(
                lambda m, args, y, t=t, output=output: y + t * (output(args[0], y) - y)
            )
            # as the estimate: of each sample the sum over predictions by the number of positions
            found.append(losses(model(ids), ids).sum(1) / ids.shape[1])
            handle.remove()
        size = np.sqrt(np.square((found[1] - found[0]) / 2e-5).mean())
        assert estimates.sizes[variant] == pytest.approx(size, rel=1e-4, abs=1e-8), variant.replacement


def test_a_budget_measures_what_matters_and_estimates_the_rest() -> None:
    study = bnprobe.ablate(trained(), [tokens(4, 12)], "loss", vectors="scale", budget_s=60)
    assert study.table["estimate"].notna().all()
    assert study.rank_correlation > 0.5


def test_worth_is_what_one_scale_for_all_tokens_loses() -> None:
    study = bnprobe.ablate(trained(), [tokens(5, 12)], "loss", vectors=("scale", "centering"))
    rows = study.table.set_index(["layer", "vector", "replacement"])["difference"]
    worth = study.worth.set_index(["layer", "vector"])["worth"]
    assert worth["ln_f", "scale"] == rows["ln_f", "scale", "constant"]
    assert worth["ln_f", "centering"] == rows["ln_f", "centering", "removed"]
    assert not study.larger_is_better
    assert "scale of each token" in study.answer or "centering" in study.answer
    assert "grows from" in study.answer or "significant" in study.answer


def test_the_page_shows_the_scales(tmp_path: Any) -> None:
    study = bnprobe.ablate(trained(), [tokens(5, 12)], "loss", vectors="scale")
    page = study.to_html(tmp_path / "worth.html").read_text("utf-8")
    assert "one for the first token, one for the others" in page
    assert "loss in nats" in page


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 40, 200, 10**9])
def test_a_study_leaves_no_trace(error: type[BaseException], at: int) -> None:
    """Fails if a hook of ours stays in the model, wherever it is interrupted."""
    n = 0
    model = trained()

    def count(*_: Any) -> None:
        nonlocal n
        n += 1
        if n == at:
            raise error("planted")

    model.blocks[1].attn.register_forward_hook(count)
    model.head.register_forward_hook(count)
    before = fingerprint(model)
    try:
        bnprobe.ablate(model, [tokens(3, 8), tokens(3, 8)], vectors=("scale", "centering"))
    except (RuntimeError, KeyboardInterrupt) as raised:
        assert str(raised) == "planted"  # noqa: PT017
    assert fingerprint(model) == before
    assert n > 100 or at < 100


def test_a_loss_needs_classes() -> None:
    with pytest.raises(BnprobeError, match="Pass a metric of your own"):
        bnprobe.ablate(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)), [torch.randn(5, 4)], "loss")
    with pytest.raises(BnprobeError, match='Pass "loss", or a function'):
        bnprobe.ablate(trained(), [tokens()], "perplexity")


def test_a_loss_of_classes_is_that_of_torch() -> None:
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)).eval(),
        torch.randn(9, 4),
        torch.arange(9) % 3,
    )
    table: pd.DataFrame = bnprobe.ablate(model, [(x, y)], "loss", vectors="bias").table
    assert table["before"][0] == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-6)
    assert table["difference_rest"].isna().all()
