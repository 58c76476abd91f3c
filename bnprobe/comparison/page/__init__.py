"""The page of a comparison: its sentences, tables and figures, and the same for machines."""
