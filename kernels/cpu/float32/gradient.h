// The gradient of an adder convolution with respect to its input (Chen et al., CVPR 2020,
// equation 7):
//
//   dX[c, p] = sum over filters m and kernel positions k of HardTanh(w[m, c, k] - X[c, p]) * dY[m, q]
//
// where q is the output pixel that has p at its position k. All taps of an input pixel have the same
// X: it stays in a register, channels side by side, while filters and positions pass by, and nothing
// larger than the gradient itself is ever made.
#pragma once

#include "layers/params.h"

namespace adder_onnx {

struct F32GradientArgs {
  const ConvParams* params;
  const ConvShape* shape;
  const float* x;        // (batch, in_h, in_w, padded C)
  const float* grad_y;   // (batch, out_h, out_w, padded M)
  const float* zeros;    // padded M of them
  const float* weights;  // [group][kernel position][filter][padded C/group]
  float* grad_x;         // (batch, in_h, in_w, padded C)
};

// Computes the input rows [first, last), numbered through the images.
using F32GradientKernel = void (*)(const F32GradientArgs& args, int64_t first, int64_t last);

}  // namespace adder_onnx
