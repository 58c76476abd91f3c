"""Programs around the package: they use its public names only. Run one as `python -m scripts.NAME`."""
