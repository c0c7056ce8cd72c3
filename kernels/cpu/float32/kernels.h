// All float32 kernels of one instruction set; isa/select.h chooses among the sets.
#pragma once

#include "float32/depthwise.h"
#include "float32/gradient.h"
#include "float32/sums.h"

namespace adder_onnx {

struct Float32Kernels {
  F32Kernel sums[2];  // by form
  F32DepthwiseKernel depthwise;
  F32GradientKernel gradient;
};

extern const Float32Kernels kFloat32Scalar;
#if defined(ADDER_ONNX_X86)
extern const Float32Kernels kFloat32Avx2;
extern const Float32Kernels kFloat32Avx512;
#elif defined(ADDER_ONNX_ARM64)
extern const Float32Kernels kFloat32Neon;
#endif

}  // namespace adder_onnx
