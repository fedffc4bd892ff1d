"""Programs from PyPI that are written for ONNX Runtime, run on it and on mnnpy's face for it.

``python -m tests.clients`` installs them into an environment of its own, changes nothing but their
imports in a copy, runs both, and prints a table of what they found.
"""
