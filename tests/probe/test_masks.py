"""Masks: padded positions are left out of every statistic, whatever the layout, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe import BadMask, BnprobeError, Recording
from bnprobe.probe.masks import Mask
from bnprobe.reductions import Affine, PerSample, ReadRequest, Share, Valid, count_valid, read, read_valid

N, C, T = 4, 6, 7
LENGTHS = (5, 3, 7, 1)
MASK = torch.arange(T)[None] < torch.tensor(LENGTHS)[:, None]
SAME = (
    "pre",
    "pre_images",
    "pre_histogram",
    "post",
    "post_histogram",
    "own_mean",
    "own_log_var",
    "n_positive",
)


class Swapped(nn.Module):
    """A norm with its channels in dimension 1, on (N, T, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class Encoder(nn.Module):
    """Takes what a tokenizer gives, under the names that Hugging Face uses."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(C)

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        assert attention_mask is None or attention_mask.shape[0] == len(inputs)
        return self.norm(inputs)


NORMS = {
    "layer norm": lambda: nn.LayerNorm(C),
    "rms norm": lambda: nn.RMSNorm(C),
    "batch norm": lambda: Swapped(nn.BatchNorm1d(C)),
    "group norm": lambda: Swapped(nn.GroupNorm(2, C)),
    "instance norm": lambda: Swapped(nn.InstanceNorm1d(C)),
}


@pytest.fixture
def x() -> Tensor:
    """Skewed values, far from 0 in one channel; padding is larger than all of them."""
    rng = np.random.default_rng(3)
    values = rng.gamma(0.7, size=(N, T, C)) * [1, 10, 0.1, 1, 1, 3] + [0, 5, -2, 1000, 0, 1]
    return torch.tensor(np.where(MASK[..., None], values, 1e4 + values))


def model_of(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(NORMS[name]()).double().eval()
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0)
    return model


def padded(model: nn.Module, x: Tensor, mask: Any = MASK) -> Recording:
    with bnprobe.attach(model) as probe, torch.no_grad(), probe.mask(mask):
        model(x)
    return probe.recording


def one_by_one(model: nn.Module, x: Tensor) -> Recording:
    with bnprobe.attach(model) as probe, torch.no_grad():
        for row, n in zip(x, LENGTHS, strict=True):
            model(row[None, :n])
    return probe.recording


def assert_alike(found: Any, wanted: Any, rtol: float = 1e-9) -> None:
    """Statistics of one sort, to rounding; None where both are."""
    if wanted is None or isinstance(wanted, np.ndarray):
        assert (found is None) == (wanted is None)
        np.testing.assert_allclose(
            found if wanted is not None else 0, wanted if wanted is not None else 0, rtol=rtol, atol=1e-7
        )
        return
    for name, value in vars(wanted).items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=rtol, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["layer norm", "rms norm", "batch norm"])
def test_a_padded_batch_is_the_sequences_one_by_one(name, x):
    """Fails if padding counts in a moment, a histogram, the spread between sequences, or the statistics of tokens."""
    model = model_of(name)
    (found,), (wanted,) = padded(model, x).layers, one_by_one(model, x).layers
    for part in SAME:
        if part == "pre_images" or "histogram" in part:
            continue
        assert_alike(getattr(found, part), getattr(wanted, part))
    assert_alike(found.pre_images.about(wanted.pre_images.origin), wanted.pre_images, 1e-7)
    assert found.n_images == N
    assert found.n_masked == N * T - sum(LENGTHS)
    for histogram in (found.pre_histogram, found.post_histogram):
        assert histogram.counts.sum(axis=(0, 2)).tolist() == [sum(LENGTHS)] * C


@pytest.mark.parametrize("name", ["group norm", "instance norm"])
def test_what_a_norm_computes_over_positions_stays_what_it_computed(name, x):
    """Fails if a norm that sees padding is told as if it did not, or its input with padding."""
    model = model_of(name)
    record = padded(model, x).layers[0]
    values = x[MASK].numpy()
    np.testing.assert_allclose(record.pre.mean, values.mean(0), rtol=1e-9)
    np.testing.assert_allclose(record.pre.var_population, values.var(0), rtol=1e-9)
    with torch.no_grad():
        y = model(x)[MASK].numpy()
    np.testing.assert_allclose(record.post.mean, y.mean(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(record.post.var_population, y.var(0), rtol=1e-6, atol=1e-12)
    groups = x.numpy().reshape(N, T, -1, 3 if name == "group norm" else 1)
    np.testing.assert_allclose(record.own_mean.mean, groups.mean((1, 3)).mean(0), rtol=1e-9)
    assert record.mismatch < 1e-9


def test_a_batch_norm_in_train_mode_normalizes_with_padding_and_is_told_without(x):
    """Fails if the output of a training batch norm follows from statistics that it did not use."""
    model = model_of("batch norm").train()
    recording = padded(model, x)
    record = recording.layers[0]
    batch, gamma, beta = x.numpy().reshape(-1, C), record.gamma, record.beta
    y = (x[MASK].numpy() - batch.mean(0)) / np.sqrt(batch.var(0) + record.eps) * gamma + beta
    np.testing.assert_allclose(record.pre.mean, x[MASK].numpy().mean(0), rtol=1e-9)
    np.testing.assert_allclose(record.post.mean, y.mean(0), rtol=1e-7)
    assert record.call_log.fewest_values == N * T
    assert any(
        note.startswith("Padding counts in the statistics that normalize in 0.norm")
        for note in recording.about.notes
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32, torch.float16])
def test_forms_of_a_mask(dtype, x):
    """Fails if a form that models are called with is refused, or means something else."""
    wanted = padded(model_of("layer norm"), x).layers[0].pre
    for form in (MASK.to(dtype), MASK.to(dtype).float().numpy(), MASK.int().tolist(), MASK.numpy()):
        assert_alike(padded(model_of("layer norm"), x, form).layers[0].pre, wanted)


@pytest.mark.parametrize(
    ("places", "shape", "found"),
    [
        ((4, 7), (4, 7), True),
        ((4, 7, 3), (4, 7), True),
        ((4, 3, 7), (4, 7), True),
        ((4, 7, 7), (4, 7), False),
        ((4, 8), (4, 7), False),
        ((4,), (4, 7), False),
        ((28,), (4, 7), True),
        ((28,), (4, 7, 1), False),
        ((29,), (4, 7), False),
        ((4, 5, 7), (4, 5, 7), True),
        ((4, 7, 5), (4, 5, 7), False),
        ((4, 5, 7), (4, 1, 5, 7), True),
        ((4, 5, 7), (4,), True),
        ((4, 1, 7), (4, 7), True),
        ((2, 7), (4, 7), False),
    ],
    ids=str,
)
def test_where_a_mask_has_its_place(places, shape, found):
    """Fails if positions are masked that are not provably those of the mask, or a clear place is not seen."""
    rng = np.random.default_rng(0)
    given = rng.random(shape) > 0.4
    norm = bnprobe.NormLayer(kind="norm", pools="channels", n_channels=2, eps=1e-5, channels="last")
    placed, valid = Mask(given).on(norm, torch.zeros(*places, 2))
    assert placed is found
    if not found:
        assert valid is None
        return
    squeezed = given.reshape([n for n in shape if n != 1] if places != (28,) else 28)
    spread = {(4, 7, 3): squeezed[..., None] if squeezed.ndim == 2 else 0, (4, 3, 7): squeezed[:, None]}.get(
        places, squeezed
    )
    while spread.ndim < len(places):
        spread = spread[..., None] if places != (4, 1, 7) else spread[:, None]
    np.testing.assert_array_equal(valid.mask, np.broadcast_to(spread, places).reshape(places[0], -1))


def test_tokens_in_a_row_are_masked_as_those_of_sequences(x):
    """Fails if padding counts in norms of tokens that were reshaped to (N * T, C), as in OPT, or others are left out."""

    class InARow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(C)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x.reshape(-1, C)).reshape(x.shape)

    recording = padded(InARow().double(), x)
    (found,), (wanted,) = recording.layers, padded(Encoder().double(), x).layers
    assert (found.n_masked, recording.about.notes) == (N * T - sum(LENGTHS), ())
    assert_alike(found.pre, wanted.pre)
    assert_alike(found.post, wanted.post)
    assert found.tokens.n_tokens == wanted.tokens.n_tokens == sum(LENGTHS)
    np.testing.assert_allclose(found.tokens.z_square, wanted.tokens.z_square, rtol=1e-12)


def test_a_norm_without_the_positions_is_recorded_whole_with_a_note(x):
    """Fails if a pooled norm is masked by chance, or nobody says that it was not."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.head = nn.LayerNorm(C), nn.LayerNorm(C)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.tokens(x).mean(1))

    recording = padded(Pooled().double(), x)
    tokens, head = recording.layers
    assert (tokens.pre.n[0], head.pre.n[0], head.n_masked) == (sum(LENGTHS), N, 0)
    (note,) = recording.about.notes
    assert note.startswith(
        "Inputs without the positions of the mask, or the tokens of the sequences, were recorded whole"
    )
    assert "(head: (4, 6))" in note


@pytest.mark.parametrize(("kept", "told"), [(0, True), (1, False)])
def test_a_mask_that_fits_no_norm_is_named(x, kept, told):
    """Fails if padding is recorded everywhere, because the mask is that of other positions, and nobody says so."""
    mask = torch.full((N, T + 2), bool(kept))
    mask[:, 0] = True
    with bnprobe.attach(model := model_of("layer norm")) as probe, torch.no_grad(), probe.mask(mask):
        model(x)
    notes = probe.recording.about.notes
    said = f"No norm has the positions of a mask of shape ({N}, {T + 2})"
    assert [note.startswith(said) for note in notes[:1]] == [True] * told
    assert probe.recording.layers[0].pre.n[0] == N * T


def test_the_mask_that_is_named_is_one_with_padding(x):
    """Fails if a mask that leaves nothing out, which does no harm, is named in place of a later one that does."""
    with bnprobe.attach(model := model_of("layer norm")) as probe, torch.no_grad():
        for size, kept in ((T + 2, True), (T + 3, False)):
            mask = torch.full((N, size), kept)
            mask[:, 0] = True
            with probe.mask(mask):
                model(x)
    assert probe.recording.about.notes[0].startswith(
        f"No norm has the positions of a mask of shape ({N}, {T + 3})"
    )


def test_images(x):
    """Fails if the mask of images is not laid over rows in their order."""
    rng = np.random.default_rng(1)
    image, mask = torch.tensor(rng.normal(size=(3, 2, 5, 7))), rng.random((3, 5, 7)) > 0.3
    record = padded(nn.Sequential(nn.BatchNorm2d(2)).double().eval(), image, mask).layers[0]
    values = np.moveaxis(image.numpy(), 1, -1)[mask]
    np.testing.assert_allclose(record.pre.mean, values.mean(0), rtol=1e-9)
    np.testing.assert_allclose(record.pre.m4, ((values - values.mean(0)) ** 4).sum(0), rtol=1e-6)
    assert record.pre.n.tolist() == [mask.sum()] * 2


def test_gradients_are_those_of_valid_positions(x):
    """Fails if gradients at padding count, by moments, energy, or an identity that holds for whole batches only."""
    for name in NORMS:
        model = model_of(name)
        inputs = x.clone().requires_grad_()
        weights = torch.tensor(np.random.default_rng(2).normal(size=(N, T, C)))
        with bnprobe.attach(model) as probe, probe.mask(MASK):
            (model(inputs) * weights).sum().backward()
        gradient = probe.recording.layers[0].gradient
        dy, dx = weights[MASK].numpy(), inputs.grad[MASK].numpy()
        np.testing.assert_allclose(gradient.dy.mean, dy.mean(0), rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(gradient.dx.mean, dx.mean(0), rtol=1e-6, atol=1e-12, err_msg=name)
        assert gradient.dx.n.tolist() == [sum(LENGTHS)] * C


def test_energy_of_a_layer_norm_is_that_of_valid_positions(x):
    """Fails if the energy that dx is compared with holds padding, which would hide how much the norm removes."""
    inputs, model = x.clone().requires_grad_(), model_of("layer norm")
    with bnprobe.attach(model) as probe, probe.mask(MASK):
        (model(inputs) * x.flip(0)).sum().backward()
    values, dy = x[MASK].numpy(), x.flip(0)[MASK].numpy()
    scale = model[0].weight.detach().numpy() / np.sqrt(values.var(1, keepdims=True) + model[0].eps)
    np.testing.assert_allclose(
        probe.recording.layers[0].gradient.energy, ((dy * scale) ** 2).sum(0), rtol=1e-6
    )


def test_labels_with_a_mask(x):
    """Fails if the mean of a sequence, which classes are made of, has its padding in it."""
    model = model_of("layer norm")
    with bnprobe.attach(model) as probe, torch.no_grad(), probe.mask(MASK), probe.labels([1, 0, 1, 0]):
        model(x)
    means = np.stack([row[:n].numpy().mean(0) for row, n in zip(x, LENGTHS, strict=True)])
    found = probe.recording.layers[0].classes
    np.testing.assert_allclose(found.mean, [means[[1, 3]].mean(0), means[[0, 2]].mean(0)], rtol=1e-9)


def test_a_checkpointed_part_is_masked_when_it_runs_again(x):
    """Fails if the gradients of a part that is recomputed are recorded with padding, outside the block of the mask."""
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(C)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.norm, x, use_reentrant=True)

    model = Checkpointed().double()
    with bnprobe.attach(model) as probe:
        with probe.mask(MASK):
            y = model(x.requires_grad_())
        y.square().sum().backward()
    assert probe.recording.layers[0].gradient.dy.n.tolist() == [sum(LENGTHS)] * C


def test_the_mask_ends_with_its_block_and_an_inner_one_replaces_it(x):
    """Fails if a mask stays for the next pass, or an outer one is lost."""
    model = model_of("layer norm")
    whole = torch.ones_like(MASK)
    with bnprobe.attach(model) as probe, torch.no_grad():
        with probe.mask(MASK):
            model(x)
            with probe.mask(whole):
                model(x)
            model(x)
        model(x)
    record, about = probe.recording.layers[0], probe.recording.about
    assert record.pre.n[0] == 2 * sum(LENGTHS) + 2 * N * T
    assert (about.n_images, about.n_positions, about.n_masked) == (
        4 * N,
        2 * sum(LENGTHS) + N * T,
        2 * (N * T - sum(LENGTHS)),
    )
    both = probe.recording.merge(probe.recording)
    assert (both.layers[0].n_masked, both.about.n_masked) == (2 * record.n_masked, 2 * about.n_masked)


# The argument of the model


@pytest.mark.parametrize("positional", [True, False])
def test_the_mask_is_read_from_an_argument(positional, x):
    """Fails if the argument is not found where it is passed, or a call without one is masked."""
    model = Encoder().double()
    with bnprobe.attach(model, mask="attention_mask") as probe, torch.no_grad():
        model(x, MASK.long()) if positional else model(x, attention_mask=MASK.long())
        model(x)
        with probe.mask(torch.ones(N)):
            model(x, attention_mask=MASK)
    recording = probe.recording
    assert recording.layers[0].pre.n[0] == sum(LENGTHS) + 2 * N * T
    assert [
        note for note in recording.about.notes if "without the mask that was asked for in 1 pass:" in note
    ]


def test_record_takes_the_name_too(x):
    """Fails if the option of `attach` does not reach the loop of `record`."""
    recording = bnprobe.record(
        Encoder().double(), [{"inputs": x, "attention_mask": MASK}], mask="attention_mask"
    )
    assert recording.layers[0].n_masked == N * T - sum(LENGTHS)


def test_a_mask_that_is_true_for_padding(x):
    """Fails if torch's own masks, which mark padding, keep it and leave the rest out."""
    layer = nn.TransformerEncoderLayer(C, 2, 8, batch_first=True, dropout=0.0).double()
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).train()
    with pytest.raises(BnprobeError, match=r"pass mask='~src_key_padding_mask'"):
        bnprobe.attach(model, mask="src_key_padding_mask")
    with bnprobe.attach(model, mask="~src_key_padding_mask") as probe, torch.no_grad():
        model(x, src_key_padding_mask=~MASK)
        model(x, src_key_padding_mask=torch.zeros_like(MASK))
    assert {record.pre.n[0] for record in probe.recording.layers} == {sum(LENGTHS) + N * T}


def test_a_padded_transformer_is_its_sequences_one_by_one(x):
    """Fails if any norm behind attention, which leaves padding out by itself, is not what it is without padding."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(C, 2, 8, batch_first=True, dropout=0.0, norm_first=True).double()
    model = nn.TransformerEncoder(layer, 2, nn.LayerNorm(C).double(), enable_nested_tensor=False).train()
    with bnprobe.attach(model, mask="~src_key_padding_mask") as probe, torch.no_grad():
        model(x, src_key_padding_mask=~MASK)
    wanted = one_by_one(model, x)
    assert len(probe.recording.layers) == len(wanted.layers) == 5
    for found, alone in zip(probe.recording.layers, wanted.layers, strict=True):
        assert found.site == alone.site
        for part in ("pre", "post", "own_mean", "own_log_var"):
            assert_alike(getattr(found, part), getattr(alone, part), 1e-6)
        assert_alike(found.pre_images.about(alone.pre_images.origin), alone.pre_images, 1e-6)


@pytest.mark.parametrize("name", ["Llama", "Bert", "GPT2", "OPT"])
def test_a_padded_hugging_face_model_is_its_sequences_one_by_one(name):
    """Fails if the mask is not found where the library passes it, or padding counts in any norm of a real model."""
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, f"{name}Config")(**small, intermediate_size=32, use_cache=False)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config).double().eval()
    ids, lengths = torch.randint(1, 50, (3, 7)), (4, 7, 2)
    mask = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    with bnprobe.attach(model, mask="attention_mask") as probe, torch.no_grad():
        model(input_ids=ids, attention_mask=mask.long())
    with bnprobe.attach(model) as alone, torch.no_grad():
        for row, n in zip(ids, lengths, strict=True):
            model(input_ids=row[None, :n], attention_mask=torch.ones(1, n, dtype=torch.long))
    pairs = list(zip(probe.recording.layers, alone.recording.layers, strict=True))
    assert len(pairs) == 5
    for found, wanted in pairs:
        assert found.pre.n[0] == sum(lengths), found.site
        assert_alike(found.pre, wanted.pre, 1e-6)
        assert_alike(found.post, wanted.post, 1e-6)
    assert (probe.recording.about.n_images, probe.recording.about.n_masked) == (3, 21 - sum(lengths))


def test_a_mask_that_nobody_asked_for_is_named(x):
    """Fails if padding counts and the page does not say so."""

    class Pixels(Encoder):
        def forward(self, inputs: Tensor, pixel_mask: Tensor | None = None) -> Tensor:
            return super().forward(inputs, pixel_mask)

    with bnprobe.attach(model := Pixels().double()) as probe, torch.no_grad():
        model(x, pixel_mask=MASK)
    (note,) = probe.recording.about.notes
    assert f"leaves out {1 - sum(LENGTHS) / (N * T):.0%} of the positions" in note
    assert note.endswith('attach(model, mask="pixel_mask").')
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(x, pixel_mask=torch.ones_like(MASK))
    assert not probe.recording.about.notes


@pytest.mark.parametrize("positional", [True, False])
def test_the_attention_mask_of_tokens_is_used_unasked(positional, x):
    """Fails if padding counts where the model is told what is padding, or if a batch without padding leaves a note."""
    model = Encoder().double()
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(x, MASK.long()) if positional else model(x, attention_mask=MASK.long())
        model(x, attention_mask=torch.ones_like(MASK))
        model(x)
    recording = probe.recording
    assert recording.layers[0].pre.n[0] == sum(LENGTHS) + 2 * N * T
    assert recording.about.n_masked == N * T - sum(LENGTHS)
    assert not recording.about.notes


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32])
def test_a_mask_unasked_that_keeps_nothing_is_a_note(dtype):
    """Fails if a batch of padding alone passes for tokens without a word, ends the user's pass, or zeros that are added to
    attention scores, which keep everything, are taken for such a mask."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.norm = nn.Embedding(50, 12), nn.RMSNorm(12)

        def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            y: Tensor = self.norm(self.embedding(input_ids))
            return y

    ids = torch.arange(18).reshape(2, 9)
    model = Model()
    with bnprobe.attach(model) as probe:
        model(ids, attention_mask=torch.zeros((2, 9), dtype=dtype))
        model(ids[:, :0], attention_mask=torch.zeros((2, 0), dtype=dtype))
        model(ids, attention_mask=torch.ones((2, 9), dtype=torch.long))
    about = probe.recording.about
    assert ["kept no token in 1 pass:" in note for note in about.notes] == [True] * (dtype != torch.float32)
    assert about.n_images == 4


@pytest.mark.parametrize("n_images", [N, N + 2])
def test_two_streams_of_text_and_images(n_images):
    """Fails if the mask of the text is laid over patches, images count as sequences, or the model is harmed."""

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.text = nn.Embedding(50, C), nn.LayerNorm(C)
            self.patches, self.vision = nn.Linear(3, C), nn.LayerNorm(C)

        def forward(
            self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor
        ) -> tuple[Tensor, Tensor]:
            return self.text(self.embedding(input_ids)), self.vision(self.patches(pixel_values))

    model, ids = Towers().eval(), torch.arange(N * T).reshape(N, T)
    given = {"input_ids": ids, "attention_mask": MASK.long(), "pixel_values": torch.randn(n_images, T + 2, 3)}
    with torch.no_grad():
        bare = model(**given)
        with bnprobe.attach(model) as probe:
            probed = model(**given)
    assert all(map(torch.equal, bare, probed))
    text, vision = probe.recording.layers
    assert (text.pre.n[0], vision.pre.n[0]) == (sum(LENGTHS), n_images * (T + 2))
    assert probe.recording.about.n_images == N
    (note,) = probe.recording.about.notes
    assert f"(vision: ({n_images}, {T + 2}, {C}))" in note


def test_what_is_no_mask_of_padding_is_not_used_unasked(x):
    """Fails if zeros that are added, a mask of another size or of what each position sees leaves positions out, or ends the
    pass."""
    model = Encoder().double()
    square = torch.ones(N, T)[:, :N]
    others = (
        torch.zeros(N, T),
        MASK[:, : T - 1],
        torch.ones(N, T, T).tril(),
        square,
    )
    with bnprobe.attach(model) as probe, torch.no_grad():
        for other in others:
            model(x, attention_mask=other)
        model(x[:, :N], attention_mask=torch.ones(N, N).tril())
    assert probe.recording.layers[0].pre.n[0] == len(others) * N * T + N * N


@pytest.mark.parametrize(("n_decoded", "n_counted"), [(T, N * T), (T - 1, sum(LENGTHS)), (None, N * T)])
def test_the_mask_of_an_encoder_is_not_laid_over_a_decoder(n_decoded, n_counted, x):
    """Fails if tokens of a decoder are left out by the mask of an encoder whose tokens are as many."""

    class Both(Encoder):
        def forward(self, inputs: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor | None) -> Tensor:
            return super().forward(inputs, attention_mask)

    decoded = None if n_decoded is None else torch.ones(N, n_decoded, dtype=torch.long)
    with bnprobe.attach(model := Both().double()) as probe, torch.no_grad():
        model(x, attention_mask=MASK, decoder_input_ids=decoded)
    assert probe.recording.layers[0].pre.n[0] == n_counted


# What is refused


@pytest.mark.parametrize(
    ("mask", "advice"),
    [
        (torch.zeros(N, T), "keeps no position"),
        (torch.where(MASK, 0.0, -torch.inf), "pass mask == 0"),
        (MASK.long() * 2, "pass mask == 0"),
        (MASK.to(torch.complex64), "True or 1 for positions"),
        (torch.tensor(True), "True or 1 for positions"),
        (torch.zeros(0, 3), "True or 1 for positions"),
        ("yes", "True or 1 for positions"),
        (None, "True or 1 for positions"),
        ([[1, 1], [1]], "rows of unequal length"),
        (torch.full((N, T), torch.nan), "pass mask == 0"),
    ],
    ids=range(10),
)
def test_a_mask_that_is_none_is_refused_at_once(mask, advice, x):
    """Fails if a wrong mask is believed, or what it says is not what to do."""
    with bnprobe.attach(model := model_of("layer norm")) as probe, torch.no_grad():
        with pytest.raises(BadMask, match=advice), probe.mask(mask):
            pytest.fail("the block was entered")
        model(x)
    assert probe.recording.layers[0].pre.n[0] == N * T


def test_a_mask_of_another_batch_is_refused_before_the_pass(x):
    """Fails if a mask is laid over another batch, or the pass that it stops leaves something behind."""
    with bnprobe.attach(model := model_of("layer norm")) as probe, torch.no_grad():
        with (
            pytest.raises(BadMask, match=r"mask of shape \(3, 7\) for a batch of 4 samples"),
            probe.mask(MASK[:3]),
        ):
            model(x)
        model(x)
    assert probe.recording.layers[0].pre.n[0] == N * T
    assert probe.recording.about.n_forwards == 1


@pytest.mark.parametrize(
    ("mask", "advice"), [("pad", "no such argument; it has inputs, attention_mask"), (3, "with probe.mask")]
)
def test_a_name_that_the_model_does_not_have(mask, advice):
    """Fails if a misspelt name records padding without a word."""
    with pytest.raises(BnprobeError, match=advice):
        bnprobe.attach(Encoder(), mask=mask)


def test_a_mask_leaves_no_trace(x):
    """Fails if the mask or the model's tensors are changed, kept or can no longer be resized."""
    mask, model = MASK.clone(), model_of("layer norm")
    with torch.no_grad():
        plain = model(x)
        with bnprobe.attach(model) as probe, probe.mask(mask):
            assert torch.equal(model(x), plain)
    assert torch.equal(mask, MASK)
    mask.untyped_storage().resize_(0)
    assert not probe.recording.integrity.changes


# Reading


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("scattered", [False, True])
def test_reading_valid_positions(layout, scattered):
    """Fails if samples, their maps, their rows or their share of the histogram get out of step."""
    rng = np.random.default_rng(7)
    n, c, p = 5, 3, 11
    values = rng.gamma(0.7, size=(n, c, p)) + np.arange(3)[:, None]
    x = (
        torch.tensor(values)
        if layout == "first"
        else torch.tensor(values.transpose(0, 2, 1).copy()).transpose(1, 2)
    )
    mask = rng.random((n, p)) > 0.5 if scattered else np.arange(p) < np.array([[4], [4], [0], [11], [7]])
    mask[2] = False
    zeros = np.zeros(c)
    per_sample = Affine(rng.normal(size=(n, c)), rng.normal(size=(n, c)), rng.normal(size=(n, c)))
    request = ReadRequest(
        zeros, per_sample, Affine(zeros, zeros + 1, zeros), per_sample=PerSample(1e-5, True), keep_rows=True
    )
    found = read_valid(x, Valid(mask), request)
    blank = torch.tensor(np.where(mask[:, None], values, np.nan))
    wanted = read(blank, request)
    for name in ("n", "mean", "m2", "m3", "m4", "low", "high"):
        np.testing.assert_allclose(
            getattr(found.moments, name), getattr(wanted.moments, name), rtol=1e-6, atol=1e-9
        )
        np.testing.assert_allclose(
            getattr(found.rows, name), getattr(wanted.rows, name), rtol=1e-6, atol=1e-9
        )
    assert_alike(found.images, wanted.images, 1e-6)
    np.testing.assert_array_equal(found.counts.n_positive, wanted.counts.n_positive)
    np.testing.assert_array_equal(found.counts.histogram, wanted.counts.histogram)
    assert not found.n_nonfinite.any()
    for mine, theirs in zip(found.per_sample, wanted.per_sample, strict=True):
        assert_alike(mine, theirs, 1e-6)
    share = Share(2, 1)
    counted = count_valid(x, Valid(mask), None, request.bins, share).histogram
    used = [i for part, _ in Valid(mask).parts for i in np.arange(n)[part]]
    expected = sum(mask[i].sum() for place, i in enumerate(used) if (1 + place) % 2 == 0)
    assert counted.sum(1).tolist() == [expected] * c
    centred = read_valid(x, Valid(mask), ReadRequest())
    assert_alike(centred.images, read(blank, ReadRequest()).images, 1e-6)
