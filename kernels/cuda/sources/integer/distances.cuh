// Sums of absolute differences of four unsigned bytes at a time: the ways that GPUs have, one of
// which selection.py chooses by the architecture.
//
//   Fused    one instruction, VABSDIFF4.U8.ACC, up to compute capability 10.3
//   Dotted   the differences, and a dot product with ones: two, or four from 12.0 on
//   Doubled  twice the maxima: |x - w| = 2 max(x, w) - x - w. A maximum and a dot product for each
//            word and filter, and a dot product for each word, whose sum all filters share; the
//            sums of w are constants. From 12.0 on, where code is made for the family.
#pragma once

#include "integer/bytes.cuh"

#if defined(__CUDA_ARCH__)

__device__ inline unsigned dot_bytes(unsigned a, unsigned b, unsigned sum) {
  return __dp4a(a, b, sum);
}

struct Fused {
  static constexpr bool kDoubled = false;
  __device__ static unsigned add(unsigned sum, unsigned x, unsigned w) {
    asm("vabsdiff4.u32.u32.u32.add %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(w));
    return sum;
  }
};

struct Dotted {
  static constexpr bool kDoubled = false;
  __device__ static unsigned add(unsigned sum, unsigned x, unsigned w) {
    return __dp4a(__vabsdiffu4(x, w), 0x01010101u, sum);
  }
};

struct Doubled {
  static constexpr bool kDoubled = true;
  __device__ static unsigned add(unsigned sum, unsigned x, unsigned w) {
    unsigned larger;
    asm("max.u8x4 %0, %1, %2;" : "=r"(larger) : "r"(x), "r"(w));
    return __dp4a(larger, 0x02020202u, sum);
  }
};

#else  // the host's compiler

inline unsigned dot_bytes(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 4; ++i) sum += byte_of(a, i) * byte_of(b, i);
  return sum;
}
inline unsigned add_distances(unsigned sum, unsigned x, unsigned w) {
  for (int i = 0; i < 4; ++i) {
    const unsigned a = byte_of(x, i), b = byte_of(w, i);
    sum += a > b ? a - b : b - a;
  }
  return sum;
}

struct Fused {
  static constexpr bool kDoubled = false;
  static unsigned add(unsigned sum, unsigned x, unsigned w) { return add_distances(sum, x, w); }
};
struct Dotted {
  static constexpr bool kDoubled = false;
  static unsigned add(unsigned sum, unsigned x, unsigned w) { return add_distances(sum, x, w); }
};
struct Doubled {
  static constexpr bool kDoubled = true;
  static unsigned add(unsigned sum, unsigned x, unsigned w) {
    return dot_bytes(larger_bytes(x, w), 0x02020202u, sum);
  }
};

#endif
