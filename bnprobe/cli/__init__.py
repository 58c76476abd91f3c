"""The command line: `main` parses and dispatches, and every larger command has a file of its own."""
