// The lookup kernel for avx2.
#include <utility>

#include "uint8/lookup/kernel.h"

#include "uint8/lookup/lanes/avx2.inc"

#include "uint8/lookup/kernel.inc"

namespace adder_onnx {

const LookupKernel kLookupAvx2 = kLookup;

}  // namespace adder_onnx
