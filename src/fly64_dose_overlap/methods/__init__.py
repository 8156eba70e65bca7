"""Iterative reconstruction of all frames of a scan at once, each method behind one interface."""
