// The uint8 kernels for avx512.
#include <utility>

#include "uint8/kernels.h"

#include "uint8/lanes/avx512.inc"

#include "uint8/kernels.inc"

#include "uint8/sad_kernel.inc"

namespace adder_onnx {

const Uint8Kernels kUint8Avx512 = {kSadKernel, run_depthwise, kFinish};

}  // namespace adder_onnx
