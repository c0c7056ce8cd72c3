#include "isa/select.h"

#include <initializer_list>

namespace adder_onnx {
namespace {

// The first that takes so many levels, or null.
const LookupKernel* first_of(int levels, std::initializer_list<const LookupKernel*> kernels) {
  for (const LookupKernel* kernel : kernels)
    if (levels <= 1 << kernel->code_bits) return kernel;
  return nullptr;
}

}  // namespace

const Float32Kernels& float32_kernels([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512Vbmi || isa == Isa::kAvx512) return kFloat32Avx512;
  if (isa == Isa::kAvx2) return kFloat32Avx2;
#elif defined(ADDER_ONNX_ARM64)
  if (isa == Isa::kNeonDotprod || isa == Isa::kNeon) return kFloat32Neon;
#endif
  return kFloat32Scalar;
}

const Uint8Kernels& uint8_kernels([[maybe_unused]] Isa isa) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512Vbmi || isa == Isa::kAvx512) return kUint8Avx512;
  if (isa == Isa::kAvx2) return __builtin_cpu_is("amd") ? kUint8Avx2Packed : kUint8Avx2;
#elif defined(ADDER_ONNX_ARM64)
  if (isa == Isa::kNeonDotprod) return kUint8NeonDotprod;
  if (isa == Isa::kNeon) return kUint8Neon;
#endif
  return kUint8Scalar;
}

const LookupKernel* lookup_kernel([[maybe_unused]] Isa isa, int levels) {
#if defined(ADDER_ONNX_X86)
  if (isa == Isa::kAvx512Vbmi) return first_of(levels, {&kLookupAvx512Vbmi});
  if (isa == Isa::kAvx512) return first_of(levels, {&kLookupAvx512});
  if (isa == Isa::kAvx2) return first_of(levels, {&kLookupAvx2});
#elif defined(ADDER_ONNX_ARM64)
  if (isa == Isa::kNeonDotprod || isa == Isa::kNeon)
    return first_of(levels, {&kLookupNeon, &kLookupNeonTables});
#endif
  return first_of(levels, {&kLookupScalar});
}

}  // namespace adder_onnx
