"""One family of errors. Each message gives the fact, the place, and the next step, in that order."""

from __future__ import annotations


class BnprobeError(Exception):
    """Base class of all errors that bnprobe raises on purpose; the command line prints them as one line."""


class NoNormLayers(BnprobeError):
    """The model holds no normalization layer that bnprobe understands."""


class CannotProbe(BnprobeError):
    """The model runs where Python hooks are not called."""


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
    """A folder of images is missing, empty, or has no readable image."""


class BadLabels(BnprobeError):
    """Class labels of a batch are not one integer per sample."""


class CannotWrite(BnprobeError):
    """An output path cannot be written."""


class NotDefined(BnprobeError):
    """A quantity was requested for a layer where it has no meaning."""


class BadSettings(BnprobeError):
    """A settings file cannot be read, or names something that does not exist."""
