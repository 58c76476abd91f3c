"""What must not change an output, tried: the last token, padding, and the other samples of a batch.

`sequences` reads a batch as rows of tokens and rebuilds it with other ones, `changes` makes the pairs of batches that each
probe compares, `alignment` finds the values of two passes that must be equal, `parting` finds the module where they part,
and `invariances` runs it all.
"""
