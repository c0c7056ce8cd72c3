// Four unsigned bytes in a word.
#pragma once

#if defined(__CUDA_ARCH__)

__device__ inline unsigned larger_bytes(unsigned a, unsigned b) { return __vmaxu4(a, b); }

#else  // the host's compiler

inline unsigned byte_of(unsigned word, int i) { return word >> 8 * i & 0xff; }
inline unsigned larger_bytes(unsigned a, unsigned b) {
  unsigned larger = 0;
  for (int i = 0; i < 4; ++i) larger |= max(byte_of(a, i), byte_of(b, i)) << 8 * i;
  return larger;
}

#endif
