"""The CUDA backend: CuPy, one arena per plan."""
