"""The data model: what was seen, where, and from what. Plain frozen data that adds up, and its file."""

from bnprobe.recording.about import About, Normalize
from bnprobe.recording.call_log import CallLog
from bnprobe.recording.codec import is_recording
from bnprobe.recording.gradient_record import GradientRecord, NonfiniteGradient, ProducerRecord
from bnprobe.recording.layer_record import HISTOGRAMS_LOST, LayerRecord
from bnprobe.recording.names import (
    BATCH,
    CHANNELS,
    GROUP,
    INSTANCE,
    NO_PHASE,
    POOLS,
    UNITS,
    UNKNOWN,
    WEIGHTS_ONLY,
    site_name,
)
from bnprobe.recording.output_check import OutputCheck
from bnprobe.recording.rank_distance import gap_between
from bnprobe.recording.rank_gap import RankGap
from bnprobe.recording.recording import HasRecording, Recording, from_bytes, load
from bnprobe.recording.samples import SampleTable, common_samples
from bnprobe.recording.source import Source, named, same_samples
from bnprobe.recording.tensors import Dropout, TensorTable

__all__ = [
    "BATCH",
    "CHANNELS",
    "GROUP",
    "HISTOGRAMS_LOST",
    "INSTANCE",
    "NO_PHASE",
    "POOLS",
    "UNITS",
    "UNKNOWN",
    "WEIGHTS_ONLY",
    "About",
    "CallLog",
    "Dropout",
    "GradientRecord",
    "HasRecording",
    "LayerRecord",
    "NonfiniteGradient",
    "Normalize",
    "OutputCheck",
    "ProducerRecord",
    "RankGap",
    "Recording",
    "SampleTable",
    "Source",
    "TensorTable",
    "common_samples",
    "from_bytes",
    "gap_between",
    "is_recording",
    "load",
    "named",
    "same_samples",
    "site_name",
]
