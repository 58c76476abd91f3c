"""γ and β folded into the linear layers that follow: outputs in float64, what is refused and why, tied heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.model_state import fingerprint
from support.token_models import Gpt, tokens
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers


def trained() -> Gpt:
    model = Gpt(n=2)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.5)
            nn.init.normal_(module.bias)
    return model.eval()


def test_every_norm_of_a_pre_norm_model_is_folded_and_nothing_changes() -> None:
    """Fails if β is multiplied by γ, a weight is scaled along the wrong dimension, or the model itself is changed."""
    model = trained().double()
    before, expected = fingerprint(model), model(tokens())
    found = bnprobe.fold(model, [tokens()], into="next")
    assert fingerprint(model) == before
    assert found.layers.set_index("layer")["done"].to_dict() == {
        "blocks.0.ln1": "folded into blocks.0.attn.qkv",
        "blocks.0.ln2": "folded into blocks.0.mlp.0",
        "blocks.1.ln1": "folded into blocks.1.attn.qkv",
        "blocks.1.ln2": "folded into blocks.1.mlp.0",
        "ln_f": "folded into head",
    }
    torch.testing.assert_close(found.model(tokens()), expected, rtol=1e-12, atol=1e-12)
    for module in found.model.modules():
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    (note,) = (note for note in found.effect.notes if "float64" in note)
    assert float(note.split("at most ")[1].split()[0]) < 1e-13


def test_a_tied_head_gets_its_own_weights() -> None:
    """Fails if the embedding is scaled with the head."""
    model = trained()
    model.head.weight = model.tokens.weight
    found = bnprobe.fold(model, [tokens()], into="next", layers="ln_f")
    assert "head has weights of its own now" in found.layers.set_index("layer").loc["ln_f", "done"]
    assert torch.equal(found.model.tokens.weight, model.tokens.weight)
    assert found.effect.largest_relative < 1e-5
    assert (found.layers["done"] != "").sum() == 1


class PostNorm(nn.Module):
    """A norm whose output goes into a residual, one before another operation, and one that is modulated."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.post, self.qk, self.ada, self.pre = (nn.LayerNorm(6) for _ in range(4))
        self.lin, self.qk_lin, self.ada_lin, self.out = (nn.Linear(6, 6) for _ in range(4))
        self.gamma = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.post(x)
        h = h + self.lin(h)
        h = h + self.qk_lin(self.qk(h).flip(-1))
        h = h + self.ada_lin(self.ada(h) * (1 + self.gamma(x)))
        return self.out(self.pre(h))


def test_what_cannot_be_folded_says_why() -> None:
    """Fails if a norm is folded though something else reads it, which would change results."""
    found = bnprobe.fold(PostNorm().eval(), [torch.randn(5, 6)], into="next")
    why = found.layers.set_index("layer")["why"]
    assert "residual connection" in why["post"]
    assert "no linear layer reads" in why["qk"]
    assert "no linear layer reads" in why["ada"]
    assert why["pre"] == ""


def test_a_view_of_the_output_may_be_read() -> None:
    """Fails if the head of a model that scores its last positions only is not seen to read the last norm."""

    class Last(Gpt):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.embedded(ids)
            return self.head(self.ln_f(x)[:, -3:])

    model = Last(n=1).double().eval()
    nn.init.normal_(model.ln_f.weight)
    found = bnprobe.fold(model, [tokens()], into="next", layers="ln_f")
    assert found.layers.set_index("layer").loc["ln_f", "done"] == "folded into head"
    torch.testing.assert_close(found.model(tokens()), model(tokens()), rtol=1e-12, atol=1e-12)


def test_a_pass_that_cannot_be_followed_is_refused_by_the_certificate() -> None:
    """Fails if outputs are not compared: what reads a view beside a linear layer is not counted."""

    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.lin = nn.LayerNorm(6), nn.Linear(6, 6)
            nn.init.normal_(self.norm.weight, 1, 0.5)

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(x)[:, :3]
            return self.lin(h) + h

    with pytest.raises(BnprobeError, match="Fold some norms only, with layers="):
        bnprobe.fold(Aside().eval(), [torch.randn(5, 4, 6)], into="next")


def test_a_linear_layer_that_reads_two_norms_is_left() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.lin = nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.lin(self.a(x)) + self.lin(self.b(x))

    with pytest.raises(NoNormLayers, match="lin also reads something else"):
        bnprobe.fold(Shared().eval(), [torch.randn(5, 4)], into="next")


def test_an_rms_norm_of_one_plus_w_becomes_w_of_zero() -> None:
    class GemmaRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.randn(6) / 3), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return (1 + self.weight) * x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()

    model, x = nn.Sequential(nn.Linear(4, 6), GemmaRMSNorm(), nn.Linear(6, 3)).eval(), torch.randn(9, 4)
    found = bnprobe.fold(model, [x], into="next")
    assert (found.model[1].weight == 0).all()
    torch.testing.assert_close(found.model(x), model(x))


@pytest.mark.parametrize(
    ("options", "advice"),
    [({"into": "both"}, 'Pass "next"'), ({"into": "next", "layers": "x"}, "Pass a path")],
)
def test_wrong_uses_are_one_line(options: dict[str, Any], advice: str) -> None:
    with pytest.raises(BnprobeError, match=advice):
        bnprobe.fold(trained(), [tokens()], **options)
