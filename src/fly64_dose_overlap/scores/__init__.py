"""How reconstructions are compared with the truth: one rule for every method."""
