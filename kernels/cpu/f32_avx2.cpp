// The float32 kernels for avx2.
#define ADDER_F32_DEPTHWISE_KERNEL f32_depthwise_avx2
#define ADDER_F32_KERNEL kF32Avx2
#define ADDER_GRADIENT_KERNEL f32_gradient_avx2

#include <utility>

#include "f32_depthwise.h"
#include "f32_gradient.h"
#include "f32_sums.h"

#include "f32_lanes.inc"

#include "depthwise_taps.inc"
#include "f32_depthwise_kernel.inc"
#include "f32_gradient_kernel.inc"
#include "f32_sums_kernel.inc"
