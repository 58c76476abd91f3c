"""Why a rule's advice is not carried out: reasons that several rules share; each ends "Not tried: ...".

A rule has either these words, its own, or the kinds of `edits` that its findings may bring.
"""

from __future__ import annotations

TRAINING = "it takes steps of training, which are not made here"
BATCHES = "it is about how batches are made, before the model gets them"
ANOTHER_FILE = "it takes another file of weights"
CODE = "it takes other code of the model"
TWO_SIDES = "it is about two recordings, and one model is at hand"
