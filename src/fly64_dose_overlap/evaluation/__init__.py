"""Reconstruct the test half, score every method alike, and report one cell."""
