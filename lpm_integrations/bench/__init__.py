"""Benchmarks of memories: datasets, metrics, arms, runner and report."""
