"""CUDA kernels: their sources, compiled at run time, and what launches them."""
