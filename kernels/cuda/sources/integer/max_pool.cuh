// Max pooling of channels-last uint8 tensors, by a thread for 16 channels of an output pixel. Taps
// in the padding do not count; a window without any other gives 0.
#pragma once

#include "common/image.cuh"
#include "integer/bytes.cuh"

constexpr int kPoolThreads = 128;

__global__ void __launch_bounds__(kPoolThreads) max_pool(const ConvArgs a) {
  const int units = a.y_row / 16;
  const int first = blockIdx.x * kPoolThreads + threadIdx.x;
  const int step = gridDim.x * kPoolThreads;
  const int step_pixels = step / units, step_units = step % units;
  unsigned pixel = first / units;
  int unit = first % units;
  while (pixel < static_cast<unsigned>(a.pixels)) {
    const Origin origin = origin_of<Byte>(a, pixel);
    uint4 largest = make_uint4(0, 0, 0, 0);
    for (int h = 0; h < a.kernel_h; ++h)
      for (int w = 0; w < a.kernel_w; ++w) {
        const Position at(a, h, w, 0, unit * 16);
        if (static_cast<unsigned>(origin.h + at.h) >= static_cast<unsigned>(a.in_h) ||
            static_cast<unsigned>(origin.w + at.w) >= static_cast<unsigned>(a.in_w))
          continue;
        const uint4 x = __ldg(reinterpret_cast<const uint4*>(origin.address + at.offset));
        largest = make_uint4(larger_bytes(largest.x, x.x), larger_bytes(largest.y, x.y),
                             larger_bytes(largest.z, x.z), larger_bytes(largest.w, x.w));
      }
    *reinterpret_cast<uint4*>(static_cast<Byte*>(a.y) +
                              static_cast<long long>(pixel) * a.y_row + unit * 16) = largest;
    pixel += step_pixels;
    unit += step_units;
    if (unit >= units) {
      unit -= units;
      ++pixel;
    }
  }
}
