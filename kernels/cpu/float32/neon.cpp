// The float32 kernels for neon and neon_dotprod.
#include <utility>

#include "float32/kernels.h"

#include "float32/lanes/neon.inc"

#include "float32/kernels.inc"

namespace adder_onnx {

const Float32Kernels kFloat32Neon = {
    {kKernel<Form::kDirect>, kKernel<Form::kMax>}, run_depthwise, run_gradient};

}  // namespace adder_onnx
