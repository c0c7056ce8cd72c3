#include "isa/select.h"

namespace adder_onnx {

const Float32Kernels& float32_kernels([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512) return kFloat32Avx512;
  if (isa == Isa::kAvx2) return kFloat32Avx2;
#elif defined(ADDER_ONNX_ARM64)
  if (isa == Isa::kNeonDotprod || isa == Isa::kNeon) return kFloat32Neon;
#endif
  return kFloat32Scalar;
}

const Uint8Kernels& uint8_kernels([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512) return kUint8Avx512;
  if (isa == Isa::kAvx2) return __builtin_cpu_is("amd") ? kUint8Avx2Packed : kUint8Avx2;
#elif defined(ADDER_ONNX_ARM64)
  if (isa == Isa::kNeonDotprod) return kUint8NeonDotprod;
  if (isa == Isa::kNeon) return kUint8Neon;
#endif
  return kUint8Scalar;
}

}  // namespace adder_onnx
