"""One look at the model: what wraps it, which of its modules are norms, which are compiled, and what behaves as a norm."""
