#include "isa/select.h"

namespace adder_onnx {

#if defined(ADDER_ONNX_X86)
#define ADDER_CHOOSE(kernels) \
  return isa == Isa::kAvx512 ? kernels##Avx512 : isa == Isa::kAvx2 ? kernels##Avx2 : kernels##Scalar
#else
#define ADDER_CHOOSE(kernels) return kernels##Scalar
#endif

const Float32Kernels& float32_kernels([[maybe_unused]] Isa isa) { ADDER_CHOOSE(kFloat32); }

const Uint8Kernels& uint8_kernels([[maybe_unused]] Isa isa) { ADDER_CHOOSE(kUint8); }

#undef ADDER_CHOOSE

}  // namespace adder_onnx
