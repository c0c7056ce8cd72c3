// The uint8 kernels for neon.
#include <utility>

#include "uint8/kernels.h"

#include "uint8/lanes/neon.inc"

#include "uint8/kernels.inc"

#include "uint8/sad_kernel.inc"

namespace adder_onnx {

const Uint8Kernels kUint8Neon = {kSadKernel, run_depthwise, kFinish};

}  // namespace adder_onnx
