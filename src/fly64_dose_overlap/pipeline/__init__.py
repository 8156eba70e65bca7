"""The DVC side: cells, stages, the matrix and the command line."""
