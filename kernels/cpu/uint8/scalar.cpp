// The uint8 kernels for scalar.
#include "uint8/kernels.h"

#include "uint8/lanes.inc"

#include "layers/depthwise_taps.inc"

#include "uint8/depthwise_kernel.inc"
#include "uint8/sad_kernel.inc"

namespace adder_onnx {

const Uint8Kernels kUint8Scalar = {kSadKernel, run_depthwise};

}  // namespace adder_onnx
