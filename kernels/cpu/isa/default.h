// The level that runs where no caller chooses one.
#pragma once

#include "isa/isa.h"

namespace adder_onnx {

// The variable ADDER_ONNX_CPU_ISA's, where it is set, else the highest that this machine has.
// Throws std::invalid_argument where it names one that is unknown, or that the machine lacks.
Isa default_isa();

}  // namespace adder_onnx
