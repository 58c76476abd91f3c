"""Faults as people make them: the wrong lines themselves, which python -m scripts.rule_benchmark runs on a healthy model.

Names in the code: `model` (trained), `new()` (the same architecture, untrained), `loader` (training batches), `pixels`
(0 to 1), `mean`, `std` and `x`, one batch of inputs made of them as in training. Code that sets `x` is run on every
batch. `use` says what happens then: the model is evaluated, or trained for some steps after model.train().

Faults with `held_out=True` were not looked at while thresholds and sentences were made.
"""

from __future__ import annotations

from dataclasses import dataclass

EVALUATE, TRAIN = "evaluate", "train"


@dataclass(frozen=True)
class Fault:
    """One mistake, and the rule that must find it."""

    name: str
    subject: str
    rule: str
    code: str
    use: str = EVALUATE
    held_out: bool = False


NORMS = "norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]; "

FAULTS = (
    # what the running statistics hold
    Fault(
        "buffers missing from the checkpoint, strict=False",
        "demo",
        "statistics-never-updated",
        "state = {k: v for k, v in model.state_dict().items() if 'running' not in k}\n"
        "model = new().eval()\nmodel.load_state_dict(state, strict=False)",
    ),
    Fault(
        "parameters averaged (EMA), buffers not",
        "residual",
        "statistics-never-updated",
        "averaged = new().eval()\n"
        "for p, q in zip(averaged.parameters(), model.parameters()): p.data.copy_(q.data)\nmodel = averaged",
        held_out=True,
    ),
    Fault(
        "Caffe's scale factor not divided by",
        "demo",
        "statistics-scaled",
        NORMS + "\nfor m in norms: m.running_mean *= 999.98; m.running_var *= 999.98",
    ),
    Fault(
        "a converter that stores standard deviations",
        "demo",
        "statistics-transformed",
        NORMS + "\nfor m in norms: m.running_var.sqrt_()",
    ),
    Fault(
        "one layer reset, never run again",
        "plain",
        "statistics-never-updated",
        "model.features[5].reset_running_stats()",
    ),
    Fault(
        "a batch that overflowed, step skipped, buffers updated",
        "plain",
        "statistics-poisoned",
        "model.train(); model(1e22 * next(iter(loader))[0]); model.eval()",
    ),
    Fault(
        "own moving average with a weight above 1",
        "demo",
        "statistics-poisoned",
        "bn = model.features[2].conv[0][1]; bn.running_var += 1.5 * (0 - bn.running_var)",
        held_out=True,
    ),
    Fault(
        "another camera, half the contrast",
        "resnet20",
        "data-shifted",
        "x = 0.4 * x",
    ),
    # not lighter as well: 0.4 p + 0.3 is, for the first norm, within 14% of inputs that were not normalized
    Fault("a darker camera", "residual", "data-shifted", "x = (0.3 * pixels - mean) / std"),
    Fault(
        "weights averaged without new statistics",
        "plain",
        "data-shifted",
        "torch.manual_seed(1)\n"
        "for p in model.parameters():\n    if p.dim() > 1: p.data = 0.5 * (p.data + p.data[torch.randperm(len(p))])",
        held_out=True,
    ),
    Fault(
        "one variance for all channels, by a conversion",
        "demo",
        "statistics-alike",
        "bn = model.features[2].conv[0][1]; bn.running_var[:] = bn.running_var.mean()",
    ),
    Fault(
        "buffers loaded under a wrong name",
        "resnet20",
        "statistics-alike",
        "a, b = model.layer1[0].bn1, model.layer1[1].bn1\n"
        "a.running_mean.copy_(b.running_mean); a.running_var.copy_(b.running_var)",
        held_out=True,
    ),
    Fault(
        "evaluated after a few batches with a slow momentum",
        "residual",
        "statistics-young",
        NORMS + "\nfor m in norms: m.reset_running_stats(); m.momentum = 0.03\n"
        "model.train(); [model(x) for x, _ in loader]; model.eval()",
    ),
    Fault(
        "the features run twice per step (once for a log)",
        "plain",
        "batches-differ",
        NORMS + "\nfor m in norms: m.reset_running_stats()\nmodel.train()\n"
        "for _ in range(5):\n    for x, _ in loader: model.features[:6](x); model(x)\nmodel.eval()",
    ),
    Fault(
        "running statistics of one channel overwritten",
        "plain",
        "channels-shifted",
        "bn = model.features[5]; bn.running_mean[3] += 6 * bn.running_var[3].sqrt()",
    ),
    # the model's input
    Fault("0 to 255, no scaling, no normalization", "resnet20", "input-not-as-trained", "x = 255 * pixels"),
    Fault("ToTensor, but no Normalize", "demo", "input-not-as-trained", "x = pixels"),
    Fault(
        "Normalize on 0 to 255",
        "plain",
        "input-not-as-trained",
        "x = (255 * pixels - mean) / std",
        held_out=True,
    ),
    Fault(
        "cv2.imread: blue first",
        "resnet20",
        "input-not-as-trained",
        "x = (pixels.flip(1) - mean) / std",
    ),
    Fault("normalized twice", "residual", "input-not-as-trained", "x = (x - mean) / std"),
    Fault(
        "mean and deviation 0.5",
        "resnet20",
        "input-not-as-trained",
        "x = (pixels - 0.5) / 0.5",
        held_out=True,
    ),
    Fault(
        "dark digits on white",
        "residual",
        "input-not-as-trained",
        "x = (1 - pixels - mean) / std",
    ),
    Fault(
        "ToTensor, then / 255",
        "plain",
        "input-not-as-trained",
        "x = (pixels / 255 - mean) / std",
    ),
    Fault(
        "images enlarged to twice their size",
        "plain",
        "input-size",
        'x = F.interpolate(x, scale_factor=2, mode="bilinear")',
    ),
    Fault(
        "images shrunk to half their size", "plain", "input-size", "x = F.interpolate(x, scale_factor=0.5)"
    ),
    Fault(
        "photographed in the dark: noise",
        "plain",
        "input-size",
        "x = x + 0.7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))",
    ),
    Fault(
        "a pixel of 0 / 0 in one image",
        "plain",
        "values-not-finite",
        "x = x.clone(); x[0, 0, 0, 0] /= 0",
    ),
    Fault(
        "each image divided by its deviation, one is blank",
        "transformer",
        "values-not-finite",
        "x = x.clone(); x[3] = 0; x[3] /= x[3].std()",
        held_out=True,
    ),
    Fault(
        "a step with an infinite gradient reached γ",
        "resnet20",
        "values-not-finite",
        "model.layer1[1].bn2.weight.data[3] = float('nan')",
        held_out=True,
    ),
    Fault(
        "the mean subtracted, the deviation forgotten",
        "resnet20",
        "input-not-as-trained",
        "x = pixels - mean",
        held_out=True,
    ),
    Fault(
        "variance in the place of the deviation",
        "resnet20",
        "input-not-as-trained",
        "x = (pixels - mean) / std**2",
        held_out=True,
    ),
    Fault(
        "loader gives -1 to 1, Normalize follows",
        "residual",
        "input-not-as-trained",
        "x = (2 * pixels - 1 - mean) / std",
        held_out=True,
    ),
    # modes, freezing, momentum
    Fault("model.eval() forgotten", "demo", "train-mode-in-evaluation", "model.train()"),
    Fault(
        "train() called on a part, inside a helper",
        "residual",
        "train-mode-in-evaluation",
        "model.blocks[0].train()",
        held_out=True,
    ),
    Fault(
        "frozen by requires_grad alone",
        "plain",
        "frozen-but-moving",
        "for p in model.features.parameters(): p.requires_grad = False",
        TRAIN,
    ),
    Fault(
        "backbone frozen, its norms follow the new data",
        "residual",
        "frozen-but-moving",
        "model.blocks.requires_grad_(False)",
        TRAIN,
        held_out=True,
    ),
    Fault(
        "norms in eval mode, their parameters in the optimizer",
        "residual",
        "learning-but-frozen",
        NORMS + "[m.eval() for m in norms]",
        TRAIN,
    ),
    Fault(
        "a last batch of two images",
        "plain",
        "few-values",
        "loader = DataLoader(torch.utils.data.Subset(loader.dataset, range(258)), batch_size=32)",
        TRAIN,
    ),
    Fault(
        "one image per step",
        "residual",
        "few-values",
        "model.blocks = nn.Sequential(nn.AvgPool2d(4), model.blocks)\nloader = DataLoader(loader.dataset, batch_size=1)",
        TRAIN,
        held_out=True,
    ),
    Fault(
        "as many groups as channels, at one position",
        "grouped",
        "few-values",
        "model.norms[4].num_groups = 32",
    ),
    Fault("momentum 0", "plain", "momentum-odd", NORMS + "\nfor m in norms: m.momentum = 0.0", TRAIN),
    Fault(
        "momentum 0.99, as other frameworks count it",
        "residual",
        "momentum-odd",
        NORMS + "\nfor m in norms: m.momentum = 0.99",
        TRAIN,
    ),
    Fault(
        "momentum None while training",
        "demo",
        "momentum-odd",
        NORMS + "\nfor m in norms: m.momentum = None",
        TRAIN,
        held_out=True,
    ),
    Fault(
        "gradient checkpointing around norms",
        "plain",
        "updated-twice",
        "from torch.utils.checkpoint import checkpoint\ninner = model.features.forward\n"
        "model.features.forward = lambda x: checkpoint(inner, x, use_reentrant=False)",
        TRAIN,
    ),
    Fault(
        "SyncBatchNorm, started without torchrun",
        "plain",
        "sync-alone",
        "model = nn.SyncBatchNorm.convert_sync_batchnorm(model)",
        TRAIN,
    ),
    # channels
    Fault(
        "a learning rate too high: half of the offsets far below zero",
        "plain",
        "channels-dead",
        "model.features[5].bias.data[:12] -= 50",
    ),
    Fault(
        "the same in the first norm of a block",
        "resnet20",
        "channels-dead",
        "model.layer2[1].bn1.bias.data[:16] -= 50",
        held_out=True,
    ),
    Fault(
        "pruned by gamma, offset left",
        "residual",
        "channels-constant",
        "bn = model.blocks[1].bn1; bn.weight.data[bn.weight.abs() < bn.weight.abs().median()] = 0",
    ),
    Fault(
        "offsets beyond the end of ReLU6",
        "demo",
        "channels-saturated",
        "bn = model.features[3].conv[0][1]; bn.bias.data[::2] += 15",
    ),
    Fault(
        "offsets four deviations below zero",
        "plain",
        "channels-silent",
        "bn = model.features[9]; bn.bias.data[:10] = -5.5 * bn.weight.data[:10].abs()",
    ),
    Fault(
        "weight decay alone for 40,000 steps",
        "plain",
        "filters-decayed",
        "for p in (model.features[4].weight, model.features[5].weight):\n"
        "    p.data[:8] *= (1 - 0.1 * 2e-3) ** 40_000",
    ),
    Fault(
        "inputs divided by 255 once more, folded into the weights",
        "plain",
        "variance-below-eps",
        "conv, bn = model.features[0], model.features[1]\n"
        "conv.weight.data /= 255; bn.running_mean /= 255; bn.running_var /= 255**2",
    ),
    Fault(
        "eps=1e5 for 1e-5",
        "resnet20",
        "variance-below-eps",
        "model.layer3[2].bn2.eps = 1e5",
        held_out=True,
    ),
    Fault(
        "variances lost in some channels",
        "demo",
        "variance-below-eps",
        "model.features[4].conv[0][1].running_var[::3] = 0",
        held_out=True,
    ),
    Fault(
        "a layer norm converted with eps=10",
        "transformer",
        "variance-below-eps",
        "model.layers[0].norm1.eps = 10.0",
        held_out=True,
    ),
    Fault(
        "eps typed as 1e5 in the last layer norm",
        "transformer",
        "variance-below-eps",
        "model.norm.eps = 1e5",
        held_out=True,
    ),
    Fault(
        "init_weights after load_state_dict",
        "residual",
        "affine-untrained",
        "for m in model.blocks[1].modules():\n"
        "    if isinstance(m, nn.BatchNorm2d): nn.init.ones_(m.weight); nn.init.zeros_(m.bias)",
    ),
    Fault(
        "the same for a group norm",
        "grouped",
        "affine-untrained",
        "model.norms[2].reset_parameters()",
        held_out=True,
    ),
    Fault(
        "the same for a layer norm",
        "transformer",
        "affine-untrained",
        "nn.init.ones_(model.layers[1].norm2.weight)",
    ),
    Fault(
        "weights of 100,000 times the size before a norm",
        "plain",
        "half-overflow",
        "conv, bn = model.features[8], model.features[9]\n"
        "conv.weight.data *= 1e5; bn.running_mean *= 1e5; bn.running_var *= 1e10",
    ),
    # what stands around
    Fault(
        "one norm written twice in forward",
        "residual",
        "calls-differ",
        "model.blocks[0].bn2 = model.blocks[0].bn1",
    ),
    Fault(
        "one norm for all blocks",
        "resnet20",
        "calls-differ",
        "model.layer1[1].bn1 = model.layer1[2].bn1 = model.layer1[0].bn1",
        held_out=True,
    ),
    Fault(
        "the first norms fused for speed",
        "plain",
        "norm-folded",
        "from torch.nn.utils.fusion import fuse_conv_bn_eval\n"
        "model.features[0] = fuse_conv_bn_eval(model.features[0], model.features[1])\n"
        "model.features[1] = nn.Identity()",
    ),
    Fault(
        "folded, the norm reset and left in place",
        "residual",
        "norm-folded",
        "from torch.nn.utils.fusion import fuse_conv_bn_eval\n"
        "model.stem = fuse_conv_bn_eval(model.stem, model.bn); model.bn.reset_parameters()",
        held_out=True,
    ),
    Fault(
        "zero_init_residual after load_state_dict",
        "residual",
        "branch-off",
        "nn.init.zeros_(model.blocks[1].bn2.weight)",
    ),
    Fault(
        "a branch that weight decay has shrunk",
        "resnet20",
        "branch-off",
        "model.layer2[2].bn2.weight.data *= 0.02",
        held_out=True,
    ),
    Fault(
        "a norm in __init__ that forward does not use",
        "plain",
        "layer-unread",
        "model.last_norm = nn.BatchNorm1d(48)",
    ),
    Fault(
        "a norm of one's own",
        "transformer",
        "layer-unread",
        "class ScaleNorm(nn.Module):\n"
        "    def __init__(self, n): super().__init__(); self.scale = nn.Parameter(torch.ones(n))\n"
        "    def forward(self, x): return x / x.square().mean(-1, keepdim=True).sqrt() * self.scale\n"
        "model.norm = ScaleNorm(48)",
    ),
    Fault(
        "one embedded dimension far larger than the rest",
        "transformer",
        "outlier-dimensions",
        "model.embed.weight.data[3] *= 100; model.embed.bias.data[3] *= 100",
    ),
    Fault(
        "one filter a hundred times larger",
        "grouped",
        "outlier-dimensions",
        "model.convs[2].weight.data[5] *= 100",
        held_out=True,
    ),
    # gradients
    Fault(
        "a scale of a thousandth",
        "grouped",
        "gradient-breaks",
        "model.norms[2].weight.data *= 1e-3; model.norms[2].bias.data *= 1e-3",
        TRAIN,
    ),
    Fault(
        "all offsets of the last norm far below zero",
        "grouped",
        "gradient-no-signal",
        "model.norms[4].bias.data -= 100",
        TRAIN,
    ),
    Fault(
        "detach() left in forward",
        "grouped",
        "gradient-no-signal",
        "model.norms[1].register_forward_hook(lambda m, i, o: o.detach())",
        TRAIN,
        held_out=True,
    ),
    Fault(
        "a block under torch.no_grad()",
        "residual",
        "moving-without-gradient",
        "inner = model.blocks[0].forward\nmodel.blocks[0].forward = torch.no_grad()(inner)",
        TRAIN,
        held_out=True,
    ),
    # files and conversions
    Fault(
        "deviations stored as variances",
        "plain",
        "data-shifted",
        NORMS + "\nfor m in norms: m.running_var.sqrt_()",
        held_out=True,
    ),
    Fault(
        "1/deviation stored as variance",
        "demo",
        "data-shifted",
        NORMS + "\nfor m in norms: m.running_var.rsqrt_()",
        held_out=True,
    ),
    Fault(
        "running means with the sign of a bias",
        "plain",
        "data-shifted",
        "model.features[5].running_mean.neg_()",
        held_out=True,
    ),
    Fault(
        "channels of the statistics in another order than the filters",
        "plain",
        "data-shifted",
        "b = model.features[5]; p = torch.arange(24).roll(1)\n"
        "b.running_mean.copy_(b.running_mean[p].clone()); b.running_var.copy_(b.running_var[p].clone())",
        held_out=True,
    ),
    Fault(
        "mean and variance exchanged",
        "residual",
        "statistics-poisoned",
        "b = model.blocks[1].bn1; m = b.running_mean.clone()\n"
        "b.running_mean.copy_(b.running_var); b.running_var.copy_(m)",
        held_out=True,
    ),
    Fault(
        "a moving average from zero, not corrected",
        "residual",
        "data-shifted",
        "for v in model.state_dict().values():\n    if v.is_floating_point(): v.mul_(0.4)",
        held_out=True,
    ),
    Fault(
        "weights of square convolutions transposed",
        "resnet20",
        "data-shifted",
        "c = model.layer1[1].conv1; c.weight.data = c.weight.data.transpose(0, 1).contiguous()",
        held_out=True,
    ),
    Fault(
        "adapted to a single image, then used",
        "plain",
        "data-shifted",
        NORMS + "\nfor m in norms: m.momentum = 1.0\nmodel.train(); model(x[:1]); model.eval()",
        held_out=True,
    ),
    Fault(
        "trained on by a loader sorted by class",
        "residual",
        "data-shifted",
        "model.train(); t = loader.dataset.tensors; i = t[1].argsort()\n"
        "for c in t[0][i].split(40): model(c)\nmodel.eval()",
        held_out=True,
    ),
    Fault(
        "the last norm skipped in forward",
        "transformer",
        "layer-unread",
        "def f(x):\n    m = model; p = F.unfold(x, 4, stride=4).transpose(1, 2)\n"
        "    return m.head(m.layers(m.embed_norm(m.embed(p)) + m.position).mean(1))\nmodel.forward = f",
        held_out=True,
    ),
)
