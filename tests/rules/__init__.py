"""Rules: what fires each one, and the nearest healthy neighbour that does not; a package, so that file names may repeat."""
