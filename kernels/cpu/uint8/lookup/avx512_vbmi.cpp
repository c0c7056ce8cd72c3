// The lookup kernel for avx512_vbmi.
#include <utility>

#include "uint8/lookup/kernel.h"

#include "uint8/lookup/lanes/avx512_vbmi.inc"

#include "uint8/lookup/kernel.inc"

namespace adder_onnx {

const LookupKernel kLookupAvx512Vbmi = kLookup;

}  // namespace adder_onnx
