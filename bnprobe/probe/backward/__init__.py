"""Backward passes: the route of the gradient to a norm, and what it does there."""
