// The gradient of an adder convolution with respect to its input, for training.
#pragma once

#include "isa/isa.h"
#include "layers/params.h"

namespace adder_onnx {

// x, grad_x: (N, C, H, W); weights: (M, C/group, kH, kW); grad_y: (N, M, oH, oW). Writes grad_x, see
// float32/gradient.h. The result does not depend on `threads`. `isa` must be one that this machine
// has. Throws std::invalid_argument where sizes are not valid (layers/checks.h), there is not one
// thread at least, or grad_x shares memory with another.
void input_gradient(const ConvParams& params, const ConvShape& shape, const float* x,
                    const float* weights, const float* grad_y, float* grad_x, Isa isa,
                    int threads);

}  // namespace adder_onnx
