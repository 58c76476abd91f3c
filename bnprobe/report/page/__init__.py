"""What a page is made of: blocks, and rows of a frame as a table."""
