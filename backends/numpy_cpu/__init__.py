"""The NumPy backend: BLAS and NumPy, always there, covers every operator."""
