"""The page and the text: what they say, and that nothing foreign gets through; a package, so that file names may repeat."""
