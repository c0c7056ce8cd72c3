// What defines the problems that the kernels solve. Plain data, shared by all instruction sets.
#pragma once

#include <cstdint>

namespace adder_onnx {

// Channels-last tensors have their channels padded to a multiple of this, so that whole vectors of
// every instruction set can be stored. What lies in the padding is unspecified and never read as
// an input channel.
constexpr int64_t kChannelAlignment = 16;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t padded_channels(int64_t channels) {
  return ceil_div(channels, kChannelAlignment) * kChannelAlignment;
}

// The attributes and the weight's shape of one adder convolution.
struct ConvParams {
  int64_t in_channels;   // C
  int64_t out_channels;  // M
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t dilation_h, dilation_w;
  int64_t group;

  int64_t group_in() const { return in_channels / group; }
  int64_t group_out() const { return out_channels / group; }
  int64_t kernel_size() const { return kernel_h * kernel_w; }
};

// One call's sizes. Pads are resolved by the caller: top and left are given, bottom and right
// follow from the sizes.
struct ConvShape {
  int64_t batch;
  int64_t in_h, in_w;
  int64_t out_h, out_w;
  int64_t pad_top, pad_left;
};

// The sum of absolute differences s becomes
//     y = min(max(scale[m] * -s + bias[m] + z, clip_min), clip_max)
// in this order, where z is the residual, if there is one.
struct Clip {
  float min;
  float max;
};

}  // namespace adder_onnx
