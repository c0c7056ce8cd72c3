// All kernels; which of their instances exist is listed in variants.py.
#include "direct.cuh"
#include "gemm.cuh"
#include "layout.cuh"
#include "pack.cuh"
