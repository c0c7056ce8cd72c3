// Max pooling of channels-last uint8 tensors. Taps in the padding do not count; a window without
// any other gives 0.
#pragma once

#include "layers/work.h"

namespace adder_onnx {

// Computes the output rows of `rows`, numbered through the images. `params` has as many channels in
// as out; padded channels are pooled like all others.
void max_pool(const ConvParams& params, const ConvShape& shape, const uint8_t* x, uint8_t* y,
              Range rows);

}  // namespace adder_onnx
