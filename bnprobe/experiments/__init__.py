"""Change a model, run it and put it back bit for bit: what new running statistics would do, before any is written."""
