"""The vocabulary: what an operation of torch is to the values that go through it.

Names are those of the dispatcher ("relu", without the trailing underscore of the in-place form). With
gradients or under `no_grad` operations arrive taken apart (`linear` as `t` and `addmm`); in inference
mode they arrive whole. Both spellings are here.
"""

from __future__ import annotations

from typing import Any

PASS = "pass"
"""Values go on as they are, or a part of them: views, copies, casts, padding with constants."""

MARK = "mark"
"""Values go on unchanged but chosen or put among others; the name stays in front ("cat, relu")."""

ADD, MUL, SCALE = "add", "mul", "scale"
ACTIVATION, WEIGHTS, PRODUCT, NORM, OTHER, IGNORED = (
    "activation",
    "weights",
    "product",
    "norm",
    "other",
    "ignored",
)
"""WEIGHTS is a convolution or linear layer, PRODUCT a matrix product whose other side may be weights;
IGNORED takes a shape or a type from its input, and no values."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS = _words(
    "view _unsafe_view reshape _reshape_alias view_as reshape_as permute transpose t numpy_T mT adjoint "
    "unsqueeze squeeze expand expand_as alias detach slice select narrow split split_with_sizes chunk "
    "tensor_split unbind flatten unflatten movedim moveaxis swapaxes swapdims diagonal as_strided "
    "contiguous clone _to_copy to type_as float half double bfloat16 lift lift_fresh lift_fresh_copy "
    "roll flip pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle real "
    "constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d repeat tile copy unfold im2col atleast_2d atleast_3d "
    "_conj resolve_conj resolve_neg positive _pin_memory view_copy"
)

MARKS = {
    "cat": "cat",
    "concat": "cat",
    "concatenate": "cat",
    "stack": "cat",
    "dropout": "dropout",
    "native_dropout": "dropout",
    "feature_dropout": "dropout",
    "alpha_dropout": "dropout",
    "max_pool1d": "max_pool",
    "max_pool1d_with_indices": "max_pool",
    "max_pool2d": "max_pool",
    "max_pool2d_with_indices": "max_pool",
    "mkldnn_max_pool2d": "max_pool",
    "max_pool3d": "max_pool",
    "max_pool3d_with_indices": "max_pool",
    "adaptive_max_pool1d": "max_pool",
    "adaptive_max_pool2d": "max_pool",
    "adaptive_max_pool3d": "max_pool",
    "amax": "max_pool",
}

_BY_THEIR_NAMES = _words(
    "relu relu6 silu gelu hardswish hardsigmoid sigmoid tanh hardtanh leaky_relu elu selu celu "
    "softplus mish softmax log_softmax hardshrink softshrink glu exp abs sin"
)

ACTIVATIONS = {name: name for name in _BY_THEIR_NAMES} | {
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "_prelu_kernel": "prelu",
    "prelu": "prelu",
    "rrelu": "rrelu",
    "rrelu_with_noise": "rrelu",
    "log_sigmoid": "log_sigmoid",
    "log_sigmoid_forward": "log_sigmoid",
    "clamp": "clamp",
    "clamp_min": "clamp",
    "clamp_max": "clamp",
    "clip": "clamp",
    "threshold": "threshold",
    "special_expit": "sigmoid",
}

AVERAGES = _words(
    "mean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d mkldnn_adaptive_avg_pool2d"
)

CONVOLUTIONS = _words(
    "convolution _convolution conv1d conv2d conv3d convolution_overrideable "
    "conv_transpose1d conv_transpose2d conv_transpose3d"
)

PRODUCTS = _words("linear addmm mm matmul bmm baddbmm mv addmv dot einsum")

NORMS = _words(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training batch_norm "
    "_batch_norm_with_update _batch_norm_no_update cudnn_batch_norm miopen_batch_norm batch_norm_elemt "
    "_batch_norm_impl_index "
    "native_layer_norm layer_norm native_group_norm group_norm instance_norm rms_norm _fused_rms_norm"
)

WHOLE_ATTENTION = "_native_multi_head_attention"
"""Projections and attention in one operation."""

OTHERS = {
    "scaled_dot_product_attention": "attention",
    "_scaled_dot_product_attention_math": "attention",
    "_scaled_dot_product_flash_attention": "attention",
    "_scaled_dot_product_flash_attention_for_cpu": "attention",
    "_scaled_dot_product_efficient_attention": "attention",
    "_scaled_dot_product_cudnn_attention": "attention",
    "_scaled_dot_product_fused_attention_overrideable": "attention",
    # the projections of queries, keys and values take its input as it is
    WHOLE_ATTENTION: "linear",
    "lstm": "recurrent",
    "gru": "recurrent",
    "rnn_tanh": "recurrent",
    "rnn_relu": "recurrent",
    "sub": "sub",
    "rsub": "sub",
    "div": "div",
    "pow": "pow",
} | dict.fromkeys(AVERAGES, "avg_pool")

NO_VALUES = _words(
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty new_zeros new_ones "
    "new_full new_empty_strided size sym_size stride is_same_size _shape_as_tensor"
)


def plain(name: str) -> str:
    """The name of an operation without the mark of its in-place form."""
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def what_is(name: str) -> tuple[str, str]:
    """The part an operation plays and the name it is called by here; for PASS the dispatcher's own name."""
    if name in VIEWS:
        return PASS, name
    for part, names in ((MARK, MARKS), (ACTIVATION, ACTIVATIONS), (OTHER, OTHERS)):
        if name in names:
            return part, names[name]
    if name in CONVOLUTIONS:
        return WEIGHTS, "conv"
    if name in PRODUCTS:
        return PRODUCT, "matmul"
    if name in NORMS:
        return NORM, "norm"
    if name in ("add", "mul"):
        return name, name
    if name in NO_VALUES:
        return IGNORED, name
    if name.startswith(("upsample_", "_upsample_")) or name == "grid_sampler_2d":
        return OTHER, "upsample"
    return OTHER, name.strip("_")


def clamped(low: Any, high: Any) -> str:
    """The activation that clipping to [low, high] is; an end may be None, or a tensor."""
    ends = [end for end in (low, high) if isinstance(end, int | float)]
    if low == 0 and high is None:
        return "relu"
    if len(ends) < 2:
        return "clamp"
    if (low, high) == (0, 6):
        return "relu6"
    return "hardtanh" if (low, high) == (-1, 1) else f"hardtanh({low:g}, {high:g})"
