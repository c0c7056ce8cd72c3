// What follows the sum: scale and bias, residual, clip, and the conversion to the tensor's type.
#pragma once

#include "common/params.cuh"
#include "float/taps.cuh"
#include "float/tile.cuh"

// NaN stays NaN.
__device__ inline float clip(const ConvArgs& a, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(value) : "f"(a.clip_min));
  asm("min.NaN.f32 %0, %0, %1;" : "+f"(value) : "f"(a.clip_max));
  return value;
#else
  value = value < a.clip_min ? a.clip_min : value;
  return value > a.clip_max ? a.clip_max : value;
#endif
}

template <typename Scalar, typename Sum>
__device__ void store_filter(const ConvArgs& a, const Sum& sum, int pixel, int filter) {
  const long long at = static_cast<long long>(pixel) * a.y_row + filter;
  const Scalar* z = static_cast<const Scalar*>(a.z);
  const float residual = z == nullptr ? 0.0f : to_float(z[at]);
  const float value = sum.affine(a.scale[filter], a.bias[filter]);
  static_cast<Scalar*>(a.y)[at] = from_float<Scalar>(clip(a, value + residual));
}

// A thread's outputs, pixels `pixel` + i * kPixelLanes by filters `filter` + {0 … 3} of a group, one
// by one.
template <typename Tile>
__device__ void store_single(const ConvArgs& a,
                             const typename Tile::Sum (&sums)[kThreadPixels][kThreadFilters],
                             int pixel, int group, int filter) {
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p, pixel += Tile::kPixelLanes)
#pragma unroll
    for (int f = 0; f < kThreadFilters; ++f)
      if (pixel < a.pixels && filter + f < a.group_out)
        store_filter<typename Tile::Scalar>(a, sums[p][f], pixel, group * a.group_out + filter + f);
}

// Four neighbouring filters of a pixel.
template <typename Scalar>
struct alignas(4 * sizeof(Scalar)) Quad {
  Scalar values[4];
};

// The same by whole quads: where there are several groups, their filters must be a multiple of four.
// In the last quad of a row there may be filters that do not exist: scale and bias are readable
// there, and the row's padding takes whatever comes out.
template <typename Tile>
__device__ void store_whole(const ConvArgs& a,
                            const typename Tile::Sum (&sums)[kThreadPixels][kThreadFilters],
                            int pixel, int group, int filter) {
  using Scalar = typename Tile::Scalar;
  if (filter >= a.group_out) return;
  filter += group * a.group_out;
  const long long first = static_cast<long long>(pixel) * a.y_row + filter;
  const int step = Tile::kPixelLanes * a.y_row;
  const float4 scale = *reinterpret_cast<const float4*>(a.scale + filter);
  const float4 bias = *reinterpret_cast<const float4*>(a.bias + filter);
  const Scalar* z = static_cast<const Scalar*>(a.z) + first;
  Scalar* y = static_cast<Scalar*>(a.y) + first;
  Quad<Scalar> residuals[kThreadPixels] = {};
  if (a.z != nullptr) {
#pragma unroll
    for (int p = 0; p < kThreadPixels; ++p)
      if (pixel + p * Tile::kPixelLanes < a.pixels)
        residuals[p] = *reinterpret_cast<const Quad<Scalar>*>(z + p * step);
  }
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p) {
    const float4 v = make_float4(sums[p][0].affine(scale.x, bias.x), sums[p][1].affine(scale.y, bias.y),
      sums[p][2].affine(scale.z, bias.z), sums[p][3].affine(scale.w, bias.w));
    const float values[4] = {v.x, v.y, v.z, v.w};
    Quad<Scalar> quad;
#pragma unroll
    for (int f = 0; f < kThreadFilters; ++f)
      quad.values[f] = from_float<Scalar>(clip(a, values[f] + to_float(residuals[p].values[f])));
    if (pixel + p * Tile::kPixelLanes < a.pixels)
      *reinterpret_cast<Quad<Scalar>*>(y + p * step) = quad;
  }
}
