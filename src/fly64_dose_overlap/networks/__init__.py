"""The learned arm's model: mosaic of the groups, network, and the bundle that keeps it."""
