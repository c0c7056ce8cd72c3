// The float32 kernels for avx2.
#include <utility>

#include "float32/kernels.h"

#include "float32/lanes/avx2.inc"

#include "float32/kernels.inc"

namespace adder_onnx {

const Float32Kernels kFloat32Avx2 = {
    {kKernel<Form::kDirect>, kKernel<Form::kMax>}, run_depthwise, run_gradient};

}  // namespace adder_onnx
