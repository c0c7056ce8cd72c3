// The lookup kernel for neon_tables.
#include <utility>

#include "uint8/lookup/kernel.h"

#include "uint8/lookup/lanes/neon_tables.inc"

#include "uint8/lookup/kernel.inc"

namespace adder_onnx {

const LookupKernel kLookupNeonTables = kLookup;

}  // namespace adder_onnx
