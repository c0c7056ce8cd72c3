// float32 operations that round once and keep subnormal numbers, whatever the compiler's options
// say: CuPy's flush subnormal numbers to zero, and contract products and sums to one operation.
#pragma once

#if defined(__CUDA_ARCH__)

__device__ inline float rounded_product(float a, float b) {
  float r;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
__device__ inline float rounded_sum(float a, float b) {
  float r;
  asm("add.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
__device__ inline float rounded_quotient(float a, float b) {
  float r;
  asm("div.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
__device__ inline float fused_product_sum(float a, float b, float c) {
  float r;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
}
// Of a number and one that is none, the number.
__device__ inline float larger(float a, float b) {
  float r;
  asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
__device__ inline float smaller(float a, float b) {
  float r;
  asm("min.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
// These bits where a is at least b, else none; none where one is no number.
__device__ inline unsigned bits_if_at_least(float a, float b, unsigned bits) {
  unsigned r;
  asm("{ .reg .pred p; setp.ge.f32 p, %1, %2; selp.b32 %0, %3, 0, p; }"
      : "=r"(r)
      : "f"(a), "f"(b), "r"(bits));
  return r;
}
// To nearest, and to even; what an int is too small for becomes the largest or the least.
__device__ inline int rounded_integer(float a) {
  int r;
  asm("cvt.rni.s32.f32 %0, %1;" : "=r"(r) : "f"(a));
  return r;
}

__device__ inline unsigned bits_of(float a) { return __float_as_uint(a); }
__device__ inline float float_of(unsigned bits) { return __uint_as_float(bits); }

#else  // the host's compiler, which is told not to contract

inline float rounded_product(float a, float b) { return a * b; }
inline float rounded_sum(float a, float b) { return a + b; }
inline float rounded_quotient(float a, float b) { return a / b; }
inline float fused_product_sum(float a, float b, float c) { return fmaf(a, b, c); }
inline float larger(float a, float b) { return fmaxf(a, b); }
inline float smaller(float a, float b) { return fminf(a, b); }
inline unsigned bits_if_at_least(float a, float b, unsigned bits) { return a >= b ? bits : 0; }
inline int rounded_integer(float a) {
  constexpr float kBeyond = 2147483648.0f;
  if (a >= kBeyond) return 2147483647;
  return a >= -kBeyond ? static_cast<int>(rintf(a)) : a < -kBeyond ? -2147483647 - 1 : 0;
}
inline unsigned bits_of(float a) {
  unsigned bits;
  __builtin_memcpy(&bits, &a, sizeof(bits));
  return bits;
}
inline float float_of(unsigned bits) {
  float a;
  __builtin_memcpy(&a, &bits, sizeof(a));
  return a;
}

#endif
