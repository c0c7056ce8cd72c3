// All kernels; which of their instances exist is listed in variants.py.
#include "float/direct.cuh"
#include "float/gemm.cuh"
#include "layout/layout.cuh"
#include "float/pack.cuh"
#include "training/input_gradient.cuh"
#include "training/input_gradient_direct.cuh"
#include "training/pack.cuh"
