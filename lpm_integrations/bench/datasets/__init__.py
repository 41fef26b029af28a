"""Benchmark files, read into plain values."""
