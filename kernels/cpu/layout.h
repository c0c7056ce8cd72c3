// Conversions between onnxruntime's layout (N, C, H, W) and the kernels' (N, H, W, padded C): float32
// and float16 to float32, uint8 to uint8.
#pragma once

#include "params.h"

namespace adder_onnx {

struct ImageShape {
  int64_t batch, channels, height, width;

  int64_t nchw_size() const { return batch * channels * height * width; }
  int64_t nhwc_size() const { return batch * height * width * padded_channels(channels); }
};

enum class ElementType { kFloat32, kFloat16, kUint8 };

// The padding channels of `nhwc` are set to zero.
void nchw_to_nhwc(const ImageShape& shape, ElementType type, const void* nchw, void* nhwc,
                  int threads);
void nhwc_to_nchw(const ImageShape& shape, ElementType type, const void* nhwc, void* nchw,
                  int threads);

}  // namespace adder_onnx
