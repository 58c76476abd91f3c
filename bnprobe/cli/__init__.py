"""Commands of the command line that need a room of their own; `bnprobe.cli.main` hangs them in."""
