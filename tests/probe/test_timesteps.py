"""What norms meet by timestep, against loops over what small models kept themselves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.diffusion import EPS, WAYS, C, DiT, G, Met, UNet, embedded
from torch import Tensor, nn

import bnprobe
from bnprobe.graph.modulation import Modulation
from bnprobe.probe.timesteps import LayerSums, TimestepArgument, Timesteps
from bnprobe.stats.timesteps import Grid

SIZES = (4, 3, 6)


def seeded(model: nn.Module, sd: float = 0.4) -> Any:
    """In float64, with weights that make modulations of every size."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.double().parameters():
        nn.init.normal_(parameter, std=sd, generator=generator)
    return model.eval()


def batches(model: nn.Module, sizes: Sequence[int] = SIZES, top: float = 1000) -> list[tuple[Tensor, Tensor]]:
    """Inputs, and a timestep or a noise level for each sample."""
    torch.manual_seed(1)
    if isinstance(model, UNet):
        return [(torch.randn(n, 2, 4, 4).double(), 2 ** (torch.randn(n).double() * 3)) for n in sizes]
    return [(torch.randn(n, 7, 5).double(), torch.rand(n).double() * top) for n in sizes]


def recorded(model: nn.Module, given: Sequence[tuple[Tensor, Any]], **options: Any) -> bnprobe.Recording:
    with bnprobe.attach(model, **options) as probe, torch.no_grad():
        for x, t in given:
            model(x, t)
    return probe.recording


def deviation(x: Tensor) -> tuple[float, float]:
    """Mean of a sample's values, and the log of what they are divided by: of all values in a group, or by token."""
    flat = x.reshape(len(x), -1)
    return float(flat.mean()), float(0.5 * (flat.var(1, correction=0) + EPS).log().mean())


def expected(met: Sequence[Met], table: pd.DataFrame, groups: int, logarithmic: bool = False) -> pd.DataFrame:
    """The table by loops over samples, for the buckets that it has."""
    values: dict[Any, list[float]] = defaultdict(list)
    for one in met:
        for i, t in enumerate(one.t.tolist()):
            lows = table["low"][(table["low"] <= t) & (t < table["high"])].unique()
            assert len(lows) == 1
            for g in range(groups):
                key, channels = (one.norm, float(lows[0]), g), slice(g * C // groups, (g + 1) * C // groups)
                x = one.x[i] if groups == 1 else one.x[i, channels].reshape(1, -1)
                mean, log = deviation(x)
                values[*key, "timestep"].append(math.log2(t) if logarithmic else t)
                values[*key, "group_mean"].append(mean)
                values[*key, "group_sd"].append(log)
                for part, of_samples in one.parts.items():
                    values[*key, part] += of_samples[i, channels].tolist()
    rows = []
    for layer, low, g in dict.fromkeys(key[:3] for key in values):
        own = {name: np.array(values[layer, low, g, name]) for name in ("timestep", "group_mean", "group_sd")}
        row: dict[str, Any] = {"layer": layer, "low": low, "group": g, "n_samples": len(own["group_mean"])}
        mean = own["timestep"].mean()
        row |= {"timestep": 2**mean if logarithmic else mean}
        row |= {"group_mean": own["group_mean"].mean(), "group_mean_sd": own["group_mean"].std()}
        row |= {"group_sd": math.exp(own["group_sd"].mean()), "group_log_sd": own["group_sd"].std()}
        for part in ("scale", "shift", "gate"):
            known = np.array(values.get((layer, low, g, part), [math.nan]))
            row |= {part: known.mean(), f"{part}_sd": known.std()}
        rows.append(row)
    return pd.DataFrame(rows)


def agrees(found: pd.DataFrame, wanted: pd.DataFrame, rtol: float = 1e-9) -> None:
    keys = ["layer", "low", "group"]
    found, wanted = (one.sort_values(keys, ignore_index=True) for one in (found, wanted))
    pd.testing.assert_frame_equal(found[wanted.columns], wanted, check_dtype=False, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("fused", [False, True], ids=["in steps", "addcmul"])
@pytest.mark.parametrize("way", WAYS)
def test_a_diffusion_transformer(way: str, fused: bool):
    """Fails if a part is taken for another, a constant is forgotten, or the first pass is read otherwise than later ones."""
    model = seeded(DiT(way, fused))
    table = bnprobe.report(recorded(model, batches(model))).timesteps
    agrees(table, expected(model.met, table, 1), 1e-7 if way == "cast" else 1e-9)
    assert table["gate"].notna().all()


@pytest.mark.parametrize("how", ["inference", "grad", "checkpointed", "once for all samples"])
def test_ways_to_run_it(how: str):
    """Fails if operations that arrive whole are not followed, what runs again counts twice, or one row is a sample."""
    model = seeded(DiT(checkpointed=how == "checkpointed", once=how.startswith("once")))
    with bnprobe.attach(model) as probe:
        for x, t in batches(model):
            if how == "inference":
                with torch.inference_mode():
                    model(x, t)
            elif how.startswith("once"):
                with torch.no_grad():
                    model(x, t[:1])
            else:
                n = len(model.met)
                model(x, t).square().sum().backward()
                del model.met[n + 4 :]  # what the model kept when it was run again
    table = bnprobe.report(probe).timesteps
    agrees(table, expected(model.met, table, 1))


@pytest.mark.parametrize("scaled", [True, False])
def test_group_norms_of_a_unet(scaled: bool):
    """Fails if groups are mixed, eps is forgotten, noise levels are not taken by their log, or norms without modulation
    are given one."""
    model = seeded(UNet(scaled))
    found = recorded(model, batches(model))
    table = bnprobe.report(found).timesteps
    agrees(table, expected(model.met, table, G, logarithmic=True))
    assert set(table["layer"][table["scale"].notna()]) == ({"norm2"} if scaled else set())


@pytest.mark.parametrize("make", [DiT, UNet])
def test_parts_add_up_in_any_order(make: Any, tmp_path):
    """Fails if buckets depend on the order of parts, or a file loses what was kept."""
    model = seeded(make())
    given = batches(model, (2, 5, 3, 4))
    whole = bnprobe.report(recorded(model, given)).timesteps
    parts = [recorded(model, [one]) for one in given]
    parts[0] = bnprobe.load(parts[0].save(tmp_path / "first.bnp"))
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        merged = parts[order[0]]
        for i in order[1:]:
            merged = merged.merge(parts[i])
        table = bnprobe.report(merged.check_sane()).timesteps
        pd.testing.assert_frame_equal(table, whole, rtol=1e-9, atol=1e-7)


def test_parts_by_other_arguments_do_not_add_up():
    """Fails if noise levels are added to timesteps."""

    class ByLevel(DiT):
        def forward(self, x: Tensor, sigma: Any) -> Tensor:
            return super().forward(x, sigma)

    first, second = seeded(DiT()), seeded(ByLevel())
    given = batches(first)
    with pytest.raises(bnprobe.CannotMerge, match="'t' in one part and as 'sigma'"):
        recorded(first, given).merge(recorded(second, given))


def test_the_sums_of_a_pass_count_once_it_has_ended():
    """Fails if a pass that raised, or was skipped, counts for the layers that modulate."""
    model = seeded(DiT())
    given = batches(model)
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(*given[0])
        handle = model.out.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(*given[1])
        handle.remove()
        model(*given[2])
    kept = [one for one in model.met if len(one.t) != SIZES[1]]
    table = bnprobe.report(probe).timesteps
    agrees(table, expected(kept, table, 1))
    model.met.clear()
    table = bnprobe.report(recorded(model, given, every=2)).timesteps
    agrees(table, expected([one for one in model.met if len(one.t) != SIZES[1]], table, 1))


def test_each_phase_has_its_own():
    """Fails if what a layer makes in one phase is added to the norms of another."""
    model = seeded(DiT())
    given = batches(model)
    with bnprobe.attach(model) as probe, torch.no_grad():
        for name, one in zip(("a", "b", "a"), given, strict=True):
            with probe.phase(name):
                model(*one)
    for name, sizes in (("a", (SIZES[0], SIZES[2])), ("b", SIZES[1:2])):
        table = bnprobe.report(probe).phases[name].timesteps
        agrees(table, expected([one for one in model.met if len(one.t) in sizes], table, 1))


def test_modulations_that_are_changed_in_place_are_read_as_they_were_made():
    """Fails if a layer's output is read after the model has added 1 to a part of it."""

    class InPlace(DiT):
        def forward(self, x: Tensor, t: Any) -> Tensor:
            for block in self.blocks:
                block.way = lambda made: (lambda parts: (parts[0], parts[1].add_(1), *parts[2:]))(
                    made.chunk(6, -1)
                )
            return super().forward(x, t)

    model = seeded(InPlace())
    table = bnprobe.report(recorded(model, batches(model))).timesteps
    agrees(table, expected(model.met, table, 1))


class WithTable(DiT):
    """As PixArt: one layer for all blocks, and a table of parameters in each."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(8, 6 * C)
        for block in self.blocks:
            block.modulation = nn.Identity()
            block.table = nn.Parameter(torch.zeros(6, C))
            block.way = lambda made, table=block.table: (
                table[None] + self.shared(made).reshape(-1, 6, C)
            ).unbind(1)


class Nested(nn.Module):
    """A branch of two norms that one layer modulates, without a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.within, self.modulation = nn.Linear(5, C), nn.Linear(C, C), nn.Linear(8, 4 * C)
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, b, c, d = self.modulation(embedded(t))[:, None].chunk(4, -1)
        x = self.enter(x)
        return x + self.within(self.norm2(self.within(self.norm1(x) * (1 + a) + b)) * (1 + c) + d)


def test_a_branch_without_a_gate():
    """Fails if the scale of the second norm passes for the gate of the first."""
    model = seeded(Nested())
    table = bnprobe.report(recorded(model, batches(model))).timesteps
    assert table["scale"].notna().all()
    assert table["gate"].isna().all()


def test_a_table_of_parameters_is_part_of_the_modulation():
    """Fails if the parameters are forgotten, or one layer's calls are mixed; and if a table that was trained meanwhile, so
    that no constant stands for it, is taken for what it was at first."""
    model = seeded(WithTable())
    given = batches(model)
    table = bnprobe.report(recorded(model, given)).timesteps
    agrees(table, expected(model.met, table, 1))
    assert table["scale"].notna().all()
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(*given[0])
        model.blocks[1].table += 1
        model(*given[1])
    table = bnprobe.report(probe).timesteps
    known = table.groupby("layer")["scale"].count() > 0
    assert known.to_dict() == {f"blocks.{i}.norm{k}": not i for i in (0, 1) for k in (1, 2)}


WRONG: dict[str, Any] = {
    "two parts": lambda made, own: made[:, :C] + made[:, C : 2 * C],
    "of other samples": lambda made, own: made[:, :C].transpose(0, 1).reshape(-1, C),
    "other in each sample": lambda made, own: made[:, :C] + own,
}


class Odd(nn.Module):
    """A norm that is scaled by what is not one entry of a layer's output for each channel."""

    def __init__(self, scale: Any) -> None:
        super().__init__()
        self.scale, self.enter, self.norm, self.made = (
            scale,
            nn.Linear(5, C),
            nn.LayerNorm(C),
            nn.Linear(8, 2 * C),
        )
        self.own = nn.Parameter(torch.zeros(SIZES[0], C))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y: Tensor = self.norm(self.enter(x)) * self.scale(self.made(embedded(t)), self.own)[:, None]
        return y


@pytest.mark.parametrize("scale", WRONG.values(), ids=WRONG)
def test_what_no_layer_makes_as_it_is_has_no_numbers(scale: Any):
    """Fails if part of a sum, or what is made of another sample, passes for the scale."""
    model = seeded(Odd(scale))
    assert bnprobe.report(recorded(model, batches(model, SIZES[:1] * 2))).timesteps["scale"].isna().all()
    model = seeded(Odd(lambda made, own: made[:, :C]))
    assert bnprobe.report(recorded(model, batches(model))).timesteps["scale"].notna().all()


class Shared(DiT):
    """One layer that each block calls with a condition of its own; the last block is for late timesteps alone."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(8, 6 * C)
        for i, block in enumerate(self.blocks):
            block.modulation = nn.Identity()
            block.way = lambda made, i=i: shared((i + 1) * made).chunk(6, -1)
        self.shared = shared

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        c = embedded(t)
        x = self.blocks[0](self.embed(x), c, t)
        if float(t.min()) > 500:
            x = self.blocks[1](x, c, t)
        else:
            self.blocks[1].way(c)
        return self.out(x)


def test_one_layer_for_several_blocks():
    """Fails if calls of one layer are mixed, or one that is called in more passes than the norm ends the recording."""
    model = seeded(Shared())
    x = torch.randn(4, 7, 5).double()
    late, early = 600 + torch.rand(4).double() * 300, torch.rand(4).double() * 100
    table = bnprobe.report(recorded(model, [(x, late), (x, late + 50)])).timesteps
    agrees(table, expected(model.met, table, 1))
    table = bnprobe.report(recorded(model, [(x, late), (x, early)])).timesteps
    seen = table.groupby("layer")["n_samples"].sum()
    assert seen.to_dict() == {f"blocks.{i}.norm{k}": 8 - 4 * i for i in (0, 1) for k in (1, 2)}


def test_rows_that_belong_to_no_sample_are_left_out():
    """Fails if what a layer makes of each token is added up as if it were of each sample."""
    at, sums = Timesteps("t", np.array([1.0, 2.0])), LayerSums(3)
    for rows in (2, 1, 4, 0):
        sums.add(at, torch.ones(rows, 3))
    sums.add(at, torch.ones(7))
    assert sums.grid is not None
    assert sums.grid.n == Grid.of(np.array([1.0, 2.0])).n
    part = Modulation(("layer", 0), 3, np.arange(3), 1.0, np.zeros(3), (), ())
    found = sums.of(part, sums.grid, 1)
    assert found is not None
    assert found[0].sum() == 4


def test_a_model_is_left_as_it_was():
    """Fails if a hook on a layer that modulates stays, or a model without timesteps gets one."""
    model = seeded(DiT())
    with bnprobe.attach(model) as probe, torch.no_grad():
        x, t = batches(model)[0]
        model(x, t)
        assert len(model.blocks[0].modulation[1]._forward_hooks) == 1
        assert not model.blocks[0].qkv._forward_hooks
        model(x, t)
    assert not any(module._forward_hooks for module in model.modules())
    assert not [
        change.what
        for change in probe.recording.integrity.unexplained
        if change.what != "random state (torch)"
    ]
    plain = nn.Sequential(nn.Linear(5, C), nn.LayerNorm(C))
    report = bnprobe.report(bnprobe.record(plain, [torch.randn(4, 5)]))
    assert report.timesteps.empty
    assert report.recording.layers[0].timesteps is None


def test_a_timestep_that_is_not_finite_belongs_to_no_bucket():
    """Fails if a sample without a timestep counts, or takes those beside it along."""
    model = seeded(DiT())
    (x, t), *_ = batches(model)
    t[1] = math.nan
    table = bnprobe.report(recorded(model, [(x, t)])).timesteps
    left = [0, 2, 3]
    met = [
        Met(one.norm, one.t[left], one.x[left], {k: v[left] for k, v in one.parts.items()})
        for one in model.met
    ]
    agrees(table, expected(met, table, 1))


class Named(nn.Module):
    def forward(self, x: Tensor, timestep: Any = None, t: Any = None) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (7, [7, 7, 7]),
        (0.5, [0.5, 0.5, 0.5]),
        (torch.tensor(3), [3, 3, 3]),
        (torch.tensor([3.5]), [3.5, 3.5, 3.5]),
        (torch.tensor([1, 2, 3]), [1, 2, 3]),
        (torch.tensor([1.0, 2, 3]).reshape(3, 1, 1), [1, 2, 3]),
        (torch.tensor([[1.0, 2, 3]]), None),
        (torch.zeros(3, 5), None),
        (torch.zeros(2), None),
        (torch.zeros(3, dtype=torch.bool), None),
        (torch.zeros(3, dtype=torch.complex64), None),
        (torch.zeros(3, device="meta"), None),
        (torch.full((3,), math.inf), None),
        (True, None),
        (None, None),
        ("3", None),
    ],
)
def test_what_is_a_timestep(given: Any, values: list[float] | None):
    """Fails if one timestep for all samples is none, or what has another number than samples is one for each."""
    argument = TimestepArgument.of_model(Named())
    assert argument is not None
    x = torch.zeros(3, 2)
    for found in (argument.of_call((x, given), {}, 3), argument.of_call((x,), {"timestep": given}, 3)):
        assert (None if found is None else found.values.tolist()) == values
    assert argument.of_call((x,), {"t": given}, 3) is None  # the first of the names that a model has


def test_models_without_such_an_argument():
    """Fails if a probe asks a model for what it does not take."""
    assert TimestepArgument.of_model(nn.Linear(2, 2)) is None
    assert Timesteps("sigma", np.array([0.0, 4.0])).values.tolist() == [2.0]


def test_buckets_are_the_narrowest_that_hold_all():
    """Fails if the width is no power of 2, a border belongs to both sides, or more buckets are made than there may be."""
    rng = np.random.default_rng(0)
    for low, high in ((0, 999), (0, 1), (-3.5, 6.2), (500, 500), (0, 1e9), (1e-3, 2e-3)):
        values = np.concatenate([[low, high], rng.uniform(low, high, 50)])
        grid = Grid.of(values)
        width = 2.0**grid.exponent
        numbers = np.floor(values / width)
        assert numbers.max() - numbers.min() < 20
        halved = np.floor(values / width * 2)
        assert halved.max() - halved.min() >= 20 or grid.exponent == -20
        np.testing.assert_array_equal(grid.places(values), numbers - numbers.min())
        np.testing.assert_array_equal(grid.edges[grid.places(values)], numbers * width)
    assert Grid.of(np.array([0.0, 999.0])).n == 16
    assert Grid.of(np.array([0.0, 1.0])).n == 17
