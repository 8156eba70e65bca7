"""The matrix of cells as DVC experiments: planned, queued, watched and compared."""
