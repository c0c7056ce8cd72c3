// What a value becomes at a chain's border, from its value as a float:
//
//   float, __half   rounded to even
//   float -> Byte   clamp(round_half_even(v / scale) + zero_point, 0, top), as QuantizeLinear has it;
//                   then what a table says of that, where there is one
//   Byte -> float   (q - zero_point) * scale, as DequantizeLinear has it
//   Byte -> Byte    itself
#pragma once

#include "common/params.cuh"
#include "common/rounded.cuh"
#include "float/taps.cuh"

__device__ inline float as_float(float value) { return value; }
__device__ inline float as_float(__half value) { return to_float(value); }
__device__ inline float as_float(Byte value) { return value; }

template <typename From, typename To>
struct Convert {
  __device__ static To run(const LayoutArgs&, float v) { return from_float<To>(v); }
};

template <>
struct Convert<float, Byte> {
  // NaN becomes 0.
  __device__ static Byte run(const LayoutArgs& a, float v) {
    v = larger(rounded_quotient(v, a.scale), -a.zero_point);
    v = smaller(v, a.top - a.zero_point);
    return static_cast<Byte>(rounded_integer(v) + static_cast<int>(a.zero_point));
  }
};

template <>
struct Convert<Byte, float> {
  __device__ static float run(const LayoutArgs& a, float q) {
    return rounded_product(q - a.zero_point, a.scale);
  }
};

template <>
struct Convert<Byte, Byte> {
  __device__ static Byte run(const LayoutArgs&, float q) {
    return static_cast<Byte>(q);
  }
};

// What the table makes of a value that has been converted.
template <typename To>
__device__ inline To looked_up(const LayoutArgs&, To value) {
  return value;
}
__device__ inline Byte looked_up(const LayoutArgs& a, Byte value) {
  return a.table == nullptr ? value : __ldg(a.table + value);
}
