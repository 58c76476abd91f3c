"""One look at the model: its wrappers, its norms, its compiled parts, and modules that behave like norms."""
