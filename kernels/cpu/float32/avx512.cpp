// The float32 kernels for avx512.
#include <utility>

#include "float32/kernels.h"

#include "float32/lanes/avx512.inc"

#include "float32/kernels.inc"

namespace adder_onnx {

const Float32Kernels kFloat32Avx512 = {
    {kKernel<Form::kDirect>, kKernel<Form::kMax>}, run_depthwise, run_gradient};

}  // namespace adder_onnx
