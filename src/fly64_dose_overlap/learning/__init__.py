"""What learned methods share: estimates, networks, thinning, the training loop and model files."""
