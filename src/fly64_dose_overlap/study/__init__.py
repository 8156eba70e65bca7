"""Simulate what a scan measures: probe, object, positions and photon counts."""
