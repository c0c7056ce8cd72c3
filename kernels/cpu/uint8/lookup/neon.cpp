// The lookup kernel for neon.
#include <utility>

#include "uint8/lookup/kernel.h"

#include "uint8/lookup/lanes/neon.inc"

#include "uint8/lookup/kernel.inc"

namespace adder_onnx {

const LookupKernel kLookupNeon = kLookup;

}  // namespace adder_onnx
