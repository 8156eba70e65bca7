"""One page, one table: all cells of the study side by side."""
