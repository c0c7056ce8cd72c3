// The adder convolution with one thread for each output: for groups of few filters, where a tile of
// the matrix product would be mostly empty (depthwise layers), and as the naive kernel that the
// benchmark compares with.
//
// Neighbouring threads compute neighbouring filters of a pixel. Weights are packed as
// [kernel position][channel of the group][filter], single taps, without padding. float16 is
// converted tap by tap: sums are always FloatSum.
#pragma once

#include "float/epilogue.cuh"
#include "common/image.cuh"

constexpr int kDirectThreads = 128;

template <typename Scalar>
__global__ void __launch_bounds__(kDirectThreads) adder_conv_direct(const ConvArgs a) {
  const int filters = a.weight_row;
  const long long outputs = static_cast<long long>(a.pixels) * filters;
  const long long step = static_cast<long long>(gridDim.x) * kDirectThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kDirectThreads + threadIdx.x;
       i < outputs; i += step) {
    const int pixel = static_cast<int>(i / filters), filter = static_cast<int>(i % filters);
    const Origin origin = origin_of<Scalar>(a, pixel);
    const int first_channel = filter / a.group_out * a.group_in;
    const Scalar* weights = static_cast<const Scalar*>(a.weights) + filter;
    FloatSum sum;
    int terms = 0;
    for (int h = 0; h < a.kernel_h; ++h)
      for (int w = 0; w < a.kernel_w; ++w)
        for (int c = 0; c < a.group_in; ++c) {
          const Position at(a, h, w, c, first_channel);
          const float x = to_float(__ldg(address<Scalar>(a, origin, at)));
          sum.add(x, to_float(__ldg(weights)), terms == 0);
          weights += filters;
          if (++terms == FloatSum::kRunWords) {
            sum.fold();
            terms = 0;
          }
        }
    if (terms != 0) sum.fold();
    store_filter<Scalar>(a, sum, pixel, filter);
  }
}
