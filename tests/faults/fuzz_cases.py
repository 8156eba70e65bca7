"""How many bad inputs each reader gets; apart from the readers, which take seconds to import."""

from __future__ import annotations

HYPOTHESIS = "params.yaml by hypothesis"
CASES = {
    "base NPZ": 1500,
    "dataset NPZ": 2000,
    "user's NPZ": 1500,
    "HDF5 of others": 1000,
    "truth in NPZ": 1000,
    "reconstruction NPZ": 1500,
    "manifest": 800,
    "params.yaml": 2000,
    HYPOTHESIS: 2000,
    "-S values": 800,
    "dvc.lock": 800,
    "limit": 1500,
    "time": 600,
    "checkpoint": 1200,
    "model bundle": 1200,
    "supervised bundle": 600,
}

Batch = tuple[str, int, int]
"""A reader, the number of its first case, and how many."""
