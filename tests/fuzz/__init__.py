"""Damaged models and feeds, each run in a process with limits; ``python -m tests.fuzz``."""
