"""Throughput of the study's inner loops, as ratios against references measured in the same run."""
