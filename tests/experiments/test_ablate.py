"""Ablations: every row against an evaluation by hand, what is estimated, what is left unchanged, and every wrong use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers, NotDefined, NothingRecorded
from bnprobe.experiments import ablate as ablating
from bnprobe.experiments.prefix import Prefix
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.fingerprint import Fingerprint


class Block(nn.Sequential):
    """A stage: two linear layers, each with a norm."""

    def __init__(self, n: int) -> None:
        super().__init__(
            OrderedDict(
                a=nn.Linear(n, 6),
                bn1=nn.BatchNorm1d(6),
                relu=nn.ReLU(),
                b=nn.Linear(6, n),
                bn2=nn.BatchNorm1d(n),
            )
        )


def model_of(seed: int = 0) -> nn.Sequential:
    """Five norms in two stages and one before them, with vectors as after some training, in eval mode."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        OrderedDict(
            stem=nn.Linear(10, 8),
            bn=nn.BatchNorm1d(8),
            one=Block(8),
            relu=nn.ReLU(),
            two=Block(8),
            head=nn.Linear(8, 3),
        )
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
            nn.init.normal_(module.weight, 0.5, 0.7)
            nn.init.normal_(module.bias, 0, 0.5)
    nn.init.normal_(model.head.weight)
    nn.init.zeros_(model.head.bias)  # decisions vary between samples
    return model.eval()


def batches(n: int = 4, size: int = 25, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [
        (2 * torch.randn(size, 10, generator=g) + 1, torch.randint(3, (size,), generator=g)) for _ in range(n)
    ]


def inputs_of(model: nn.Module, path: str, x: Tensor) -> np.ndarray:
    """What a norm is given, in float64."""
    given = []
    handle = model.get_submodule(path).register_forward_hook(lambda m, args, y: given.append(args[0]))
    model(x)
    handle.remove()
    return given[0].detach().double().numpy()


BY_HAND: dict[tuple[str, str], Callable[[np.ndarray, np.ndarray, str], np.ndarray]] = {
    ("mean", "data"): lambda old, given, path: given.mean(0),
    ("mean", "0"): lambda old, given, path: 0 * old,
    ("var", "data"): lambda old, given, path: given.var(0, ddof=1),
    ("var", "1"): lambda old, given, path: 0 * old + 1,
    ("var", "mean"): lambda old, given, path: 0 * old + old.mean(),
    ("weight", "1"): lambda old, given, path: 0 * old + 1,
    ("weight", "mean"): lambda old, given, path: np.sign(old) * np.abs(old).mean(),
    ("weight", "permuted"): lambda old, given, path: old[order(path, "weight", len(old))],
    ("weight", "unsigned"): lambda old, given, path: np.abs(old),
    ("bias", "0"): lambda old, given, path: 0 * old,
    ("bias", "mean"): lambda old, given, path: 0 * old + old.mean(),
    ("bias", "permuted"): lambda old, given, path: old[order(path, "bias", len(old))],
}
TENSORS = {"mean": "running_mean", "var": "running_var", "weight": "weight", "bias": "bias"}


def order(path: str, vector: str, n: int) -> np.ndarray:
    return np.random.default_rng([0, crc32(f"{path} {vector}".encode())]).permutation(n)


def norms_below(model: nn.Module, prefix: str) -> list[str]:
    found = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm1d)]
    return [name for name in found if name == prefix or prefix == "" or name.startswith(f"{prefix}.")]


def test_every_row_is_what_an_evaluation_by_hand_gives() -> None:
    """Fails if any replacement writes other values, into another layer, or leaves the last one behind."""
    model = model_of()
    study = bnprobe.ablate(model, batches())
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    before = model(x)
    checked = 0
    for _, row in study.table.iterrows():
        made = BY_HAND.get((row["vector"], row["replacement"]))
        if made is None or (row["replacement"] == "data" and row["level"] != "layer"):
            continue
        other = deepcopy(model)
        for path in norms_below(model, row["layer"]):
            tensor = getattr(other.get_submodule(path), TENSORS[row["vector"]])
            old = tensor.detach().double().numpy()
            tensor.data.copy_(torch.from_numpy(made(old, inputs_of(model, path, x), path)))
        after = other(x)
        assert row["before"] == pytest.approx((before.argmax(1) == y).double().mean().item())
        assert row["after"] == pytest.approx((after.argmax(1) == y).double().mean().item()), tuple(row[:4])
        assert row["agreement"] == pytest.approx((after.argmax(1) == before.argmax(1)).double().mean().item())
        kl = nn.functional.kl_div(after.log_softmax(1), before.softmax(1), reduction="batchmean").item()
        assert row["kl"] == pytest.approx(kl, rel=1e-3, abs=1e-5)
        assert (row["n"], row["estimated"]) == (100, False)
        assert row["low"] <= row["difference"] <= row["high"]
        checked += 1
    assert checked == 12 * 5 + 10 * 3


def test_the_implied_statistics_are_those_of_the_recording() -> None:
    model = model_of()
    study = bnprobe.ablate(model, batches(), vectors="mean", layers="one.bn2")
    channels = bnprobe.report(bnprobe.record(model, batches())).channels.set_index("layer")
    other = deepcopy(model)
    implied = channels.loc["one.bn2", "implied_mean"].to_numpy()
    other.one.bn2.running_mean.copy_(torch.from_numpy(implied.copy()))
    x = torch.cat([x for x, _ in batches()])
    row = study.table.set_index(["layer", "replacement"]).loc[("one.bn2", "implied")]
    assert row["agreement"] == pytest.approx(
        (other(x).argmax(1) == model(x).argmax(1)).double().mean().item()
    )
    assert row["kl"] > 0


def test_statistics_of_several_layers_are_renewed_together_as_recalibrate_does() -> None:
    """Fails if each norm is given the statistics of the unchanged network, which correct a shift twice."""
    model = model_of()
    table = bnprobe.ablate(model, batches(), vectors=("mean", "var")).table
    row = table[(table["level"] == "network") & (table["replacement"] == "data")].set_index("vector")
    for what in ("mean", "var"):
        effect = bnprobe.recalibrate(model, batches(), what=what).preview(batches())
        other = bnprobe.recalibrate(model, batches())  # both are estimated, one is written
        assert other.n_samples == 100
        assert row.loc[what, "after"] == effect.after
        assert row.loc[what, "kl"] == pytest.approx(effect.kl)


def test_rows_are_of_the_network_of_stages_and_of_layers() -> None:
    table = bnprobe.ablate(model_of(), batches(), vectors="bias").table
    levels = table.groupby("level", sort=False)["layer"].unique().map(list).to_dict()
    assert levels == {
        "network": [""],
        "stage": ["one", "two"],
        "layer": ["bn", "one.bn1", "one.bn2", "two.bn1", "two.bn2"],
    }


def test_a_study_of_some_layers_measures_the_same(tmp_path: object) -> None:
    """Fails if permutations depend on which other layers are studied."""
    model = model_of()
    whole = bnprobe.ablate(model, batches()).table
    some = bnprobe.ablate(model, batches(), vectors=("bias", "weight"), layers=["two.*"]).table
    keys = ["level", "layer", "vector", "replacement"]
    both = some[some["level"] == "layer"].merge(whole, on=keys)
    assert len(both) == 14
    np.testing.assert_array_equal(both["kl_x"], both["kl_y"])


def test_outputs_of_nan_are_counted_in_a_note() -> None:
    given = batches(2)
    assert not any("NaN" in note for note in bnprobe.ablate(model_of(), given, vectors="bias").notes)
    given[1][0][:3, 0] = float("nan")
    notes = bnprobe.ablate(model_of(), given, vectors="bias").notes
    assert notes[0].startswith("The outputs of 3 of 50 samples hold NaN without any replacement")


def test_the_seed_draws_another_permutation() -> None:
    model = model_of()
    first, again, other = (
        bnprobe.ablate(model, batches(), vectors="bias", layers="bn", seed=seed).table.set_index(
            "replacement"
        )["kl"]
        for seed in (0, 0, 1)
    )
    assert first.equals(again)
    assert (first == other)[["0", "mean"]].all()
    assert (first["permuted"] != other["permuted"]).all()


class Layers(nn.Module):
    """A layer norm, an RMS norm that multiplies by 1 + w, and a group norm."""

    class Gemma(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8) / 4)
            self.eps = 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return (1 + self.weight) * x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()

    class GemmaRMSNorm(Gemma):
        """The name by which it is recognized."""

    def __init__(self) -> None:
        super().__init__()
        self.ln, self.rms, self.gn = nn.LayerNorm(8), self.GemmaRMSNorm(), nn.GroupNorm(2, 8)
        for norm in (self.ln, self.gn):
            nn.init.normal_(norm.weight, 1, 0.5)
            nn.init.normal_(norm.bias)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gn(self.rms(self.ln(x))))


def test_norms_without_statistics_have_weights_and_biases_studied() -> None:
    """Fails if a weight that is stored as w for 1 + w becomes 1 instead of 0."""
    torch.manual_seed(0)
    model, x = Layers().eval(), torch.randn(40, 8)
    table = bnprobe.ablate(model, [x]).table
    layers = table[table["level"] == "layer"]
    held = {layer: set(rows["vector"]) for layer, rows in layers.groupby("layer")}
    of_tokens = {"scale", "centering"}
    assert held == {
        "ln": {"weight", "bias"} | of_tokens,
        "rms": {"weight"} | of_tokens,
        "gn": {"weight", "bias"},
    }
    other = deepcopy(model)
    other.rms.weight.data.zero_()
    same = (other(x).argmax(1) == model(x).argmax(1)).double().mean().item()
    rows = layers.set_index(["layer", "replacement"])
    assert rows.loc[("rms", "1"), "after"] == same
    gamma = 1 + model.rms.weight.data[torch.from_numpy(order("rms", "weight", 8))]
    other.rms.weight.data.copy_(gamma - 1)
    kl = nn.functional.kl_div(other(x).log_softmax(1), model(x).softmax(1), reduction="batchmean").item()
    assert rows.loc[("rms", "permuted"), "kl"] == pytest.approx(kl, rel=1e-3)


def test_a_registered_norm_has_the_vectors_that_it_describes_if_it_holds_them() -> None:
    """A vector that a module computes at each call is left out: writing into it would change nothing."""

    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_gain, self.shift = nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.layer_norm(x, (6,), self.log_gain.exp(), self.shift)

    bnprobe.register_norm(
        Gain,
        lambda m: bnprobe.NormLayer(
            kind="gain",
            pools="channels",
            channels="last",
            n_channels=6,
            eps=1e-5,
            weight=m.log_gain.exp(),
            bias=m.shift,
        ),
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), Gain(), nn.Linear(6, 3))
    table = bnprobe.ablate(model, [torch.randn(20, 6)]).table
    assert set(table["vector"]) == {"bias", "scale", "centering"}
    assert (table["agreement"] < 1).any()


def test_the_initial_checkpoint_gives_a_replacement() -> None:
    model, initial = model_of(), model_of(seed=5)
    by_model = bnprobe.ablate(model, batches(), vectors=("weight", "bias"), initial=initial).table
    by_state = bnprobe.ablate(
        model, batches(), vectors=("weight", "bias"), initial=initial.state_dict()
    ).table
    assert by_model.drop(columns="estimate").equals(by_state.drop(columns="estimate"))
    row = by_model.set_index(["layer", "vector", "replacement"]).loc[("bn", "weight", "initial")]
    other = deepcopy(model)
    other.bn.weight.data.copy_(initial.bn.weight.data)
    x = torch.cat([x for x, _ in batches()])
    assert row["agreement"] == pytest.approx(
        (other(x).argmax(1) == model(x).argmax(1)).double().mean().item()
    )


def test_what_does_not_change_is_not_run() -> None:
    """A norm as at initialization: rows of 1 and 0 change nothing, exactly."""
    model = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    runs: list[int] = []
    table = bnprobe.ablate(
        model, batches(1), vectors=("weight", "bias"), call=lambda m, b: (runs.append(1), m(b[0]))[1]
    ).table
    assert (table["difference"] == 0).all()
    assert (table["agreement"] == 1).all()
    assert (table[["low", "high", "kl"]] == 0).all(axis=None)
    assert len(runs) == 2  # to observe, and unchanged


def test_worth_is_the_loss_without_the_vector() -> None:
    model = model_of()
    right = [(x, model(x).argmax(1)) for x, _ in batches()]
    study = bnprobe.ablate(model, right)
    neutral = {"mean": "0", "var": "1", "weight": "1", "bias": "0"}
    assert len(study.worth) == 4 * 8
    table = study.table.set_index(["layer", "vector", "replacement"])
    for _, row in study.worth.iterrows():
        found = table.loc[(row["layer"], row["vector"], neutral[row["vector"]])]
        assert row["worth"] == -found["difference"]
        assert (row["low"], row["high"]) == (-found["high"], -found["low"])
    best = study.worth[study.worth["layer"].isin(study.layers)].sort_values("worth").iloc[-1]
    assert best["layer"] in study.answer
    assert f"{100 * best['worth']:.1f} points" in study.answer
    assert study.answer.endswith(".")
    assert study.answer.count(".") == study.answer.replace(". ", "").count(".")


def test_without_labels_agreement_is_measured_and_without_classes_the_output() -> None:
    model, unlabelled = model_of(), [x for x, _ in batches()]
    assert bnprobe.ablate(model, unlabelled, vectors="bias").metric == "agreement with the model as it is"
    model.head = nn.Linear(8, 1)
    study = bnprobe.ablate(model.eval(), unlabelled, vectors="bias")
    assert study.metric == "relative change of the output"
    assert (study.worth["worth"] > 0).all()
    assert study.table["agreement"].isna().all()


def confidence(output: Tensor, target: Tensor) -> Tensor:
    return output.softmax(1).gather(1, target[:, None])[:, 0]


def test_a_metric_of_the_users_is_measured() -> None:
    model = model_of()
    study = bnprobe.ablate(model, batches(), confidence, vectors="bias", layers="bn")
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    assert study.metric == "confidence"
    row = study.table.set_index(["layer", "replacement"]).loc[("bn", "0")]
    assert row["before"] == pytest.approx(confidence(model(x), y).double().mean().item(), rel=1e-5)
    assert "confidence falls from" in study.answer or "significant" in study.answer


# What stays as it was


def state(model: nn.Module) -> dict[str, object]:
    states = dict(Fingerprint.of(ModuleTree.of(model)).states)
    states["places"] = [id(t) for t in (*model.parameters(), *model.buffers())]  # type: ignore[assignment]
    states["own"] = [sorted(vars(module)) for module in model.modules()]  # type: ignore[assignment]
    states["random"] = torch.get_rng_state().tolist()  # type: ignore[assignment]
    states["gradients"] = [p.grad for p in model.parameters()]  # type: ignore[assignment]
    return states


@pytest.mark.parametrize("budget_s", [None, 30])
@pytest.mark.parametrize("training", [False, True])
def test_a_study_leaves_no_trace(training: bool, budget_s: float | None) -> None:
    model = model_of().train(training)
    before = state(model)
    bnprobe.ablate(model, batches(2), budget_s=budget_s)
    assert state(model) == before


class Counted:
    """Fails at a given call of any hook or batch, counted over the whole study."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.n, self.at, self.error = 0, at, error

    def __call__(self, *_: object) -> None:
        self.n += 1
        if self.n == self.at:
            raise self.error("planted")


def failing(error: type[BaseException], at: int, budget_s: float | None = None) -> tuple[nn.Module, Counted]:
    model, hook = model_of(), Counted(at, error)
    for module in model.modules():
        module.register_forward_hook(hook)
    before = state(model)
    with suppress(RuntimeError, KeyboardInterrupt):
        bnprobe.ablate(model, batches(2, size=5), vectors=("var", "bias"), layers="two.*", budget_s=budget_s)
    assert state(model) == before, at
    return model, hook


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("budget_s", [None, 60])
def test_a_failure_at_any_call_leaves_no_trace(error: type[BaseException], budget_s: float | None) -> None:
    """Fails if a vector, a hook or a forward method stays replaced after an exception or Ctrl-C, wherever it comes."""
    n = failing(error, -1, budget_s)[1].n
    assert n > 300
    for at in [*range(1, 12, 2), *range(60, n, 79), n]:  # while observing, estimating, renewing, measuring
        failing(error, at, budget_s)


@pytest.mark.parametrize("at", [1, 3, 7, 30, 100])
def test_a_failure_while_outputs_are_reused_leaves_no_trace(at: int) -> None:
    """Without hooks of the user's blocks are left out, by a forward of ours that must go again."""
    model, failure = model_of(), Counted(at, RuntimeError)
    model.head.forward = lambda x: (failure(), nn.functional.linear(x, model.head.weight))[1]
    before = state(model)
    with pytest.raises(RuntimeError, match="planted"):
        bnprobe.ablate(model, batches(1))
    assert state(model) == before


def test_after_ctrl_c_the_study_holds_what_was_measured() -> None:
    """Fails if samples before and after are not the same, or rows that were not measured are in the table."""
    model = model_of()
    stop = Counted(40, KeyboardInterrupt)
    study = bnprobe.ablate(model, batches(2), vectors="bias", call=lambda m, b: (stop(), m(b[0]))[1])
    assert set(study.table["n"]) == {25, 50}
    assert study.notes[0].startswith("Interrupted on sample 50 of 50")
    x, y = batches(2)[0]
    row = study.table[study.table["n"] == 25].iloc[-1]
    assert row["before"] == pytest.approx((model(x).argmax(1) == y).double().mean().item())
    stop = Counted(6, KeyboardInterrupt)
    study = bnprobe.ablate(model, batches(2), vectors="bias", call=lambda m, b: (stop(), m(b[0]))[1])
    assert len(study.table) == 1
    stop = Counted(3, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        bnprobe.ablate(model, batches(2), vectors="bias", call=lambda m, b: (stop(), m(b[0]))[1])


# Wrong uses


def study(*args: Any, **settings: Any) -> Callable[[], bnprobe.Study]:
    return lambda: bnprobe.ablate(*args, **settings)


WRONG: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "mean over samples",
        study(model_of(), batches(), lambda o, t: o.mean()),
        BnprobeError,
        r"shape \(25,\)",
    ),
    (
        "nan",
        study(model_of(), batches(), lambda o, t: o[:, 0] * np.nan),
        BnprobeError,
        "returned nan",
    ),
    ("no function", study(model_of(), batches(), 3), BnprobeError, "Pass a function"),
    (
        "generator",
        study(model_of(), iter(batches())),
        BnprobeError,
        "Pass a list or a DataLoader",
    ),
    ("no batches", study(model_of(), []), NothingRecorded, "held no samples"),
    (
        "one sample",
        study(model_of(), batches(1, 1)),
        BnprobeError,
        "Give some hundred samples",
    ),
    (
        "no norms",
        study(nn.Linear(3, 3), [torch.randn(4, 3)]),
        NoNormLayers,
        "no normalization layer",
    ),
    (
        "no such layer",
        study(model_of(), batches(), layers="tow.bn1"),
        NoNormLayers,
        "nearest are two.bn1",
    ),
    (
        "no vectors",
        study(nn.Sequential(nn.LayerNorm(10), nn.Linear(10, 3)), batches(), vectors="mean"),
        NoNormLayers,
        "holds mean. They hold weight, bias",
    ),
    (
        "unknown vector",
        study(model_of(), batches(), vectors=("gamma",)),
        BnprobeError,
        "must be of mean",
    ),
    (
        "labels missing",
        study(model_of(), [x for x, _ in batches()], confidence),
        BnprobeError,
        "target, which is None for batches",
    ),
    ("budget", study(model_of(), batches(), budget_s=-1), BnprobeError, "number of seconds"),
    ("no module", study("resnet", batches()), BnprobeError, "Pass the model itself"),
    ("initial", study(model_of(), batches(), initial="file.pt"), BnprobeError, "state dict"),
    (
        "initial of other names",
        study(model_of(), batches(), initial={"other.weight": torch.ones(3)}),
        BnprobeError,
        "bn.weight is not among other.weight",
    ),
    (
        "no such plot",
        lambda: bnprobe.ablate(model_of(), batches(), vectors="bias").plot("mean"),
        NotDefined,
        "is about bias",
    ),
    (
        "devices",
        study(nn.Sequential(nn.LayerNorm(10), nn.Linear(10, 3, device="meta")), batches()),
        BnprobeError,
        "spread over cpu, meta",
    ),
]


@pytest.mark.parametrize(
    ("wrong", "kind", "advice"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_a_wrong_use_is_one_line(wrong: Callable[[], object], kind: type[Exception], advice: str) -> None:
    with pytest.raises(kind, match=advice) as caught:
        wrong()
    assert len(str(caught.value).splitlines()) == 1


# Less work


def test_blocks_before_the_change_are_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a reused output changes any row, or if nothing is reused."""
    model = model_of()
    calls: list[str] = []
    for name in ("stem", "head"):
        layer = model.get_submodule(name)
        layer.forward = lambda x, layer=layer, name=name: (
            calls.append(name),
            nn.functional.linear(x, layer.weight, layer.bias),
        )[1]
    fast = bnprobe.ablate(model, batches()).table
    n_stem, n_head = calls.count("stem"), calls.count("head")
    assert n_stem < n_head / 2
    monkeypatch.setattr(ablating, "Prefix", lambda model, norms: Prefix(model, norms, limit_mb=0))
    calls.clear()
    whole = bnprobe.ablate(model, batches()).table
    assert calls.count("stem") == calls.count("head")
    assert fast.equals(whole)


class InPlace(nn.Module):
    """Writes into the outputs of its blocks, which a second pass must not find."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10)) for _ in range(3))
        for block in (self.a, self.b, self.c):
            nn.init.normal_(block[1].weight)
            nn.init.normal_(block[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y += 1
        return self.c(self.b(y).mul_(2))


class Drawing(InPlace):
    """Draws random numbers in eval mode, in a block."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.c(self.b(y + torch.rand(()))) + torch.rand(())


class Tied(InPlace):
    """Two norms share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a[1].weight = self.c[1].weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)))


@pytest.mark.parametrize("kind", [InPlace, Drawing, Tied])
def test_where_outputs_cannot_be_reused_everything_is_computed(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    fast = bnprobe.ablate(model, batches(2)).table
    monkeypatch.setattr(ablating, "Prefix", lambda model, norms: Prefix(model, norms, limit_mb=0))
    assert fast.equals(bnprobe.ablate(model, batches(2)).table)


# A budget


def test_with_a_budget_the_rest_is_estimated_and_marked() -> None:
    """A slow model: the first rows are measured, on all samples, and those are the ones with the largest estimates."""
    from time import sleep

    model = model_of()
    head = model.head

    def slow(x: Tensor) -> Tensor:
        sleep(0 if torch.is_grad_enabled() else 0.02)
        return nn.functional.linear(x, head.weight, head.bias)

    head.forward = slow
    study = bnprobe.ablate(model, batches(4), vectors=("weight", "bias"), budget_s=1.5)
    assert study.seconds < 4
    table = study.table
    assert 0 < table["estimated"].sum() < len(table)
    assert (
        table.loc[table["estimated"], ["after", "difference", "low", "high", "agreement", "kl"]]
        .isna()
        .all(axis=None)
    )
    assert (table.loc[table["estimated"], "n"] == 0).all()
    assert table["estimate"].notna().all()
    for _, rows in table.groupby("level"):
        n_measured = int((~rows["estimated"]).sum())
        assert not rows.sort_values("estimate", ascending=False)["estimated"].head(n_measured).any()
    assert study.n_compared == (~table["estimated"]).sum()
    assert study.n_compared < 3 or -1 <= study.rank_correlation <= 1  # few on a busy machine


@pytest.mark.parametrize("labels", [True, False])
def test_the_estimate_is_the_slope_of_the_loss(labels: bool) -> None:
    """Against a difference quotient of each sample's loss in float64; fails if slopes of opposite signs cancel."""
    from bnprobe.experiments.first_order import Estimates
    from bnprobe.experiments.held_vectors import held_norms
    from bnprobe.experiments.replacements import replaced, variants

    model = model_of().double()
    x, y = torch.cat([x for x, _ in batches()]).double(), torch.cat([y for _, y in batches()])
    norms = held_norms(model, bnprobe.record(model, [x]))
    made = [v for v in variants(norms, ("mean", "weight", "bias"), {}, lambda m: {}, 0) if v.level == "layer"]
    estimates = Estimates(norms, made, {}, 0)
    estimates.see(model, (x[:40], y[:40]) if labels else x[:40], None)
    estimates.see(model, (x[40:], y[40:]) if labels else x[40:], None)
    target = y if labels else model(x).argmax(1)
    for variant in made:
        (norm,) = variant.members
        old = norm.values[variant.vector]
        losses = []
        for t in (-1e-4, 1e-4):
            other = deepcopy(model)
            new = old + t * (replaced(norm, variant.vector, variant.replacement, {}) - old)
            tensor = getattr(other.get_submodule(norm.path), TENSORS[variant.vector])
            tensor.data.copy_(torch.from_numpy(new))
            losses.append(nn.functional.cross_entropy(other(x), target, reduction="none").detach())
        slopes = ((losses[1] - losses[0]) / 2e-4).numpy()
        size = np.sqrt(np.square(slopes).mean())
        assert estimates.sizes[variant] == pytest.approx(size, rel=1e-3, abs=1e-6), variant.replacement


def test_sums_of_windows_are_of_their_samples() -> None:
    """Fails if rows are given to other samples, or rows that belong to no sample are lost."""
    from bnprobe.experiments.first_order import per_sample

    windows = np.arange(24.0).reshape(6, 4)  # three of each of two samples
    by_hand = np.stack([windows[0] + windows[1] + windows[2], windows[3] + windows[4] + windows[5]])
    np.testing.assert_array_equal(per_sample(windows, 2), by_hand)
    np.testing.assert_array_equal(per_sample(windows, 6), windows)
    np.testing.assert_allclose(per_sample(windows, 5), np.tile(windows.sum(0) / 5, (5, 1)))


def test_wherever_time_ends_stages_and_layers_were_measured_alike() -> None:
    """Fails if a deep network's stages, whose changes are larger, leave no time for a single layer."""
    from bnprobe.experiments.replacements import Variant

    levels = ["network"] * 2 + ["stage"] * 4 + ["layer"] * 8
    made = [Variant(level, str(i), "bias", "0", ()) for i, level in enumerate(levels)]
    sizes = [0, 1, 50, 90, 70, 60, 1, 2, 3, 4, 5, 6, 7, 8]
    found = [int(v.layer) for v in ablating.in_order(made, dict(zip(made, map(float, sizes), strict=True)))]
    assert found[:2] == [1, 0]
    assert [i for i in found if 2 <= i < 6] == [3, 4, 5, 2]
    assert [i for i in found if i >= 6] == [13, 12, 11, 10, 9, 8, 7, 6]
    assert sum(i >= 6 for i in found[2:8]) == 4
    assert ablating.in_order(made, {})[0] is made[0]


def test_a_part_of_the_budget_renews_statistics_of_several_layers() -> None:
    """Fails if the time that was spent before counts too, or if there is no end to it."""
    from bnprobe.experiments.measure_variants import Deadline
    from bnprobe.experiments.renewing import Renewing
    from bnprobe.experiments.replacements import Variant

    def variant(n: int) -> Variant:
        members = tuple(SimpleNamespace(path=f"{n}{i}") for i in range(2))
        return Variant("stage", str(n), "mean", "data", members)  # type: ignore[arg-type]

    late = Deadline(100.0)
    late._began -= 90
    for took, expected, fits in ((0.0, 9.9, True), (9.9, 0.0, True), (10.1, 0.0, False), (6.0, 6.0, False)):
        renewing = Renewing(nn.Identity(), [], None, expected=expected, took=took)
        renewing._renewed = lambda members: {}  # type: ignore[method-assign]
        assert renewing.ready(variant(0), late) == fits, (took, expected)
        renewing.found[("10", "11")] = {}
        assert renewing.ready(variant(1), late), "is known already"


def test_norms_of_unequal_depth_have_no_stage_beyond_the_shortest_path() -> None:
    """Fails if parts of paths are compared that a path does not have."""
    from bnprobe.experiments.replacements import stages

    paths = ["body.norm", "body.norm.a", "body.norm.b"]
    assert stages([SimpleNamespace(path=path) for path in paths]) == {}


def test_a_variant_takes_the_part_of_the_pass_after_the_blocks_before_it() -> None:
    """Fails if the share is that before the variant, or depends on how long the whole pass takes."""
    for unit in (1.0, 10.0):
        timed = SimpleNamespace(_times=[7, 7 + unit, 7 + 3 * unit, 7 + 4 * unit], start=lambda _: 2)
        assert Prefix.share(timed, None) == 0.25  # type: ignore[arg-type]


def test_the_batches_that_were_observed_are_counted() -> None:
    """Fails if a study says another number of batches than it used."""
    assert ablating._observed(model_of(), batches(), None)[1] == len(batches())
