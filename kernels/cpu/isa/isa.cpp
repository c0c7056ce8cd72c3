#include "isa/isa.h"

#include <stdexcept>

#if defined(ADDER_ONNX_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(ADDER_ONNX_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace adder_onnx {

#if defined(ADDER_ONNX_ARM64)
namespace {

bool has_dot_products() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  int has = 0;
  size_t size = sizeof(has);
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has != 0;
#else
  return false;
#endif
}

}  // namespace
#endif

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Vbmi: return "avx512_vbmi";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    case Isa::kNeon: return "neon";
    case Isa::kNeonDotprod: return "neon_dotprod";
    case Isa::kScalar: break;
  }
  return "scalar";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas = {Isa::kScalar};
#if defined(ADDER_ONNX_X86)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    isas.push_back(Isa::kAvx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      isas.push_back(Isa::kAvx512);
      if (__builtin_cpu_supports("avx512vbmi")) isas.push_back(Isa::kAvx512Vbmi);
    }
  }
#elif defined(ADDER_ONNX_ARM64)
  isas.push_back(Isa::kNeon);  // every processor of this architecture has it
  if (has_dot_products()) isas.push_back(Isa::kNeonDotprod);
#endif
  return isas;
}

Isa isa_from_name(const std::string& name) {
  std::string known;
  for (Isa isa : available_isas()) {
    if (name == isa_name(isa)) return isa;
    known += known.empty() ? isa_name(isa) : std::string(", ") + isa_name(isa);
  }
  throw std::invalid_argument("instruction set '" + name +
                              "' is unknown or not available on this machine, which has " + known);
}

}  // namespace adder_onnx
