"""Benchmarks: every figure that is claimed has a script here, and each prints ratios taken in one run on one machine."""
