// What follows the sum: scale and bias, residual, clip, and the conversion to the tensor's type.
#pragma once

#include "common/params.cuh"
#include "float/taps.cuh"

// The clip is written so that NaN stays NaN.
__device__ inline float finish(const ConvArgs& a, float value, float residual) {
  value += residual;
  value = value < a.clip_min ? a.clip_min : value;
  return value > a.clip_max ? a.clip_max : value;
}

template <typename Scalar, typename Sum>
__device__ void store_filter(const ConvArgs& a, const Sum& sum, int pixel, int filter) {
  const long long at = static_cast<long long>(pixel) * a.y_row + filter;
  const Scalar* z = static_cast<const Scalar*>(a.z);
  const float residual = z == nullptr ? 0.0f : to_float(z[at]);
  const float value = sum.affine(a.scale[filter], a.bias[filter]);
  static_cast<Scalar*>(a.y)[at] = from_float<Scalar>(finish(a, value, residual));
}

// Four filters of a group, beginning at one that is a multiple of four.
template <typename Scalar, typename Sum>
__device__ void store_filters(const ConvArgs& a, const Sum (&sums)[4], int pixel, int group,
                              int first) {
#pragma unroll
  for (int f = 0; f < 4; ++f)
    if (first + f < a.group_out)
      store_filter<Scalar>(a, sums[f], pixel, group * a.group_out + first + f);
}
