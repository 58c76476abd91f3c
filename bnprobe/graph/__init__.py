"""What precedes and follows a norm, from the operations that were executed, never from names.

The first forward pass of the whole model is watched (`watch_this_call`), later ones only after a norm was new. When
the pass has ended, `neighbours_of` gives the neighbors of each norm, and what needs a neighbor's weights is reduced
to a few numbers per channel. Nothing of the pass is kept.
"""
