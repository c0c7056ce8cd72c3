"""What the CUDA kernels reach on a GPU: ``python -m benchmarks.cuda``."""
