"""The triton kernels, and nothing of torch: tensors come in as pointers, sizes and strides.

`engine` starts them. Imported on first use, because triton takes a second to import and ships
with torch's CUDA builds only. With TRITON_INTERPRET=1 they run on CPU tensors, one program after the
other: how they are tested where there is no GPU.
"""
