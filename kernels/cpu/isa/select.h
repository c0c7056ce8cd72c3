// Which kernels run: the one place where an instruction set's are chosen.
#pragma once

#include "float32/kernels.h"
#include "isa/isa.h"
#include "uint8/kernels.h"
#include "uint8/lookup/kernel.h"

namespace adder_onnx {

const Float32Kernels& float32_kernels(Isa isa);
const Uint8Kernels& uint8_kernels(Isa isa);
// Null where no kernel of the level takes inputs of so many levels.
const LookupKernel* lookup_kernel(Isa isa, int levels);

}  // namespace adder_onnx
