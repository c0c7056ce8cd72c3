// What follows the integer sum: the arithmetic of QLinearAdderConv, each step rounded to float32 by
// itself, so that all devices give the same bits:
//
//   v = float(sum) * -scale[m] + bias[m]
//   v = v + (z - z_zero_point) * z_scale      where there is a residual
//   y = clamp(round_half_even(max(v, clip_min) / y_scale) + y_zero_point, 0, top)
//
// Clamp. It is done before the division: with low = -y_zero_point * y_scale the quotient of low
// rounds to exactly -y_zero_point, likewise above, and quotient and rounding are monotone. What is no
// number becomes the lower bound.
//
// Division. It is the product with the reciprocal r, and one correction (Markstein, IBM Journal of
// Research and Development 34, 1990), each fused:
//
//   q = v * r;  quotient = q + (v - q * y_scale) * r
//
// For all 2^23 scales from 1 to 2, tried one by one, this is what a division gives at every border
// between two integers up to 255, and at the four floats on either side of it; elsewhere it is near
// enough. Other scales differ by a power of two, which changes nothing but where a step leaves the
// range of normal numbers. That it cannot: the launcher multiplies scales beyond 2^-60 … 2^60 by a
// power of two, y_factor, and v is multiplied, too. Quotients so small that something is lost
// nevertheless are nowhere near a half.
//
// Levels. Where outputs are of a few levels only, v is compared with the border between each two of them,
// before anything else: the launcher has found the least v with max(v, clip_min) / y_scale above
// (level + next) / 2 - y_zero_point, rounded.
//
// Conversions. A GPU has few units for those between integers and floats. Small integers are the
// last bits of floats around 2^23, and adding 1.5 * 2^23 rounds to an integer, to even.
#pragma once

#include "common/params.cuh"
#include "common/rounded.cuh"

constexpr unsigned kTwoTo23 = 0x4b000000;    // the bits of 2^23 as a float
constexpr float kRoundToInteger = 12582912;  // 1.5 * 2^23, whose last byte is 0

// The levels of some values, one in each byte; a.borders is not 0. (Down to 0, or the compiler makes the
// loop's first turn apart.)
template <int kCount>
__device__ inline unsigned nearest_levels(const IntegerConvArgs& a, const float (&v)[kCount]) {
  unsigned levels = a.first_level;
  int i = a.borders;
#pragma unroll 1
  do {
    --i;
    unsigned passed = 0;
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      passed |= bits_if_at_least(v[k], a.border[i], 0xffu << 8 * k);
    levels += passed & a.step[i];
  } while (i > 0);
  return levels;
}

__device__ inline unsigned requantize(const IntegerConvArgs& a, float v) {
  v = smaller(larger(rounded_product(v, a.y_factor), a.low), a.high);
  float q = rounded_product(v, a.y_reciprocal);
  q = fused_product_sum(fused_product_sum(-q, a.y_scale, v), a.y_reciprocal, q);
  const unsigned integer = bits_of(rounded_sum(q, kRoundToInteger));
  return static_cast<Byte>(integer + a.y_zero_point);
}

// The value of one output, whose residual is `z`, unless a.z is null.
__device__ inline float value_of(const IntegerConvArgs& a, unsigned sum, float scale, float bias,
                                 Byte z) {
  float v = rounded_sum(rounded_product(-static_cast<float>(sum), scale), bias);
  if (a.z != nullptr) {
    const float zero_point = float_of(kTwoTo23 + a.z_zero_point);
    const float centred = rounded_sum(float_of(kTwoTo23 + z), -zero_point);
    v = rounded_sum(v, rounded_product(centred, a.z_scale));
  }
  return v;
}

// The outputs of some sums, one in each byte; so are their residuals in `z`.
template <int kCount>
__device__ inline unsigned finish(const IntegerConvArgs& a, const unsigned (&sums)[kCount],
                                  const float* scale, const float* bias, unsigned z) {
  float v[kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k)
    v[k] = value_of(a, sums[k], scale[k], bias[k], static_cast<Byte>(z >> 8 * k));
  if (a.borders != 0) return nearest_levels(a, v);
  unsigned y = 0;
#pragma unroll
  for (int k = 0; k < kCount; ++k) y |= requantize(a, v[k]) << 8 * k;
  return y;
}
