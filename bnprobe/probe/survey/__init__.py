"""One look at the model: what wraps it, which of its modules are norms, and which norms pass no hook."""
