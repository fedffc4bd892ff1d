"""Backends: one folder per device; they never import each other."""
