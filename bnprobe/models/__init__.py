"""What to probe: torchvision's models by name, a user's own by import path, and the shipped demo.

A `Subject` is a model together with everything its numbers depend on: where the weights come from, how an
image becomes an input, and what is used instead where the model does not take single images. Each part can
describe itself in words, so that a report can repeat them.

Files are read as tensors only. Nothing here unpickles code, and building a model leaves the caller's random
state as it was.
"""

from bnprobe.models.build import subject
from bnprobe.models.checkpoint_file import load_checkpoint
from bnprobe.models.demo import DEMO_PREPROCESS, DEMO_STUDY, DEMO_WEIGHTS, demo, demo_facts, demo_network
from bnprobe.models.preprocessing import CropAndScale
from bnprobe.models.subject import Subject
from bnprobe.models.torchvision_models import names

__all__ = [
    "DEMO_PREPROCESS",
    "DEMO_STUDY",
    "DEMO_WEIGHTS",
    "CropAndScale",
    "Subject",
    "demo",
    "demo_facts",
    "demo_network",
    "load_checkpoint",
    "names",
    "subject",
]
