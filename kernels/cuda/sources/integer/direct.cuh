// The integer adder convolution with one thread for each output: for groups of few filters, where a
// tile of the matrix product would be mostly empty (depthwise layers), and as the naive kernel that
// the benchmark compares with.
//
// Neighbouring threads compute neighbouring filters of a pixel. Weights are packed as
// [kernel position][channel of the group][filter], single taps, without padding.
#pragma once

#include "common/image.cuh"
#include "integer/epilogue.cuh"

constexpr int kIntegerDirectThreads = 128;

__global__ void __launch_bounds__(kIntegerDirectThreads)
    integer_direct(const IntegerConvArgs a) {
  const int filters = a.weight_row;
  const int first = blockIdx.x * kIntegerDirectThreads + threadIdx.x;
  const int step = gridDim.x * kIntegerDirectThreads;
  const int step_pixels = step / filters, step_filters = step % filters;
  unsigned pixel = first / filters;
  int filter = first % filters;
#pragma unroll 1
  while (pixel < static_cast<unsigned>(a.pixels)) {
    const Origin origin = origin_of<Byte>(a, pixel);
    const int first_channel = filter / a.group_out * a.group_in;
    const Byte* weights = static_cast<const Byte*>(a.weights) + filter;
    unsigned sum = 0;
    for (int h = 0; h < a.kernel_h; ++h)
      for (int w = 0; w < a.kernel_w; ++w)
        for (int c = 0; c < a.group_in; ++c) {
          const Position at(a, h, w, c, first_channel);
          const int difference = __ldg(address<Byte>(a, origin, at)) - __ldg(weights);
          sum += difference < 0 ? -difference : difference;
          weights += filters;
        }
    const long long at = static_cast<long long>(pixel) * a.y_row + filter;
    const Byte z = a.z == nullptr ? 0 : __ldg(static_cast<const Byte*>(a.z) + at);
    const unsigned one[] = {sum};
    static_cast<Byte*>(a.y)[at] =
        static_cast<Byte>(finish(a, one, a.scale + filter, a.bias + filter, z));
    pixel += step_pixels;
    filter += step_filters;
    if (filter >= filters) {
      filter -= filters;
      ++pixel;
    }
  }
}
