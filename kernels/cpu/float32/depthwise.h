// float32 adder convolution with one filter for each channel: channels side by side in a register, as
// they lie, and for each output pixel one step per kernel position. In direct form (float32/sums.h): a
// filter shares its inputs' sum with no other, so the max form would save nothing. At most
// kPartialTaps taps are added up in float32, these partial sums in double.
//
//   weights      [kernel position][padded_channels(C)]
//   scale, bias  padded_channels(C) values
#pragma once

#include "layers/params.h"

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

}  // namespace adder_onnx
