// The float32 direct kernel for AVX2.
#define ADDER_LANES 8
#define ADDER_PIXELS 4
#define ADDER_VECTORS 2
#define ADDER_KERNEL kF32DirectAvx2

#include "f32_direct.h"

#include "f32_direct_kernel.inc"
