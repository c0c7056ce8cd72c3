// float32 adder convolution with one filter for each channel: channels side by side in a register, as
// they lie, and for each output pixel one step per kernel position. In direct form (f32_sums.h): a
// filter shares its inputs' sum with no other, so the max form would save nothing. At most
// kPartialTaps taps are added up in float32, these partial sums in double.
//
//   weights      [kernel position][padded_channels(C)]
//   scale, bias  padded_channels(C) values
#pragma once

#include "params.h"

namespace adder_onnx {

struct F32DepthwiseArgs {
  const ConvParams* params;
  const ConvShape* shape;
  const float* x;
  const float* padding;  // padded_channels(C) zeros
  const float* z;        // residual, laid out as y, or null
  float* y;
  const float* weights;
  const double* scale;
  const double* bias;
  Clip clip;
};

// Computes the output rows [first, last), numbered through the images. `taps` has room for
// kernel_size pointers.
using F32DepthwiseKernel = void (*)(const F32DepthwiseArgs& args, int64_t first, int64_t last,
                                    const float** taps);

void f32_depthwise_scalar(const F32DepthwiseArgs&, int64_t, int64_t, const float**);
#if defined(ADDER_ONNX_X86)
void f32_depthwise_avx2(const F32DepthwiseArgs&, int64_t, int64_t, const float**);
void f32_depthwise_avx512(const F32DepthwiseArgs&, int64_t, int64_t, const float**);
#endif

}  // namespace adder_onnx
