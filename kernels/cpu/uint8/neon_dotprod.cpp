// The uint8 kernels for neon_dotprod.
#include <utility>

#include "uint8/kernels.h"

#include "uint8/lanes/neon_dotprod.inc"

#include "uint8/kernels.inc"

#include "uint8/sad_kernel.inc"

namespace adder_onnx {

const Uint8Kernels kUint8NeonDotprod = {kSadKernel, run_depthwise, kFinish};

}  // namespace adder_onnx
