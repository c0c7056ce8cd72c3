// Conversions at a chain's border, between (N, C, H, W) and channels-last (N, H, W, row), and
// between types: each image is a matrix of channels and pixels that is transposed, by tiles of
// 32 x 32 in shared memory.
#pragma once

#include "layout/convert.cuh"

constexpr int kTile = 32;
constexpr int kTileRows = 8;  // a block has 32 x 8 threads

// Transposes the tile at (row0, column0) of a matrix, whose rows lie `pitch` elements apart. In the
// result columns are `filled` elements long, and what is beyond the matrix's last row is what zero
// becomes.
template <typename From, typename To>
__device__ void transpose_tile(const LayoutArgs& a, const From* from, int rows, int columns,
                               int pitch, int row0, int column0, To* to, int filled) {
  __shared__ float tile[kTile][kTile + 1];
  const int x = threadIdx.x % kTile, y0 = threadIdx.x / kTile;
  __syncthreads();
  for (int y = y0; y < kTile; y += kTileRows) {
    const int row = row0 + y, column = column0 + x;
    const bool there = row < rows && column < columns;
    tile[y][x] = there ? as_float(from[static_cast<long long>(row) * pitch + column]) : 0.0f;
  }
  __syncthreads();
  for (int y = y0; y < kTile; y += kTileRows) {
    const int column = column0 + y, row = row0 + x;
    if (column < columns && row < filled)
      to[static_cast<long long>(column) * filled + row] =
          looked_up(a, Convert<From, To>::run(a, tile[x][y]));
  }
}

// Channels beyond the last are set to what zero becomes.
template <typename From, typename To>
__global__ void __launch_bounds__(kTile* kTileRows) nchw_to_nhwc(const LayoutArgs a) {
  const long long from_size = static_cast<long long>(a.channels) * a.pixels;
  const long long to_size = static_cast<long long>(a.pixels) * a.row;
  for (int n = blockIdx.z; n < a.batch; n += gridDim.z)
    transpose_tile(a, static_cast<const From*>(a.from) + n * from_size, a.channels, a.pixels,
                   a.pixels, blockIdx.y * kTile, blockIdx.x * kTile,
                   static_cast<To*>(a.to) + n * to_size, a.row);
}

template <typename From, typename To>
__global__ void __launch_bounds__(kTile* kTileRows) nhwc_to_nchw(const LayoutArgs a) {
  const long long from_size = static_cast<long long>(a.pixels) * a.row;
  const long long to_size = static_cast<long long>(a.channels) * a.pixels;
  for (int n = blockIdx.z; n < a.batch; n += gridDim.z)
    transpose_tile(a, static_cast<const From*>(a.from) + n * from_size, a.pixels, a.channels,
                   a.row, blockIdx.x * kTile, blockIdx.y * kTile,
                   static_cast<To*>(a.to) + n * to_size, a.pixels);
}
