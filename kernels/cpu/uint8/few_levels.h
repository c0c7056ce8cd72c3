// Outputs that are only a few of the integers: which sums become which of them.
#pragma once

#include <vector>

#include "uint8/sad.h"

namespace adder_onnx {

// The borders of `levels` for the kernels' comparisons. With q = max(v, clip_min) / y_scale, rounded to
// float32, an output is
//
//   levels[number of i with q > (levels[i - 1] + levels[i]) / 2 - y_zero_point]
//
// Both steps from v to q keep order, so that the i-th comparison holds from one v on, which is found by
// bisection; from -infinity on where it holds for clip_min. Whatever is compared with NaN is not passed.
//
// Throws std::invalid_argument unless the levels are none, or 2 to 16 that rise from 0 to `top` at most.
// y_scale must be positive and finite, clip_min a number.
Q8Levels make_levels(const std::vector<uint8_t>& levels, float y_scale, int32_t y_zero_point,
                     float clip_min, int32_t top);

}  // namespace adder_onnx
