"""Networks on group canvases: geometry, classical start, network, bundle, prediction."""
