// The sizes of a layer's output, and its pads, as ONNX Conv and MaxPool have them.
#pragma once

#include "layers/params.h"
#include "layout/layout.h"

namespace adder_onnx {

enum class AutoPad { kNotSet, kSameUpper, kSameLower, kValid };

struct Padding {
  AutoPad mode = AutoPad::kNotSet;
  int64_t top = 0, left = 0, bottom = 0, right = 0;  // where the mode is kNotSet
  bool ceil = false;  // the last window along an axis may go beyond the padded image
};

// One call's sizes, for an image that has passed check_image, and parameters that have passed
// check_params. Throws std::invalid_argument: a pad is negative, the dilated kernel is larger than the
// padded image, or sizes are too large.
ConvShape conv_shape(const ConvParams& params, const Padding& padding, const ImageShape& image);

}  // namespace adder_onnx
