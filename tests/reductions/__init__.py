"""Kernels, against their twins; a package, so that file names may repeat those one floor up."""
