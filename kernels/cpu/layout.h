// Conversions between onnxruntime's layout (N, C, H, W) and the kernels' (N, H, W, padded C).
#pragma once

#include "params.h"

namespace adder_onnx {

struct ImageShape {
  int64_t batch, channels, height, width;

  int64_t nchw_size() const { return batch * channels * height * width; }
  int64_t nhwc_size() const { return batch * height * width * padded_channels(channels); }
};

// The padding channels of `nhwc` are set to zero.
void nchw_to_nhwc(const ImageShape& shape, const float* nchw, float* nhwc, int threads);
void nhwc_to_nchw(const ImageShape& shape, const float* nhwc, float* nchw, int threads);

}  // namespace adder_onnx
