// All kernels; which of their instances exist is listed in variants.py.
#include "float/direct.cuh"
#include "float/gemm.cuh"
#include "float/pack.cuh"
#include "integer/direct.cuh"
#include "integer/gemm.cuh"
#include "integer/max_pool.cuh"
#include "integer/pack.cuh"
#include "layout/layout.cuh"
