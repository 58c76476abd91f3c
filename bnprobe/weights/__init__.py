"""Files of weights as tables of named tensors: read as data, under limits, and without torch where that can be.

A tensor is declared when its file is opened, and its numbers are read when they are asked for. What torch alone can read
(files from before its version 1.6, sparse or quantized tensors) and tensors in RAM come in through `with_torch`.
"""

from bnprobe.weights.remote import fetch, remote_files
from bnprobe.weights.state_dicts import State, load, state_of, without_wrappers
from bnprobe.weights.tensor import Array, Tensor

__all__ = ["Array", "State", "Tensor", "fetch", "load", "remote_files", "state_of", "without_wrappers"]
