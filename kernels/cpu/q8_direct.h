// uint8 adder convolution: sums of absolute differences of bytes, exact in int32, then the epilogue of
// QLinearAdderConv in float32, each step rounded by itself (no contraction: -ffp-contract=off).
//
//   v = float(sum) * -factor[m] + bias[m]
//   v = v + (z - z_zero_point) * z_scale      where there is a residual
//   v = max(v, clip_min)
//   y = min(max(round(v / y_scale) + y_zero_point, 0), top)
//
// Layouts
//   x, y, z   channels-last (N, H, W, padded_channels(C)), bytes.
//   weights   [filter][kernel position][channel of the group].
#pragma once

#include "params.h"

namespace adder_onnx {

// What follows the sum.
struct Q8Epilogue {
  float z_scale;
  float y_scale;
  int32_t z_zero_point, y_zero_point;
  float clip_min;
  float top;  // 2^bits - 1
};

struct Q8DirectArgs {
  const ConvParams* params;
  const ConvShape* shape;
  const uint8_t* x;
  const uint8_t* padding;  // padded_channels(C) bytes of the zero point
  const uint8_t* z;        // residual, laid out as y, or null
  uint8_t* y;
  const uint8_t* weights;
  const float* factor;
  const float* bias;
  Q8Epilogue epilogue;
};

// One instruction set's kernel: computes the output pixels [first, last) of all filters. `table` has
// room for (last - first) * kernel_size pointers.
using Q8DirectKernel = void (*)(const Q8DirectArgs& args, int64_t first, int64_t last,
                                const uint8_t** table);

void q8_direct_scalar(const Q8DirectArgs&, int64_t, int64_t, const uint8_t**);
#if defined(ADDER_ONNX_X86)
void q8_direct_avx2(const Q8DirectArgs&, int64_t, int64_t, const uint8_t**);
void q8_direct_avx512(const Q8DirectArgs&, int64_t, int64_t, const uint8_t**);
#endif

}  // namespace adder_onnx
