"""One family of errors. Each message gives the fact, the place, and the next step, in that order."""

from __future__ import annotations


class BnprobeError(Exception):
    """The base of everything bnprobe raises on purpose; the command line prints it as one line."""


class NoNormLayers(BnprobeError):
    """The model holds no normalization layer that bnprobe understands."""


class CannotProbe(BnprobeError):
    """The model runs where no hook of Python is called."""


class NothingRecorded(BnprobeError):
    """A report was asked for, but no forward pass reached a normalization layer."""


class CannotMerge(BnprobeError):
    """Two recordings or statistics do not describe the same layers with the same weights."""


class CannotCompare(BnprobeError):
    """Two recordings have no layer in common."""


class BadRecordingFile(BnprobeError):
    """A recording file is truncated, foreign, newer than this program, or was edited."""


class BadCheckpoint(BnprobeError):
    """A checkpoint cannot be read safely, or does not fit the model."""


class UnknownModel(BnprobeError):
    """No model of that name can be built."""


class BadImages(BnprobeError):
    """A folder of images is missing, empty, or holds nothing readable."""


class BadLabels(BnprobeError):
    """Class labels of a batch are not one whole number per sample."""


class CannotWrite(BnprobeError):
    """An output path cannot be written."""


class NotDefined(BnprobeError):
    """A quantity was asked of a layer for which it has no meaning."""


class BadSettings(BnprobeError):
    """A file of settings cannot be read, or asks for something that does not exist."""
