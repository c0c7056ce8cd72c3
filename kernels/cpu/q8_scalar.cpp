// The uint8 kernels for scalar.
#define ADDER_SAD_KERNEL kQ8SadScalar
#define ADDER_DEPTHWISE_KERNEL q8_depthwise_scalar

#include "q8_depthwise.h"
#include "q8_sad.h"

#include "q8_lanes.inc"

#include "depthwise_taps.inc"
#include "q8_depthwise_kernel.inc"
#include "q8_sad_kernel.inc"
