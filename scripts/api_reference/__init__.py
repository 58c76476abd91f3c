"""The API reference: one page made from the docstrings of everything public."""
