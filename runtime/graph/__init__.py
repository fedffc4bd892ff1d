"""Graphs: types, nodes, validation, inference of values, rewriting."""
