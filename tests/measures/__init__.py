"""Columns against slow twins, formulas against hand-worked numbers; a package, so that file names may repeat."""
