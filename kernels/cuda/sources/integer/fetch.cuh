// Where the taps of an output pixel come from, a chunk of 16 at a time. Padding is x's zero point.
#pragma once

#include "common/image.cuh"
#include "common/params.cuh"

constexpr int kChunkWords = 4, kChunkTaps = 16;

// A chunk, by its number among those of all kernel positions.
template <bool kVector>
struct IntegerFetch;

template <>
struct IntegerFetch<true> {
  Position at;

  __device__ IntegerFetch(const IntegerConvArgs& a, int chunk, int first_channel)
      : at(a, chunk, kChunkTaps, first_channel) {}

  __device__ bool is_inside(const IntegerConvArgs& a, const Origin& origin) const {
    return ::is_inside(a, origin, at);
  }
  // Of a chunk that is inside.
  __device__ const uint4* find(const Origin& origin) const {
    return reinterpret_cast<const uint4*>(address_inside<Byte>(origin, at));
  }
  __device__ uint4 load(const IntegerConvArgs& a, const Origin& origin) const {
    return __ldg(reinterpret_cast<const uint4*>(address<Byte>(a, origin, at)));
  }
};

// Gathered: every word, or every tap, is looked up by itself, for groups whose channels are not
// whole chunks. Words follow each other through the kernel positions; beyond the last one x is zero.
template <>
struct IntegerFetch<false> {
  Position words[kChunkWords];

  __device__ IntegerFetch(const IntegerConvArgs& a, int chunk, int first_channel)
      : words{{a, chunk * 4u, 4, first_channel},
              {a, chunk * 4u + 1, 4, first_channel},
              {a, chunk * 4u + 2, 4, first_channel},
              {a, chunk * 4u + 3, 4, first_channel}} {}

  __device__ static unsigned word(const IntegerConvArgs& a, const Origin& origin,
                                  const Position& at) {
    if (at.h == kOutside) return 0;
    const Byte* from = address<Byte>(a, origin, at);
    if (a.group_in % 4 == 0) return __ldg(reinterpret_cast<const unsigned*>(from));
    unsigned taps = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (at.channel + i < a.group_in) taps |= __ldg(from + i) << 8 * i;
    return taps;
  }
  __device__ uint4 load(const IntegerConvArgs& a, const Origin& origin) const {
    return make_uint4(word(a, origin, words[0]), word(a, origin, words[1]),
                      word(a, origin, words[2]), word(a, origin, words[3]));
  }
};
