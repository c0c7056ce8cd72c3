"""How an adder layer is computed in PyTorch: by which kernels, and where there are none."""
