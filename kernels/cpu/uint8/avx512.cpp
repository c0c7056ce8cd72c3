// The uint8 kernels for avx512.
#include "uint8/kernels.h"

#include "uint8/lanes.inc"

#include "layers/depthwise_taps.inc"

#include "uint8/depthwise_kernel.inc"
#include "uint8/sad_kernel.inc"

namespace adder_onnx {

const Uint8Kernels kUint8Avx512 = {kSadKernel, run_depthwise};

}  // namespace adder_onnx
