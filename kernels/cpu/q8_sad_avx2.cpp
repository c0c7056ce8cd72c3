// The uint8 kernel for avx2.
#define ADDER_KERNEL kQ8SadAvx2

#include "q8_sad.h"

#include "q8_sad_kernel.inc"
