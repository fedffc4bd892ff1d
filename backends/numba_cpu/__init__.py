"""The Numba backend: CPU kernels compiled for this machine; the rest falls back to NumPy."""
