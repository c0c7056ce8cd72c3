// Where lookups are used.
#pragma once

namespace adder_onnx {

// kWherePays is the default; the others are for comparisons: results are the same to the bit.
enum class UseLookups { kWherePays, kAlways, kNever };

// By the variable ADDER_ONNX_LOOKUPS: auto, always or never. Throws std::invalid_argument where it is
// anything else.
UseLookups use_lookups();

}  // namespace adder_onnx
