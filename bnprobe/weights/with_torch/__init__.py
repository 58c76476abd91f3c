"""Where weights and torch meet: files that torch alone can read, its tensors in RAM, and tensors of files for it."""
