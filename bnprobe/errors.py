"""One family of errors. Each message gives the fact, the place, and the next step, in that order."""

from __future__ import annotations

from bnprobe.notebook import facts

_name_of = type.__dict__["__name__"].__get__


def class_name(thing: object) -> str:
    """The name of a thing's class for messages, as Python keeps it: a metaclass may have a `__name__` that raises."""
    return str.__str__(_name_of(type(thing)))


def said(error: BaseException) -> str:
    """The error of somebody else's code in one line, at most 200 characters of it."""
    try:
        words = " ".join(str(error).split())[:200]
    except Exception:  # what raises may be unable to say why
        words = ""
    return f"{class_name(error)}: {words}" if words else class_name(error)


class BnprobeError(Exception):
    """Base class of every error that bnprobe raises on purpose. Raised itself for an argument of the wrong kind.

    The message is one line: the fact, the place and the next step. The command line prints it without a traceback and
    exits with code 2. Not part of this family is `bnprobe.Interrupted`, which is a `KeyboardInterrupt`.

    What to do: catch this class to handle all of them; read the message, which ends with the next step.
    """

    def _repr_html_(self) -> str:
        return facts(type(self).__name__, [("message", self)])


class NoNormLayers(BnprobeError):
    """The model or file has no normalization layer that bnprobe recognizes, or no layer path matches `layers`.

    The message names the closest candidates.

    What to do: describe a layer of your own with `bnprobe.register_norm`, correct the pattern, or, if the norms were
    folded into convolutions, use the model from before the fusion.
    """


class CannotProbe(BnprobeError):
    """The model is TorchScript or an exported graph, where Python hooks are not called, or a norm's vectors are empty.

    What to do: attach to the model before scripting, tracing or exporting it, or check its weights with
    `bnprobe.check`. Empty vectors are stubs of shards: gather them, save again and load that file.
    """


class NothingRecorded(BnprobeError):
    """A report or comparison was requested, but no forward pass reached a normalization layer.

    What to do: run the very object passed to `bnprobe.attach`, while the probe is attached; a deep copy, an exported
    graph or a wrapper that was compiled earlier does not report to it. For `bnprobe.record`, give at least one batch.
    """


class CannotMerge(BnprobeError):
    """Two recordings differ in weights, layers or settings, so their statistics must not be added.

    What to do: record all parts from the same checkpoint, in eval mode if weights or running statistics would change
    between them. For recordings that are meant to differ use `bnprobe.compare`.
    """


class CannotCompare(BnprobeError):
    """The two sides have no normalization layer in common; layers are matched by path and number of channels.

    What to do: compare the same architecture in two states, or rename the modules of one side.
    """


class BadRecordingFile(BnprobeError):
    """A recording file is missing, truncated, edited, not a recording, or written by a newer bnprobe.

    The message names the field that is wrong.

    What to do: record again and write the file with `Recording.save`, or update bnprobe.
    """


class BadCheckpoint(BnprobeError):
    """A checkpoint cannot be read safely, or does not fit the model.

    Files are read as data only; one that would have to execute code is refused.

    What to do: save `model.state_dict()` with `torch.save` or safetensors and read that file.
    """


class CannotFetch(BadCheckpoint):
    """A remote file, or a part of it, cannot be had: no such file, no access, no answer, or another file by now.

    What to do: as the message says: correct the address, renew a token, try again, or download the file.
    """


class UnknownModel(BnprobeError):
    """No model or weights of that name can be built.

    What to do: pick a name from `bnprobe list`, or give a model of your own as "package.module:function".
    """


class BadImages(BnprobeError):
    """A folder of images is missing or empty, or none of its files can be read as an image.

    What to do: give a folder of images, directly or in one subfolder per class.
    """


class BadLabels(BnprobeError):
    """Class labels are not one integer per sample of the batch.

    What to do: pass a 1-D integer tensor, array or list, with -1 or None for unlabeled samples; for one-hot rows pass
    `y.argmax(1)`.
    """


class BadMask(BnprobeError):
    """A mask does not say of every position of the batch whether it counts, or keeps none.

    What to do: pass True or 1 for positions that count and False or 0 for padding, of shape (N,), (N, T) or (N, H, W). Of
    a mask that is added to attention scores pass `mask == 0`; one that marks padding must be turned round, `~mask`.
    """


class CannotWrite(BnprobeError):
    """A file cannot be written: no permission, no space, or the path is a folder.

    What to do: choose another path. A file that was there before is still whole.
    """


class NotDefined(BnprobeError):
    """A quantity was requested that has no meaning for this layer or recording, or a column or layer does not exist.

    What to do: pick a name from the columns of `Report.channels` or `Report.layers`; the glossary of the page says for
    which layers each is defined.
    """


class BadSettings(BnprobeError):
    """A settings or baseline file cannot be read, or names a rule, threshold or key that does not exist.

    What to do: correct the entry named in the message. `bnprobe rules` lists the rules, `bnprobe rules RULE` the thresholds
    of one.
    """
