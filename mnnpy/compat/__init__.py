"""Faces of other packages over mnnpy, for programs that are written for those."""
