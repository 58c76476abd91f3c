"""The compiled loops: numba code only, and nothing of torch.

Every loop is started by an entry of `entries`, which takes the address of a task: a block of int64
that holds sizes, strides and addresses. Imported on first use, because numba takes half a second.
"""
