# %% [markdown]
# # A tour of bnprobe
#
# This file is a notebook in plain text ("py:percent"): editors and Jupyter (with jupytext) open it cell by cell, and
# `python scripts/tour.py` runs it from top to bottom in a few seconds. It asks one small network what its norms learned,
# and teaches the calls of bnprobe on the way. Why one would ask is told in `reports/article.html`.

# %%
import copy
import tempfile
from pathlib import Path

import torch
from torch import nn

import bnprobe
from bnprobe import models
from bnprobe.models import image_folder

folder = Path(tempfile.mkdtemp(prefix="bnprobe-tour-"))

# %% [markdown]
# ## A model and some data
#
# Any `torch.nn.Module` will do. bnprobe brings a small trained network along: a mobilenet_v2 that reads handwritten
# digits, and 360 digits that it was not trained on.

# %%
subject = models.demo()
model = subject.model
batches = [
    (subject.to_inputs(batch.images)[0], torch.tensor(batch.labels))
    for batch in image_folder.demo_images().batches(subject.preprocess, 60)
]

# %% [markdown]
# ## Attach, run, report
#
# `attach` hooks every normalization layer. Then run the model as you always do; nothing about it changes. Leaving the
# `with` block takes the hooks out again.

# %%
with bnprobe.attach(model) as probe, torch.no_grad():
    for x, _ in batches[:3]:
        model(x)
report = bnprobe.report(probe)
print(report)

# %% [markdown]
# Two tables hold everything: a row per layer, and a row per channel of every layer. They are pandas DataFrames.
#
# Claim 5 of the article says that the outputs of a batch norm have mean β and deviation |γ|. Do they?

# %%
channels = report.channels
channels = channels[channels["gamma"].abs() > 0.01]
print(channels[["layer", "channel", "gamma", "beta", "post_mean", "post_var"]].head())
off = (channels["post_mean"] - channels["beta"]).abs() / channels["gamma"].abs()
ratio = channels["post_var"] ** 0.5 / channels["gamma"].abs()
print(f"mean off by {off.median():.3f} |γ|, deviation {ratio.median():.3f} |γ|, in a typical channel")

# %% [markdown]
# bnprobe has measured the same, and says per layer whether it holds, and why not where it does not.

# %%
print(report.layers["why_not"].value_counts())

# %% [markdown]
# ## Findings
#
# What is worth a look, why, and what to do about it.

# %%
print(report.findings[["severity", "rule", "layer", "says"]].head())

# %% [markdown]
# ## One page
#
# `to_html` writes one self-contained file; in Jupyter a report shows itself.

# %%
print(report.to_html(folder / "demo.html"))

# %% [markdown]
# ## Gradients
#
# `record` is the loop above in one call, with a progress bar. With a loss it also runs backward, and the tables tell
# how long the gradient is at every norm. A model in train mode updates its running statistics, as it would without
# bnprobe; a copy keeps yours as they are.

# %%
in_training = copy.deepcopy(model).train()
recording = bnprobe.record(in_training, batches[:3], nn.functional.cross_entropy)
gradients = bnprobe.report(recording)
print(gradients.layers[["layer", "grad_out", "grad_in", "energy_removed_layer"]].head())
print(
    f"imbalance of the gradient through depth: {gradients.gradient_imbalance:.2f} (0 is equally long everywhere)"
)

# %% [markdown]
# ## Files that add up
#
# A recording is plain data: save it, load it where there is no torch, and merge those of two machines. Merging gives the
# same numbers as one run over both parts.

# %%
first = bnprobe.record(model, batches[:3])
second = bnprobe.record(model, batches[3:])
first.save(folder / "first.bnp")
both = bnprobe.load(folder / "first.bnp").merge(second)
in_one_go = bnprobe.report(bnprobe.record(model, batches)).channels["pre_mean"]
gap = (bnprobe.report(both).channels["pre_mean"] - in_one_go).abs().max()
print(f"{both.about.n_images} images; largest difference to one run: {gap:.1e}")

# %% [markdown]
# ## Compare
#
# What changes if the images are darker? `compare` takes two recordings of the same network.

# %%
dark = bnprobe.record(model, [(x - 0.3, y) for x, y in batches])
comparison = bnprobe.compare(both, dark)
print(comparison.layers[["layer", "change"]].head())
print(f"the two part at {comparison.opens.layer if comparison.opens else 'no layer'}")

# %% [markdown]
# ## A layer of your own
#
# Batch, layer, group, instance and RMS norms are known. `register_norm` teaches bnprobe a class that it does not know;
# see docs/guide.md for what `describe` returns. From here: `bnprobe --help`, and the pages in `reports/`.
