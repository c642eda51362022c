"""Dense kernels: matrices and vectors, without parameters."""
