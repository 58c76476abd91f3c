"""Columns against a slow reference, formulas against hand-worked numbers; a package, so that file names may repeat."""
