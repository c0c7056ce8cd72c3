// The uint8 kernel for avx512.
#define ADDER_KERNEL kQ8SadAvx512

#include "q8_sad.h"

#include "q8_sad_kernel.inc"
