// The uint8 kernel for avx2.
#define ADDER_KERNEL q8_direct_avx2

#include "q8_direct.h"

#include "q8_direct_kernel.inc"
