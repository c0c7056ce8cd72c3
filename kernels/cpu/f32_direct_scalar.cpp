// The float32 direct kernel for 128-bit vectors, which every compiler lowers to what the baseline machine has.
#define ADDER_LANES 4
#define ADDER_PIXELS 2
#define ADDER_VECTORS 2
#define ADDER_KERNEL kF32DirectScalar

#include "f32_direct.h"

#include "f32_direct_kernel.inc"
