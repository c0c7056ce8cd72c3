// Conversions between onnxruntime's layout (N, C, H, W), float32 or float16, and the kernels'
// (N, H, W, padded C), always float32.
#pragma once

#include "params.h"

namespace adder_onnx {

struct ImageShape {
  int64_t batch, channels, height, width;

  int64_t nchw_size() const { return batch * channels * height * width; }
  int64_t nhwc_size() const { return batch * height * width * padded_channels(channels); }
};

enum class ElementType { kFloat32, kFloat16 };

// The padding channels of `nhwc` are set to zero.
void nchw_to_nhwc(const ImageShape& shape, ElementType type, const void* nchw, float* nhwc,
                  int threads);
void nhwc_to_nchw(const ImageShape& shape, ElementType type, const float* nhwc, void* nchw,
                  int threads);

}  // namespace adder_onnx
