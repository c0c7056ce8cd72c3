// The uint8 kernels for avx512.
#define ADDER_SAD_KERNEL kQ8SadAvx512
#define ADDER_DEPTHWISE_KERNEL q8_depthwise_avx512

#include "q8_depthwise.h"
#include "q8_sad.h"

#include "q8_lanes.inc"

#include "depthwise_taps.inc"
#include "q8_depthwise_kernel.inc"
#include "q8_sad_kernel.inc"
