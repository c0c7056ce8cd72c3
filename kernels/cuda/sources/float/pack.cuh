// Packing of weights, (M, C/group, kH, kW), by a thread for each word.
//
//   packed[group][tile][word][filter of the tile], a word being the taps of neighbouring channels
//   at one kernel position: words of a position follow each other, then come those of the next one.
//
// What is beyond the last channel, word or filter is zero; x is zero there, too, so that it adds
// nothing to the sum.
#pragma once

#include "common/params.cuh"
#include "float/taps.cuh"

constexpr int kPackThreads = 256;

template <typename Scalar>
__device__ Scalar weight_at(const PackArgs& a, int filter, int channel, int position) {
  if (channel >= a.group_in) return from_float<Scalar>(0);
  const long long at = (static_cast<long long>(filter) * a.group_in + channel) * a.kernel_size;
  return static_cast<const Scalar*>(a.weights)[at + position];
}

template <typename Scalar, typename Word>
struct PackWord;
template <typename Scalar>
struct PackWord<Scalar, Scalar> {
  __device__ static Scalar make(const PackArgs& a, int filter, int word, int position) {
    return weight_at<Scalar>(a, filter, word, position);
  }
};
template <>
struct PackWord<__half, __half2> {
  __device__ static __half2 make(const PackArgs& a, int filter, int word, int position) {
    return __halves2half2(weight_at<__half>(a, filter, 2 * word, position),
                          weight_at<__half>(a, filter, 2 * word + 1, position));
  }
};

template <typename Scalar, typename Word>
__global__ void __launch_bounds__(kPackThreads) pack_weights(const PackArgs a) {
  const long long words = static_cast<long long>(a.group) * a.weight_words * a.weight_row;
  const long long step = static_cast<long long>(gridDim.x) * kPackThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kPackThreads + threadIdx.x; i < words;
       i += step) {
    const long long rest = i / a.tile_filters;
    const int at = static_cast<int>(rest % a.weight_words);
    const int tile = static_cast<int>(rest / a.weight_words), tiles = a.weight_row / a.tile_filters;
    const int filter = tile % tiles * a.tile_filters + static_cast<int>(i % a.tile_filters);
    const int group = tile / tiles;
    const int position = at / a.words_per_position, word = at % a.words_per_position;
    Word packed{};
    if (filter < a.group_out && position < a.kernel_size)
      packed = PackWord<Scalar, Word>::make(a, group * a.group_out + filter, word, position);
    static_cast<Word*>(a.packed)[i] = packed;
  }
}
