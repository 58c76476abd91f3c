"""Engines against the reference and numpy; a package, so that file names may repeat those one folder up."""
