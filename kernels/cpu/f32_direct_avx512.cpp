// The float32 direct kernel for AVX-512 F.
#define ADDER_LANES 16
#define ADDER_PIXELS 6
#define ADDER_VECTORS 4
#define ADDER_KERNEL kF32DirectAvx512

#include "f32_direct.h"

#include "f32_direct_kernel.inc"
