"""Values that add up, against a slow reference; a package, so that file names may repeat those one folder up."""
