"""Benchmarks of mnnpy."""
