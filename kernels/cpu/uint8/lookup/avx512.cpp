// The lookup kernel for avx512.
#include <utility>

#include "uint8/lookup/kernel.h"

#include "uint8/lookup/lanes/avx512.inc"

#include "uint8/lookup/kernel.inc"

namespace adder_onnx {

const LookupKernel kLookupAvx512 = kLookup;

}  // namespace adder_onnx
