// Packing of weights, (M, C/group, kH, kW), for input_gradient.cuh, by a thread for each of them:
//
//   packed[group][kernel position][filter of the group][channel of the group], halved
//
// What is beyond the last filter or channel is zero.
#pragma once

#include "common/params.cuh"

constexpr int kGradientPackThreads = 256;

__global__ void __launch_bounds__(kGradientPackThreads) pack_gradient_weights(const PackArgs a) {
  const long long size = static_cast<long long>(a.group) * a.weight_words * a.weight_row;
  const long long step = static_cast<long long>(gridDim.x) * kGradientPackThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kGradientPackThreads + threadIdx.x;
       i < size; i += step) {
    const int channel = static_cast<int>(i % a.weight_row);
    const long long rest = i / a.weight_row;
    const int filter = static_cast<int>(rest % a.words_per_position);
    const long long at = rest / a.words_per_position;
    const int position = static_cast<int>(at % a.kernel_size);
    const long long group = at / a.kernel_size;
    float weight = 0;
    if (filter < a.group_out && channel < a.group_in) {
      const long long from = (group * a.group_out + filter) * a.group_in + channel;
      weight = __ldg(static_cast<const float*>(a.weights) + from * a.kernel_size + position);
    }
    static_cast<float*>(a.packed)[i] = 0.5f * weight;
  }
}
