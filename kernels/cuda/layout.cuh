// Conversions at a chain's border, between (N, C, H, W) and channels-last (N, H, W, row), and
// between float32 and float16, by tiles of 32 x 32 that are transposed in shared memory.
#pragma once

#include "params.cuh"
#include "taps.cuh"

constexpr int kTile = 32;
constexpr int kTileRows = 8;  // a block has 32 x 8 threads

// Channels beyond the last are set to zero.
template <typename From, typename To>
__global__ void __launch_bounds__(kTile* kTileRows) nchw_to_nhwc(const LayoutArgs a) {
  __shared__ float tile[kTile][kTile + 1];
  const int column = threadIdx.x % kTile, row = threadIdx.x / kTile;
  const int pixel0 = blockIdx.x * kTile, channel0 = blockIdx.y * kTile;
  for (int n = blockIdx.z; n < a.batch; n += gridDim.z) {
    const From* from = static_cast<const From*>(a.from) +
                       static_cast<long long>(n) * a.channels * a.pixels;
    To* to = static_cast<To*>(a.to) + static_cast<long long>(n) * a.pixels * a.row;
    __syncthreads();
    for (int r = row; r < kTile; r += kTileRows) {
      const int channel = channel0 + r, pixel = pixel0 + column;
      const bool there = channel < a.channels && pixel < a.pixels;
      tile[r][column] =
          there ? to_float(from[static_cast<long long>(channel) * a.pixels + pixel]) : 0.0f;
    }
    __syncthreads();
    for (int r = row; r < kTile; r += kTileRows) {
      const int pixel = pixel0 + r, channel = channel0 + column;
      if (pixel < a.pixels && channel < a.row)
        to[static_cast<long long>(pixel) * a.row + channel] = from_float<To>(tile[column][r]);
    }
  }
}

template <typename From, typename To>
__global__ void __launch_bounds__(kTile* kTileRows) nhwc_to_nchw(const LayoutArgs a) {
  __shared__ float tile[kTile][kTile + 1];
  const int column = threadIdx.x % kTile, row = threadIdx.x / kTile;
  const int pixel0 = blockIdx.x * kTile, channel0 = blockIdx.y * kTile;
  for (int n = blockIdx.z; n < a.batch; n += gridDim.z) {
    const From* from =
        static_cast<const From*>(a.from) + static_cast<long long>(n) * a.pixels * a.row;
    To* to = static_cast<To*>(a.to) + static_cast<long long>(n) * a.channels * a.pixels;
    __syncthreads();
    for (int r = row; r < kTile; r += kTileRows) {
      const int pixel = pixel0 + r, channel = channel0 + column;
      const bool there = pixel < a.pixels && channel < a.channels;
      tile[r][column] =
          there ? to_float(from[static_cast<long long>(pixel) * a.row + channel]) : 0.0f;
    }
    __syncthreads();
    for (int r = row; r < kTile; r += kTileRows) {
      const int channel = channel0 + r, pixel = pixel0 + column;
      if (channel < a.channels && pixel < a.pixels)
        to[static_cast<long long>(channel) * a.pixels + pixel] = from_float<To>(tile[column][r]);
    }
  }
}
