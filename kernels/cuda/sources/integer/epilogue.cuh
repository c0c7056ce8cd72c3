// What follows the integer sum: the arithmetic of QLinearAdderConv, each step rounded to float32 by
// itself, so that all devices give the same bits:
//
//   v = float(sum) * -scale[m] + bias[m]
//   v = v + (z - z_zero_point) * z_scale      where there is a residual
//   y = clamp(round_half_even(max(v, clip_min) / y_scale) + y_zero_point, 0, top)
//
// The clamp is done before the division: with low = -y_zero_point * y_scale the quotient of low
// rounds to exactly -y_zero_point, likewise above, and quotient and rounding are monotone. Division
// by a constant is two fused steps after a product with the reciprocal r (Markstein 1990),
//
//   q = v * r;  quotient = q + (v - q * y_scale) * r
//
// which is used where the launcher (epilogue.py) has found it to round, for this scale, to the same
// integer at every border between two integers, and thus everywhere. Else v is divided, and the
// integer is clamped too: `high` may be infinite there.
#pragma once

#include "common/params.cuh"
#include "common/rounded.cuh"

// NaN becomes the lower bound.
__device__ inline unsigned char requantize(const IntegerConvArgs& a, float v) {
  v = smaller(larger(v, a.low), a.high);
  int y;
  if (a.y_reciprocal != 0) {
    const float q = rounded_product(v, a.y_reciprocal);
    y = rounded_integer(
        fused_product_sum(fused_product_sum(-q, a.y_scale, v), a.y_reciprocal, q));
  } else {
    y = rounded_integer(rounded_quotient(v, a.y_scale));
    y = min(max(y, -a.y_zero_point), a.top - a.y_zero_point);
  }
  return static_cast<unsigned char>(y + a.y_zero_point);
}

// `sum` of one output; `z` is its residual, unless a.z is null.
__device__ inline unsigned char finish(const IntegerConvArgs& a, unsigned sum, float scale,
                                       float bias, unsigned z) {
  float v = rounded_sum(rounded_product(-static_cast<float>(sum), scale), bias);
  if (a.z != nullptr) {
    const float centred = static_cast<float>(static_cast<int>(z) - a.z_zero_point);
    v = rounded_sum(v, rounded_product(centred, a.z_scale));
  }
  return requantize(a, v);
}
