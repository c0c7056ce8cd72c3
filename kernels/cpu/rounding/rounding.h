// The choice between two neighbouring integers for each weight of a quantized layer.
#pragma once

#include <cstdint>

#include "threads/stop_flag.h"

namespace adder_onnx {

// Coordinate descent on a layer's error over samples of its input, filter by filter: a weight moves
// by its step where that lowers the variance of what the filter's sums lack, in each of `parts`
// ranges of the samples. What lowers it in one of them only would be chance.
//
// x: (taps, samples), integers of the input. weights: (filters, taps), integers; changed. steps:
// (filters, taps), -1, 0 or 1: the other integer that a weight may be, less the one it is; changed.
// missing: (filters, samples), the sums' targets less Σ |x - w|; changed. Each weight is visited
// `sweeps` times, in the order of the taps. The result does not depend on `threads`. Once `stop` is
// set the rest is left out.
//
// Throws std::invalid_argument, with nothing changed: a size, `sweeps` or `threads` is not valid,
// there are more parts than samples or than kMaxParts, a step leads out of uint8, or arrays share
// memory.
constexpr int64_t kMaxParts = 256;
void choose_roundings(const uint8_t* x, uint8_t* weights, int8_t* steps, float* missing,
                      int64_t filters, int64_t taps, int64_t samples, int64_t parts, int sweeps,
                      int threads, const StopFlag& stop = StopFlag::never());

}  // namespace adder_onnx
