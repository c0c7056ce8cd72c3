// The uint8 kernel for avx512.
#define ADDER_KERNEL q8_direct_avx512

#include "q8_direct.h"

#include "q8_direct_kernel.inc"
