// The uint8 kernels for avx2.
#include <utility>

#include "uint8/kernels.h"

#include "uint8/lanes/avx2.inc"

#include "uint8/kernels.inc"

#include "uint8/sad_kernel.inc"

#include "uint8/sad_packed_kernel.inc"

namespace adder_onnx {

const Uint8Kernels kUint8Avx2 = {kSadKernel, run_depthwise, kFinish};
const Uint8Kernels kUint8Avx2Packed = {kSadPackedKernel, run_depthwise, kFinish};

}  // namespace adder_onnx
