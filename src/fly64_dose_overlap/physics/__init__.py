"""The forward model, in torch: one implementation for simulation, losses and solvers."""
