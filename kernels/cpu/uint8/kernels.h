// All uint8 kernels of one instruction set; isa/select.h chooses among the sets.
#pragma once

#include "uint8/depthwise.h"
#include "uint8/sad.h"

namespace adder_onnx {

struct Uint8Kernels {
  Q8SadKernel sad;
  Q8DepthwiseKernel depthwise;
  Q8Finish finish;
};

extern const Uint8Kernels kUint8Scalar;
#if defined(ADDER_ONNX_X86)
extern const Uint8Kernels kUint8Avx2;
extern const Uint8Kernels kUint8Avx2Packed;  // with packed sums, see uint8/sad.h
extern const Uint8Kernels kUint8Avx512;
#elif defined(ADDER_ONNX_ARM64)
extern const Uint8Kernels kUint8Neon;
extern const Uint8Kernels kUint8NeonDotprod;
#endif

}  // namespace adder_onnx
