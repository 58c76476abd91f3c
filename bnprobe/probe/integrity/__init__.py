"""Whether the model is unchanged: everything that a probe could change, before and after, bit for bit."""
