"""From CUDA sources to machine code, and reading that back; needs no GPU."""
