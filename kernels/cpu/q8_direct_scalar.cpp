// The uint8 kernel for scalar.
#define ADDER_KERNEL q8_direct_scalar

#include "q8_direct.h"

#include "q8_direct_kernel.inc"
