// uint8 adder convolution with one filter for each channel: channels side by side in a register, as
// they lie, and for each output pixel one step per kernel position. The epilogue is that of uint8/sad.h.
//
//   weights       [kernel position][padded_channels(C)]
//   factor, bias  padded_channels(C) values
#pragma once

#include "layers/params.h"
#include "uint8/sad.h"

namespace adder_onnx {

struct Q8DepthwiseArgs {
  const ConvParams* params;
  const ConvShape* shape;
  const uint8_t* x;
  const uint8_t* padding;  // padded_channels(C) times the zero point
  const uint8_t* z;        // residual, laid out as y, or null
  uint8_t* y;
  const uint8_t* weights;
  const float* factor;
  const float* bias;
};

// Computes the output rows [first, last), numbered through the images. `taps` has room for
// kernel_size pointers.
using Q8DepthwiseKernel = void (*)(const Q8DepthwiseArgs& args, const Q8Epilogue& epilogue,
                                   int64_t first, int64_t last, const uint8_t** taps);

}  // namespace adder_onnx
