"""The vocabulary of recordings: pools, sites, and the verdicts on running statistics, for measures and rules alike."""

from __future__ import annotations

BATCH, INSTANCE, GROUP, CHANNELS = POOLS = ("batch", "instance", "group", "channels")
"""What a norm pools over: the batch per channel; each sample's channel; each sample's group of
channels; or all channels at each position (layer and RMS norm)."""


UNKNOWN = "unknown"
"""In place of a pool: of a norm that was read from a file, without the module that would tell."""


WEIGHTS_ONLY = "weights only"
"""The mode of a norm that was not called: all that is known of it is what the weights around it say."""


VECTORS = {"gamma": "γ", "beta": "β", "running_mean": "running_mean", "running_var": "running_var"}
"""What a norm stores per channel, as fields and columns are named, and what that is called in a sentence."""

INITIAL = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}
"""What a norm is made with, which does nothing to its input."""


EMPTY = "(empty)"
"""Ends the entry of `Recording.not_understood` that counts the empty tensors of a checkpoint."""

NO_NORM = "(no norm)"
"""Ends the entry of `Recording.not_understood` of a module that is named like a norm, and whose output at the first call is
not its input normalized along any axes."""

GATHER = (
    "Gather them where the model was trained, and save again: under DeepSpeed inside "
    "deepspeed.zero.GatheredParameters(list(model.parameters())), or by its script zero_to_fp32.py; under FSDP by "
    "torch.distributed.checkpoint.state_dict.get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))"
)
"""What to do about tensors that are stubs of shards; no full stop, since a message may go on."""


OF_CHANNELS, NO_CONSTANTS, NO_PIXELS = "channels", "none", "no pixels"
"""In the place of constants of normalization, among causes: of a row that names channels of the input; of one that rests on
no constants, so that it names no cause; and of one on inputs that are no pixels, for which there are none to give."""

GUESSED = "a guess, the usual for ImageNet"
"""Ends, in `About.preprocessing`, what was not known of the inputs and was set as for most models of images."""


UNITS = {
    f"{word}s": word
    for word in (
        "image",
        "sequence",
        "token",
        "sample",
        "clip",
        "document",
        "frame",
        "graph",
        "molecule",
        "volume",
    )
}
"""What a sample may be called, many and one."""

ATTENTION, MLP, BOTH, MIXER = ("attention", "MLP", "attention and MLP", "mixer")
CROSS_ATTENTION, QUERY, KEY = ("cross-attention", "query", "key")
ATTENTION_OUTPUT, MLP_OUTPUT, INNER = ("attention output", "MLP output", "inner")
CROSS_ATTENTION_OUTPUT = "cross-attention output"
EMBEDDING, ENCODER_END, FINAL = ("embedding", "encoder end", "final")
NORM_ROLES = (
    *(EMBEDDING, ATTENTION, QUERY, KEY, ATTENTION_OUTPUT, CROSS_ATTENTION, CROSS_ATTENTION_OUTPUT),
    *(MLP, BOTH, MIXER, INNER, MLP_OUTPUT, ENCODER_END, FINAL),
)
"""What a norm over features is for in a transformer, in the order in which a block has them: the first five and the last
word of each say what it feeds, or what made its input."""

IN_BRANCHES = (ATTENTION, MLP, BOTH, MIXER, CROSS_ATTENTION, QUERY, KEY, INNER)
"""Roles of norms that are read by a branch."""

NO_PHASE = ""
"""The name of what is recorded outside all phases."""


def spelled(name: str) -> str:
    """A name with half a character spelled out: no file takes it, and no table of text where pyarrow is installed."""
    return name.encode("utf-8", "backslashreplace").decode()


def site_name(layer: str, call: int) -> str:
    """The name of a site in tables and titles: the path, and the call where it is not the first."""
    return f"{layer} (call {call + 1})" if call else layer


def said_passes(n_recorded: int, n_skipped: int) -> str:
    """How many forward passes were recorded, and where some were not, of how many."""
    made = n_recorded + n_skipped
    return f"{n_recorded:,}{f' of {made:,}' * bool(n_skipped)} forward pass{'es' * (made != 1)}"


def said(layer: str, call: int = 0) -> str:
    """The name of a site in a sentence: "layer 1" for a path that would be read as a number."""
    path = layer.partition(" ")[0]
    numeric = not any(character.isalpha() for character in path)
    return site_name(f"layer {layer}" if numeric else layer, call)


SAME, MEAN_SHIFTED, SCALE_SHIFTED, BOTH_SHIFTED = (
    "same",
    "mean shifted",
    "scale shifted",
    "mean and scale shifted",
)
NEVER_UPDATED, TOO_FEW, NO_STATISTICS = "never updated", "too few samples", "no running statistics"
SHIFTED = (MEAN_SHIFTED, SCALE_SHIFTED, BOTH_SHIFTED)
VERDICTS = (SAME, *SHIFTED, NEVER_UPDATED, TOO_FEW, NO_STATISTICS)
"""Whether the inputs of a norm match its running statistics."""

NOT_JUDGED = (NO_STATISTICS, NEVER_UPDATED)
"""Of norms whose inputs can neither match nor differ."""
