"""What to probe, mirrored file by file; a package, so that file names may repeat those one floor up."""
