"""Whether the model is what it was: everything a probe could change, before and after, bit for bit."""
