"""The vocabulary of recordings: what a norm pools over, and the name of a site."""

from __future__ import annotations

BATCH, INSTANCE, GROUP, CHANNELS = POOLS = ("batch", "instance", "group", "channels")
"""What a norm pools over: the batch per channel; each sample's channel; each sample's group of
channels; or all channels at each position (layer and RMS norm)."""


UNKNOWN = "unknown"
"""In place of a pool: of a norm that was read from a file, without the module that would tell."""


WEIGHTS_ONLY = "weights only"
"""The mode of a norm that was not called: all that is known of it is what the weights around it say."""


def site_name(layer: str, call: int) -> str:
    """The name of a site in messages, sentences and tables: the path, and the call where it is not the first."""
    return f"{layer} (call {call + 1})" if call else layer
