"""What a page is made of: blocks, numbers in words, tables, and the order of its sections."""
