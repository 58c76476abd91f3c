"""Norms folded, replaced or made smaller in a copy of the model, with what that does to the outputs."""
