// Stands in for CUDA's header of this name. Arithmetic is float32 and rounded: for one operation
// on float16 values that is the rounded exact result.
#pragma once

#include "cuda_stand_in.h"
#include "layout/half.h"

struct __half {
  adder_onnx::Half value;
};
struct alignas(4) __half2 {
  __half x, y;
};

inline float __half2float(__half h) { return adder_onnx::to_float(h.value); }
inline __half __float2half_rn(float f) {
  __half h;
  adder_onnx::from_float(f, h.value);
  return h;
}
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __floats2half2_rn(float x, float y) {
  return {__float2half_rn(x), __float2half_rn(y)};
}
inline float __low2float(__half2 a) { return __half2float(a.x); }
inline float __high2float(__half2 a) { return __half2float(a.y); }
inline __half2 __habs2(__half2 a) {
  a.x.value.bits &= 0x7fff;
  a.y.value.bits &= 0x7fff;
  return a;
}
inline __half2 __hadd2(__half2 a, __half2 b) {
  return {__float2half_rn(__half2float(a.x) + __half2float(b.x)),
          __float2half_rn(__half2float(a.y) + __half2float(b.y))};
}
inline __half2 __hsub2(__half2 a, __half2 b) {
  return {__float2half_rn(__half2float(a.x) - __half2float(b.x)),
          __float2half_rn(__half2float(a.y) - __half2float(b.y))};
}
