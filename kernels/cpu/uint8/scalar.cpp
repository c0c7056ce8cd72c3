// The uint8 kernels for scalar.
#include "uint8/kernels.h"

#include "uint8/lanes/scalar.inc"

#include "uint8/kernels.inc"

#include "uint8/sad_scalar.inc"

namespace adder_onnx {

const Uint8Kernels kUint8Scalar = {kSadKernel, run_depthwise, kFinish};

}  // namespace adder_onnx
