"""One recording made by many processes: parts merged in a fixed order, from files or from the ranks of a process group."""
