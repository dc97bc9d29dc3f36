"""Measurements, as ratios against a named peer or the raw limit in the same run: `python -m benchmarks`."""
