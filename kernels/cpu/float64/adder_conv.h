// AdderConv in double: the definition as it stands, for the few who need it.
#pragma once

#include "layers/params.h"
#include "threads/workers.h"

namespace adder_onnx {

// x: (batch, C, in_h, in_w), weights: (M, C/group, kH, kW), y: (batch, M, out_h, out_w), in C order. The
// parameters have passed check_params, the shape check_shape.
void adder_conv_float64(const ConvParams& params, const ConvShape& shape, const double* x,
                        const double* weights, double* y, const Workers& workers);

}  // namespace adder_onnx
