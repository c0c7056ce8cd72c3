// Four unsigned bytes in a word.
#pragma once

#include "common/params.cuh"

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

__device__ inline unsigned word_of(uint4 words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}

// Four bytes, or one by one the first `count` of them.
__device__ inline unsigned load_bytes(const void* from, long long at, bool wide, int count) {
  const Byte* bytes = static_cast<const Byte*>(from) + at;
  if (wide) return __ldg(reinterpret_cast<const unsigned*>(bytes));
  unsigned word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) word |= __ldg(bytes + i) << 8 * i;
  return word;
}
__device__ inline void store_bytes(void* to, long long at, bool wide, int count, unsigned word) {
  Byte* bytes = static_cast<Byte*>(to) + at;
  if (wide) {
    *reinterpret_cast<unsigned*>(bytes) = word;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (i < count) bytes[i] = static_cast<Byte>(word >> 8 * i);
}
