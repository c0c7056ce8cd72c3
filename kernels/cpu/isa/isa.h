// The levels of instruction sets that kernels are built for, and which of them this machine has.
#pragma once

#include <string>
#include <vector>

namespace adder_onnx {

enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Vbmi, kNeon, kNeonDotprod };

const char* isa_name(Isa isa);

// The level called `name`: scalar, avx2, avx512, avx512_vbmi, neon or neon_dotprod.
// Throws std::invalid_argument where it is unknown or the machine lacks it.
Isa isa_from_name(const std::string& name);

// The levels that this machine can execute, lowest first.
std::vector<Isa> available_isas();

}  // namespace adder_onnx
