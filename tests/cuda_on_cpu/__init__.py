"""The CUDA kernels compiled by the host's compiler and run on the CPU."""
