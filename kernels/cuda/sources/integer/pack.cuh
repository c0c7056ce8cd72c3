// Packing of integer weights, (M, C/group, kH, kW), by a thread for each packed element:
//
//   packed[group][word][filter of the group], a word being the taps of four neighbouring channels
//   at one kernel position, or one tap for the direct kernel: words of a position follow each other,
//   then come those of the next one.
//
// What is beyond the last channel, word or filter is zero; x is zero there, too, so that it adds
// nothing to the sum.
#pragma once

#include "common/params.cuh"

constexpr int kIntegerPackThreads = 256;

template <typename Word>
__global__ void __launch_bounds__(kIntegerPackThreads) pack_integer_weights(const PackArgs a) {
  constexpr int kPerWord = sizeof(Word);
  const Byte* weights = static_cast<const Byte*>(a.weights);
  const long long words = static_cast<long long>(a.group) * a.weight_words * a.weight_row;
  const long long step = static_cast<long long>(gridDim.x) * kIntegerPackThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kIntegerPackThreads + threadIdx.x;
       i < words; i += step) {
    const int filter = static_cast<int>(i % a.weight_row);
    const long long rest = i / a.weight_row;
    const int at = static_cast<int>(rest % a.weight_words);
    const int group = static_cast<int>(rest / a.weight_words);
    const int position = at / a.words_per_position, word = at % a.words_per_position;
    unsigned packed = 0;
    if (filter < a.group_out && position < a.kernel_size)
      for (int j = 0; j < kPerWord; ++j) {
        const int channel = word * kPerWord + j;
        if (channel >= a.group_in) break;
        const long long tap =
            static_cast<long long>(group * a.group_out + filter) * a.group_in + channel;
        packed |= static_cast<unsigned>(weights[tap * a.kernel_size + position]) << 8 * j;
      }
    static_cast<Word*>(a.packed)[i] = static_cast<Word>(packed);
  }
}
