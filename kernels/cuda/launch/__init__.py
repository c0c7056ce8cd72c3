"""Launching the CUDA kernels: instances of their templates, which of them, and their arguments."""
