"""Models that are no longer modules of Python: TorchScript, torch.fx, exported graphs, fused and quantized layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.models import BY_NAME, C
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

import bnprobe
from bnprobe import CannotProbe, NoNormLayers

X = BY_NAME["batch norm"].batches(dtype=torch.float32)[0]

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning",
    "ignore:`torch.jit:DeprecationWarning",
    "ignore:torch.ao:DeprecationWarning",
)


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.ReLU()).eval()


def recorded(model: nn.Module, x: Tensor = X) -> bnprobe.Recording:
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(x)
    return probe.recording


@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, X)], ids=["script", "trace"])
def test_torchscript_is_refused_with_a_way_out(make):
    """Fails if a scripted model is hooked in vain, or refused without the command that needs no hooks."""
    with pytest.raises(CannotProbe, match="`bnprobe check CHECKPOINT`"):
        bnprobe.attach(make(model()))


def test_a_scripted_part_is_named():
    """Fails if norms inside a scripted part are hooked (torch raises), or left out without a word."""
    recording = recorded(nn.Sequential(torch.jit.script(model()), nn.BatchNorm2d(C).eval()))
    assert [r.layer for r in recording.layers] == ["1"]
    assert recording.not_understood == ("0.1 (BatchNorm2d in TorchScript)",)


def test_a_traced_graph_is_probed_like_its_model():
    """Fails if modules called by a torch.fx graph are not recorded, or functions in generated code raise."""
    plain = model()
    np.testing.assert_array_equal(
        recorded(torch.fx.symbolic_trace(plain)).layers[0].post.mean, recorded(plain).layers[0].post.mean
    )

    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.group_norm(x, 1)

    (record,) = recorded(torch.fx.symbolic_trace(Functional())).layers
    assert record.layer.startswith("group_norm:")


def test_tracing_a_probed_model_leaves_the_recording_alone():
    """Fails if stand-ins of torch.fx count as calls, or our hooks end up in the graph."""
    plain = model()
    with torch.no_grad(), bnprobe.attach(plain) as probe:
        graph = torch.fx.symbolic_trace(plain)
        assert torch.equal(graph(X), plain(X))
    assert probe.recording.layers[0].n_calls in (1, 2)  # the graph shares the hooked modules
    assert [str(node.target) for node in graph.graph.nodes] == ["input", "0", "1", "2", "output"]


def test_an_exported_graph_is_refused_with_a_way_out():
    """Fails if what an exported graph keeps of a norm, its tensors, is hooked in vain."""
    exported = torch.export.export(model(), (X,)).module()
    with pytest.raises(CannotProbe, match="Attach to the model that was exported"):
        bnprobe.attach(exported)


def test_exporting_a_probed_model():
    """Fails if torch.export meets our hooks or our functions."""
    plain = model()
    with torch.no_grad(), bnprobe.attach(plain) as probe:
        exported = torch.export.export(plain, (X,), strict=False).module()
        plain(X)
    assert torch.allclose(exported(X), plain(X), atol=1e-5)
    assert probe.recording.layers[0].n_calls == 1


def test_fused_norms_are_reported_as_absorbed():
    """Fails if a model whose norms were folded away is refused without saying where they went."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(C, C, 3), nn.BatchNorm2d(C)
            self.conv2, self.bn2 = nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn2(self.conv2(self.bn1(self.conv1(x))))

    block = Block().eval()
    nn.init.constant_(block.bn1.bias, 2.0)
    block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
    recording = recorded(block)
    assert [r.layer for r in recording.layers] == ["bn2"]
    assert recording.folded == ("bn1",)
    block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
    with pytest.raises(NoNormLayers, match=r"at bn1, bn2\. .*before it is fused"):
        bnprobe.attach(block)


def test_quantized_modules_are_reported_as_absorbed():
    """Fails if torch.ao's fused modules, which leave an identity behind, are taken for a net without norms."""
    quantization = pytest.importorskip("torch.ao.quantization")
    fused = quantization.fuse_modules(model(), [["0", "1", "2"]])
    with pytest.raises(NoNormLayers, match="folded into the preceding layers at 1"):
        bnprobe.attach(fused)


def test_norms_inside_quantization_aware_training_are_recorded():
    """Fails if the norm that such a fused module calls is missed."""
    quantization = pytest.importorskip("torch.ao.quantization")
    qat = model().train()
    # "fbgemm" asks for a reduced range, which torch warns about
    qat.qconfig = quantization.get_default_qat_qconfig("qnnpack")
    qat = quantization.prepare_qat(quantization.fuse_modules_qat(qat, [["0", "1", "2"]]))
    recording = recorded(qat)
    assert [(r.layer, r.n_calls) for r in recording.layers] == [("0.bn", 1)]
