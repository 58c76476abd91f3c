"""What to probe: torchvision's models by name, a user's own by import path, and the shipped demo.

A `Subject` is a model together with everything its numbers depend on: where the weights come from, how an
image becomes an input, and what stands in where the model does not take single images. Each part says
itself in words, so that a report can repeat it.

Files are read as tensors only. Nothing here unpickles code, and building a model leaves the caller's random
state as it was.
"""

from bnprobe.zoo.by_name import subject
from bnprobe.zoo.checkpoints import load_all, load_checkpoint, state_of
from bnprobe.zoo.preprocessing import CropAndScale
from bnprobe.zoo.shipped import DEMO_PREPROCESS, DEMO_WEIGHTS, demo, demo_facts, demo_network
from bnprobe.zoo.subjects import Subject
from bnprobe.zoo.torchvision_models import names

__all__ = [
    "DEMO_PREPROCESS",
    "DEMO_WEIGHTS",
    "CropAndScale",
    "Subject",
    "demo",
    "demo_facts",
    "demo_network",
    "load_all",
    "load_checkpoint",
    "names",
    "state_of",
    "subject",
]
