"""Overlap views: which frames a cell keeps, how they are grouped, how much they overlap."""
