"""Change a model, or a copy of one of its layers, and see what that does; what was there is there again after."""
