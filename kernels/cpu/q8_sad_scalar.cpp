// The uint8 kernel for scalar.
#define ADDER_KERNEL kQ8SadScalar

#include "q8_sad.h"

#include "q8_sad_kernel.inc"
