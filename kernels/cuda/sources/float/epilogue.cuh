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

// A thread's outputs, pixels `pixel` + i * kPixelLanes by filters `filter` + {0 … 3} of a group,
// one by one.
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

// Four neighbouring filters of a pixel, as they lie in a tensor.
struct FloatQuad {
  float4 values;

  __device__ float4 get() const { return values; }
  __device__ void set(const float4& from) { values = from; }
};
struct HalfQuad {
  uint2 bits;

  __device__ float4 get() const {
    const __half2* pairs = reinterpret_cast<const __half2*>(&bits);
    return make_float4(__low2float(pairs[0]), __high2float(pairs[0]), __low2float(pairs[1]),
                       __high2float(pairs[1]));
  }
  __device__ void set(const float4& from) {
    __half2* pairs = reinterpret_cast<__half2*>(&bits);
    pairs[0] = __floats2half2_rn(from.x, from.y);
    pairs[1] = __floats2half2_rn(from.z, from.w);
  }
};
template <typename Scalar>
struct QuadOf {
  using Type = FloatQuad;
};
template <>
struct QuadOf<__half> {
  using Type = HalfQuad;
};

// The same by whole quads: where there are several groups, their filters must be a multiple of
// four. In the last quad of a row there may be filters that do not exist: scale and bias are
// readable there, and the row's padding takes whatever comes out.
template <typename Tile>
__device__ void store_whole(const ConvArgs& a,
                            const typename Tile::Sum (&sums)[kThreadPixels][kThreadFilters],
                            int pixel, int group, int filter) {
  using Scalar = typename Tile::Scalar;
  using Quad = typename QuadOf<Scalar>::Type;
  if (filter >= a.group_out || pixel >= a.pixels) return;
  filter += group * a.group_out;
  const float4 scale = *reinterpret_cast<const float4*>(a.scale + filter);
  const float4 bias = *reinterpret_cast<const float4*>(a.bias + filter);

  const unsigned row = a.y_row * static_cast<unsigned>(sizeof(Scalar));
  const unsigned step = Tile::kPixelLanes * row;
  const unsigned long long first =
      static_cast<unsigned long long>(pixel) * row + filter * sizeof(Scalar);
  bool there[kThreadPixels];
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p) there[p] = pixel + p * Tile::kPixelLanes < a.pixels;

  // Without a residual zeros are added, and beyond the last pixel it is read once more: all loads
  // start at once, and none depends on a condition.
  const bool has_z = a.z != nullptr;
  const char* z = has_z ? static_cast<const char*>(a.z) + first : static_cast<const char*>(a.zeros);
  const unsigned z_step = has_z ? step : 0;
  Quad residuals[kThreadPixels];
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p) {
    if (p > 0) z += there[p] ? z_step : 0;
    residuals[p] = *reinterpret_cast<const Quad*>(z);
  }

  char* y = static_cast<char*>(a.y) + first;
#pragma unroll
  for (int p = 0; p < kThreadPixels; ++p, y += step) {
    const float4 residual = residuals[p].get();
    Quad quad;
    quad.set(make_float4(clip(a, sums[p][0].affine(scale.x, bias.x) + residual.x),
                         clip(a, sums[p][1].affine(scale.y, bias.y) + residual.y),
                         clip(a, sums[p][2].affine(scale.z, bias.z) + residual.z),
                         clip(a, sums[p][3].affine(scale.w, bias.w) + residual.w)));
    if (there[p]) *reinterpret_cast<Quad*>(y) = quad;
  }
}
